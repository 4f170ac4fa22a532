import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiocoap  # type: ignore[import-untyped]  # aiocoap ships no types
import pytest
from aiocoap import resource

from gatewayd.core.errors import (
    Conflict,
    DeadlineExceeded,
    DeviceTimeout,
    DeviceUnreachable,
    Forbidden,
    GatewayError,
    NoPlacement,
    Overloaded,
    UnknownModel,
    WorkerDied,
)
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.edges.coap import MAX_ASSEMBLIES, serve_coap, serve_resources
from tests.fakes_api import World

LIMIT = 8000
REFERENCE = b'{"id":"q","device":"cam-7","input":"mic"}'


@dataclass
class Edge:
    port: int
    world: World
    events: list[GatewayEvent]
    client: aiocoap.Context

    async def request(self, path: str, *, code: object = aiocoap.POST, **message: object) -> tuple[str, bytes]:
        uri = f"coap://127.0.0.1:{self.port}{path}"
        async with asyncio.timeout(10):
            response = await self.client.request(aiocoap.Message(code=code, uri=uri, **message)).response
        return response.code.dotted, response.payload


@asynccontextmanager
async def running(world: World, *, max_running: int = 64) -> AsyncIterator[Edge]:
    events: list[GatewayEvent] = []
    async with serve_coap(
        world.api(), port=0, max_payload_bytes=LIMIT, max_running=max_running, notify=events.append
    ) as port:
        client = await aiocoap.Context.create_client_context(transports=["udp6"])
        try:
            yield Edge(port, world, events, client)
        finally:
            await client.shutdown()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running(World()) as running_edge:
        yield running_edge


def message_of(payload: bytes) -> str:
    return str(json.loads(payload)["error"]["message"])


async def test_by_reference_in_json(edge: Edge) -> None:
    code, payload = await edge.request("/infer/kws:canary", payload=REFERENCE, content_format=50)
    answer = json.loads(payload)
    assert (code, answer["id"], answer["parameters"]["label"]) == ("2.05", "q", "yes")
    (request,) = edge.world.inference.seen
    assert str(request.model) == "kws:canary"
    assert request.source is not None


@pytest.mark.parametrize("content_format", [42, None])
async def test_raw_bytes(edge: Edge, content_format: int | None) -> None:
    code, _ = await edge.request("/infer/kws", payload=b"\x01\x02", content_format=content_format)
    assert (code, edge.world.inference.seen[0].raw) == ("2.05", b"\x01\x02")


async def test_a_payload_in_blocks(edge: Edge) -> None:
    raw = bytes(range(250)) * 30
    code, _ = await edge.request("/infer/kws", payload=raw, content_format=42)
    assert (code, edge.world.inference.seen[0].raw) == ("2.05", raw)


async def test_a_payload_over_the_limit(edge: Edge) -> None:
    code, payload = await edge.request("/infer/kws", payload=bytes(10_000_000 // 100), content_format=42)
    assert (code, message_of(payload)[-31:]) == ("4.13", "is over the limit of 8000 bytes")
    assert edge.world.inference.seen == []
    assert (await edge.request("/infer/kws", payload=b"1", content_format=42))[0] == "2.05"


@pytest.mark.parametrize(
    ("path", "message", "code", "text"),
    [
        ("/infer/kws", {"payload": b'{"a":', "content_format": 50}, "4.00", "the body is not valid JSON"),
        ("/infer/kws", {"payload": b""}, "4.00", "the body is empty"),
        ("/infer/kws", {"payload": b"a", "content_format": 41}, "4.00", "content-format 41 is not understood; known: "),
        ("/infer/Bad", {"payload": b"a"}, "4.00", "'Bad' is no model name"),
        ("/infer/a/b", {"payload": b"a"}, "4.00", "'a/b' is no model name"),
    ],
)
async def test_mistakes(edge: Edge, path: str, message: dict[str, object], code: str, text: str) -> None:
    answered, payload = await edge.request(path, **message)
    assert (answered, message_of(payload)[: len(text)]) == (code, text)


async def test_other_methods_and_paths(edge: Edge) -> None:
    assert (await edge.request("/infer/kws", code=aiocoap.GET))[0] == "4.05"
    assert (await edge.request("/nowhere", payload=b"1"))[0] == "4.04"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownModel("x"), "4.04"), (Conflict("x"), "4.09"), (NoPlacement("x"), "4.09"), (Forbidden("x"), "4.03"),
        (DeviceUnreachable("x"), "5.02"), (DeviceTimeout("x"), "5.04"), (DeadlineExceeded("x"), "5.04"),
        (WorkerDied("x"), "5.03"), (Overloaded("x"), "5.03"), (GatewayError("x"), "5.00"),
    ],
)  # fmt: skip
async def test_errors_of_the_services(edge: Edge, error: GatewayError, code: str) -> None:
    edge.world.inference.error = error
    answered, payload = await edge.request("/infer/kws", payload=REFERENCE)
    assert (answered, json.loads(payload)) == (code, {"error": {"code": error.code, "message": "x"}, "id": "q"})


