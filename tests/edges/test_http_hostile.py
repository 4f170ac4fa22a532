"""Bad input over HTTP: one clear error each, and whoever behaves is served meanwhile."""

import asyncio
import itertools
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from gatewayd.api.table import VERBS
from gatewayd.api.verb import AnyVerb
from gatewayd.edges.http_openapi import path_of
from gatewayd.edges.http_server import HttpListen, HttpTimeouts, serve_http
from tests.fakes_api import World

LIMIT = 100_000
HEAD = b"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\n"
GOOD = b'{"device":"cam-7","input":"mic"}'


class Peer:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, dict[str, object]]:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            return int(head.split()[1]), json.loads(await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class Edge:
    def __init__(self, port: int) -> None:
        self.port = port
        self.peers: list[Peer] = []

    async def peer(self, sent: bytes = b"") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        peer.writer.write(sent)
        self.peers.append(peer)
        return peer

    async def serves(self) -> bool:
        peer = await self.peer(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD))
        return (await peer.answer())[0] == 200


@asynccontextmanager
async def running(*, max_connections: int = 1000, patience_s: float = 0.2) -> AsyncIterator[Edge]:
    serving = serve_http(
        World().api(),
        HttpListen(max_connections=max_connections),
        max_body_bytes=LIMIT,
        metrics_text=bytes,
        ready=lambda: True,
        timeouts=HttpTimeouts(head_s=patience_s, body_s=patience_s, linger_s=0.05, shutdown_s=0.05),
    )
    async with serving as port:
        edge = Edge(port)
        yield edge
        for peer in edge.peers:
            peer.writer.close()


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"Content-Length: 1073741824\r\n\r\n{", 413, "a body of 1073741824 bytes is over the limit of 100000 bytes"),
        (
            b"Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n",
            413,
            "a body of 1073741824 bytes is over the limit of 100000 bytes",
        ),
        (
            b"Inference-Header-Content-Length: 999\r\nContent-Length: 2\r\n\r\n{}",
            400,
            "Inference-Header-Content-Length: 999 is not within the body of 2 bytes",
        ),
        (
            b"Inference-Header-Content-Length: -1\r\nContent-Length: 2\r\n\r\n{}",
            400,
            "Inference-Header-Content-Length: '-1' is no number of bytes",
        ),
        (b"Content-Length: 50\r\n\r\n{", 408, "Request Timeout"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n20000\r\n" + bytes(LIMIT + 1),
            413,
            "the body is over the limit of 100000 bytes",
        ),
    ],
)
async def test_lies_about_sizes_get_one_clear_error(sent: bytes, status: int, message: str) -> None:
    async with running() as edge:
        peer = await edge.peer(HEAD + sent)
        found, document = await peer.answer()
        assert (found, document["error"]) == (status, message)
        assert await edge.serves()


async def test_a_packed_body_is_bounded_unpacked() -> None:
    bomb = zlib.compress(bytes(50 * 2**20), 9)
    assert len(bomb) < LIMIT
    async with running() as edge:
        peer = await edge.peer(HEAD + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
        status, document = await peer.answer()
        assert status in {400, 413}
        assert document["error"]
        assert await edge.serves()


async def test_one_that_sends_its_head_byte_by_byte_is_let_go() -> None:
    async with running(patience_s=0.15) as edge:
        peer = await edge.peer()
        head = itertools.chain(HEAD, itertools.cycle(b"X-Slow: 1\r\n"))

        async def dribble() -> None:
            for byte in head:
                peer.writer.write(bytes([byte]))
                try:
                    async with asyncio.timeout(0.02):
                        if not await peer.reader.read(1):
                            return
                except TimeoutError:
                    continue
                except ConnectionError:
                    return

        async with asyncio.timeout(8):
            await dribble()
        assert await edge.serves()


async def test_connections_past_the_limit_are_told_so_and_those_within_are_served() -> None:
    async with running(max_connections=20, patience_s=5.0) as edge:
        kept = [await edge.peer(HEAD) for _ in range(20)]
        for _ in range(50):
            status, document = await (await edge.peer()).answer()
            assert (status, document["error"]) == (
                503,
                {"code": "overloaded", "message": "too many connections; try again in a second"},
            )
        for peer in kept:
            peer.writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD))
        assert [(await peer.answer())[0] for peer in kept] == [200] * 20


HOSTILE: list[object] = [
    None, True, -1, 0, 2**63, 1e308, "", "x", "\u0000", "kws", "../x", "a" * 5000, "cam-7", [], [[]], {}, {"a": []}, ["kws"],
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
async def test_whatever_a_verb_is_sent_the_answer_is_what_the_description_says(verb: AnyVerb) -> None:
    names = [field.alias or name for name, field in verb.arguments.model_fields.items()]
    bodies: list[bytes] = [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}", b'{"a":1}', b"[" * 5000]
    bodies += [json.dumps({name: value}).encode() for name in names for value in HOSTILE]
    bodies += [json.dumps(dict.fromkeys(names, value)).encode() for value in HOSTILE]
    async with running(patience_s=5.0) as edge:
        peer = await edge.peer()
        for body in bodies:
            peer.writer.write(b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % path_of(verb).encode())
            peer.writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            status, document = await peer.answer()
            assert status < 500, (body, document)
            _check(verb, status, document, body)


def _check(verb: AnyVerb, status: int, document: dict[str, object], body: bytes) -> None:
    if status == 200:
        try:
            verb.result.model_validate(document)
        except ValidationError as mistake:
            raise AssertionError(f"{body!r}: {mistake}") from mistake
        return
    error = document["error"]
    assert isinstance(error, dict)
    assert set(error) == {"code", "message"}
