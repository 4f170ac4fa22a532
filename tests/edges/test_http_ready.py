"""Answers in one piece: whatever the caller's manners, they are those of any other answer."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import pytest

from gatewayd.edges.http_server import HttpListen, serve_http
from tests.fakes_api import World

BODY = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
MANY, OTHERS = 6_000, 100


def request(*lines: str, version: str = "1.1") -> bytes:
    head = [f"POST /v2/models/kws/infer HTTP/{version}", "Host: localhost", f"Content-Length: {len(BODY)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + BODY


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    serving = serve_http(world.api(), HttpListen(), max_body_bytes=10_000, metrics_text=lambda: b"", ready=lambda: True)
    async with serving as bound:
        yield bound


async def answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], dict[str, object]]:
    async with asyncio.timeout(20):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return status, headers, json.loads(await reader.readexactly(int(headers["content-length"])))


async def served_meanwhile(port: int, world: World) -> int:
    """Return how many requests are served while somebody else asks so many times."""
    before = len(world.inference.seen)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(OTHERS):
        writer.write(request())
        await answer(reader)
    writer.close()
    return len(world.inference.seen) - before


async def test_its_headers_are_those_of_other_answers(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request() + b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, headers, document = await answer(reader)
    other_status, other, _ = await answer(reader)
    assert document["model_name"] == "kws"
    assert (status, headers.keys()) == (other_status, other.keys())
    assert {name: headers[name] for name in ("server", "content-type")} == {
        name: other[name] for name in ("server", "content-type")
    }
    assert abs((parsedate_to_datetime(other["date"]) - parsedate_to_datetime(headers["date"])).total_seconds()) <= 1
    writer.close()


async def test_bytes_are_announced(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    lines = ["POST /v2/models/kws/infer HTTP/1.1", "Host: localhost", f"Content-Length: {len(head) + 16}", length]
    writer.write("\r\n".join([*lines, "", ""]).encode() + head + bytes(16))
    async with asyncio.timeout(20):
        got = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert "content-type: application/octet-stream" in got
    assert "inference-header-content-length: " in got
    writer.close()


@pytest.mark.parametrize(
    ("sent", "connection", "stays"),
    [
        (request("Connection: close"), "close", False),
        (request(version="1.0"), None, False),
        (request("Connection: keep-alive", version="1.0"), "keep-alive", True),
        (request(), None, True),
    ],
)
async def test_the_connection_stays_as_the_caller_wishes(
    port: int, sent: bytes, connection: str | None, *, stays: bool
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    status, headers, _ = await answer(reader)
    assert status.endswith(" 200 OK")
    assert headers.get("connection") == connection
    if stays:
        writer.write(sent)
        assert (await answer(reader))[0].endswith(" 200 OK")
    else:
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_a_caller_that_does_not_read_is_not_answered_without_end(port: int, world: World) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream it is a socket's
        writer.write(request() * MANY)
        asked = 0
        async with asyncio.timeout(60):
            while (grown := await served_meanwhile(port, world)) > OTHERS:
                asked += grown - OTHERS
        assert asked < MANY
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        for _ in range(MANY):
            assert (await answer(reader))[0] == "HTTP/1.1 200 OK"
        writer.close()