async def test_the_unexpected_is_logged_and_survived(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    edge.world.inference.error = ZeroDivisionError("secret")
    with caplog.at_level(logging.ERROR):
        code, payload = await edge.request("/infer/kws", payload=REFERENCE)
    assert (code, "secret" in message_of(payload)) == ("5.00", False)
    assert "ZeroDivisionError: secret" in caplog.text
    edge.world.inference.error = None
    assert (await edge.request("/infer/kws", payload=REFERENCE))[0] == "2.05"


async def test_malformed_input_is_announced(edge: Edge) -> None:
    await edge.request("/infer/kws", payload=b"{")
    assert [event.code for event in edge.events if isinstance(event, InputRefused)] == ["bad_request"]


async def test_models_are_discovered(edge: Edge) -> None:
    code, payload = await edge.request("/.well-known/core", code=aiocoap.GET)
    (link,) = [link for link in payload.decode().split(",") if link.startswith("</infer/kws>")]
    assert (code, set(link.split(";"))) == ("2.05", {"</infer/kws>", 'ct="50 60 42"', 'rt="gatewayd.infer"'})


async def test_too_many_at_one_time() -> None:
    world = World()
    release = asyncio.Event()
    original = world.inference.infer

    class Waiting:
        async def infer(self, request: object) -> object:
            await release.wait()
            return await original(request)  # type: ignore[arg-type]  # handed through

    world.inference = Waiting()  # type: ignore[assignment]  # the same shape
    async with running(world, max_running=2) as edge, asyncio.TaskGroup() as tasks:
        sent = [tasks.create_task(edge.request("/infer/kws", payload=b"1"), name=f"r{n}") for n in range(3)]
        first, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in first] == ["5.03"]
        release.set()
        await asyncio.wait(sent)
        assert sorted(task.result()[0] for task in sent) == ["2.05", "2.05", "5.03"]


async def test_uploads_that_are_never_finished_are_forgotten(edge: Edge) -> None:
    async def block(number: int, content_format: int) -> str:
        message = aiocoap.Message(
            code=aiocoap.POST,
            uri=f"coap://127.0.0.1:{edge.port}/infer/kws",
            payload=bytes(16),
            content_format=content_format,
            block1=(number, True, 0),
        )
        async with asyncio.timeout(10):
            response = await edge.client.request(message, handle_blockwise=False).response
        return str(response.code.dotted)

    first = [await block(0, content_format) for content_format in range(100, 101 + MAX_ASSEMBLIES)]
    assert set(first) == {"2.31"}
    assert await block(1, 100) == "4.08"
    assert await block(1, 100 + MAX_ASSEMBLIES) == "2.31"
    assert await block(3, 100 + MAX_ASSEMBLIES) == "4.08"


async def test_a_taken_port_is_an_os_error(edge: Edge) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        await serve_coap(edge.world.api(), port=edge.port).__aenter__()


def test_no_port_is_left_open() -> None:
    async def bound() -> int:
        async with running(World()) as edge:
            await edge.request("/infer/kws", payload=b"1")
            return edge.port

    port = asyncio.run(bound())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", port))


async def test_a_port_is_held_until_it_is_bound_and_shared_with_nobody() -> None:
    """aiocoap shares a taken port with its owner: two servers on one port would get half of the messages each."""
    shared = []

    @asynccontextmanager
    async def opener(_: object, host: str, port: int) -> AsyncIterator[None]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind((host, port))
        context = await aiocoap.Context.create_server_context(resource.Site(), bind=(host, port), transports=["udp6"])
        shared.append(port)
        yield
        await context.shutdown()

    async with serve_resources({}, host="127.0.0.1", port=0, opener=opener) as port:
        assert shared == [port]
        with pytest.raises(OSError, match="in use"):
            async with serve_resources({}, host="127.0.0.1", port=port, opener=opener):
                pass
