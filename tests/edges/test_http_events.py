import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from gatewayd.core.events import AliasMoved, GatewayEvent, InputRefused, ModelAdded
from gatewayd.core.names import ModelName
from gatewayd.edges.http_events import MAX_LISTENERS, EventStreams
from gatewayd.edges.http_server import HttpListen, serve_http
from tests.fakes_api import World

ADDED = ModelAdded(ModelName("kws"), 2)
MOVED = AliasMoved(ModelName("kws"), "stable", 2)


@asynccontextmanager
async def listening(streams: EventStreams) -> AsyncIterator[str]:
    serving = serve_http(
        World().api(), HttpListen(), max_body_bytes=1000, metrics_text=bytes, ready=lambda: True, events=streams
    )
    async with serving as port:
        yield f"http://127.0.0.1:{port}/api/events"


async def lines_of(response: aiohttp.ClientResponse, count: int) -> list[str]:
    async with asyncio.timeout(5):
        return [(await response.content.readline()).decode().rstrip() for _ in range(count)]


async def until_they_listen(streams: EventStreams, count: int) -> None:
    async with asyncio.timeout(5):
        while streams.listeners != count:  # noqa: ASYNC110 - the edge tells nobody that a listener came
            await asyncio.sleep(0)


async def test_events_are_told_as_they_happen() -> None:
    streams = EventStreams()
    async with listening(streams) as url, aiohttp.ClientSession() as http, http.get(url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        await until_they_listen(streams, 1)
        for event in (ADDED, InputRefused("http", "bad_request", "x"), MOVED):
            streams.publish(event)
        lines = await lines_of(response, 10)
    assert lines[0].startswith("retry: ")
    assert lines[2:4] == ["id: 1", "event: model"]
    assert json.loads(lines[4].removeprefix("data: ")) == {"what": "added", "model": "kws", "version": 2}
    assert lines[6] == "id: 2"
    assert json.loads(lines[8].removeprefix("data: "))["what"] == "alias moved"


async def test_a_listener_chooses_kinds() -> None:
    streams = EventStreams(keepalive_s=0.01)
    async with listening(streams) as url, aiohttp.ClientSession() as http:
        async with http.get(f"{url}?kind=push,device") as response:
            await until_they_listen(streams, 1)
            streams.publish(ADDED)
            assert await lines_of(response, 4) == ["retry: 2000", "", ": still here", ""]
        async with http.get(f"{url}?kind=gossip") as response:
            assert response.status == 400
            assert "one or more of push, device" in await response.text()


async def test_a_listener_that_goes_is_forgotten() -> None:
    streams = EventStreams(keepalive_s=0.01)
    async with listening(streams) as url, aiohttp.ClientSession() as http:
        async with http.get(url):
            await until_they_listen(streams, 1)
        await until_they_listen(streams, 0)
    assert streams.dropped == 0


async def test_a_listener_that_does_not_read_is_let_go_and_others_are_served() -> None:
    streams = EventStreams()
    big: GatewayEvent = AliasMoved(ModelName("k" * 60_000), "stable", 1)
    async with listening(streams) as url, aiohttp.ClientSession() as http:
        host, port = url.split("/")[2].split(":")
        _, stuck = await asyncio.open_connection(host, int(port), limit=1)
        stuck.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until_they_listen(streams, 1)
        async with asyncio.timeout(20):
            while streams.listeners:
                streams.publish(big)
                await asyncio.sleep(0)
        assert streams.dropped == 1
        async with http.get(url) as response:
            await until_they_listen(streams, 1)
            streams.publish(ADDED)
            assert "kws" in (await lines_of(response, 5))[4]
        stuck.close()


async def test_listeners_are_bounded() -> None:
    streams = EventStreams()
    connector = aiohttp.TCPConnector(limit=0)
    async with listening(streams) as url, aiohttp.ClientSession(connector=connector) as http:
        responses = [await http.get(url) for _ in range(MAX_LISTENERS)]
        async with http.get(url) as one_more:
            assert one_more.status == 503
        for response in responses:
            response.close()


async def test_streams_end_with_the_edge() -> None:
    streams = EventStreams()
    async with aiohttp.ClientSession() as http:
        async with listening(streams) as url:
            response = await http.get(url)
            await until_they_listen(streams, 1)
        async with asyncio.timeout(5):
            assert (await response.read()).startswith(b"retry:")


@pytest.mark.parametrize("event", [ADDED, MOVED])
def test_nobody_listens_costs_nothing(event: GatewayEvent) -> None:
    EventStreams().publish(event)
