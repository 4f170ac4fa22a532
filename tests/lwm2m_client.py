"""An LwM2M client for tests, scripted: it does what a test says, right or wrong. It shares nothing with gatewayd but aiocoap's
message codec; its values are encoded here, by hand."""

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.message import Direction  # type: ignore[import-untyped]  # as above
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.types import ACK, CON, NON, RST  # type: ignore[import-untyped]  # as above

TLV, TEXT, OPAQUE, LINKS, SENML_JSON = 11542, 0, 42, 40, 110
PATIENCE_S = 10.0

Value = str | int | float | bool | bytes
Path = tuple[int, ...]
Answering = Callable[[Message], Message | None]


def tlv(kind: int, id: int, content: bytes) -> bytes:  # noqa: A002 - LwM2M's word for it
    """One entry: kind 0 object instance, 1 resource instance, 2 multiple resource, 3 resource."""
    head, wide = kind << 6, id > 255
    head |= 0x20 if wide else 0
    name = struct.pack("!H", id) if wide else bytes([id])
    size = len(content)
    if size < 8:
        return bytes([head | size]) + name + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([head | (len(length) << 3)]) + name + length + content


def raw(value: Value) -> bytes:
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, int):
        size = next(each for each in (1, 2, 4, 8) if -(1 << (8 * each - 1)) <= value < 1 << (8 * each - 1))
        return value.to_bytes(size, "big", signed=True)
    if isinstance(value, float):
        return struct.pack("!d", value)
    return value.encode() if isinstance(value, str) else value


@dataclass
class Tree:
    """What the device holds: values by path of 3 ids (resource) or 4 (resource instance)."""

    values: dict[Path, Value] = field(default_factory=dict)

    def tlv(self, path: Path) -> bytes | None:
        found = {at: value for at, value in self.values.items() if at[: len(path)] == path}
        if not found:
            return None
        if len(path) == 1:
            instances = sorted({at[1] for at in found})
            return b"".join(tlv(0, each, self._resources(found, each)) for each in instances)
        return self._resources(found, path[1])

    def _resources(self, found: Mapping[Path, Value], instance: int) -> bytes:
        parts = []
        own = {at: value for at, value in found.items() if at[1] == instance}
        for resource in sorted({at[2] for at in own}):
            several = {at[3]: value for at, value in own.items() if at[2] == resource and len(at) == 4}
            if several:
                inner = b"".join(tlv(1, number, raw(value)) for number, value in sorted(several.items()))
                parts.append(tlv(2, resource, inner))
            else:
                parts.append(tlv(3, resource, raw(next(v for at, v in own.items() if at[2] == resource))))
        return b"".join(parts)


class ScriptedDevice(asyncio.DatagramProtocol):
    """A device on a UDP socket. `answer` may be replaced; by default reads come from `tree` in TLV, writes go into it."""

    def __init__(self, gateway: tuple[str, int]) -> None:
        self.gateway = gateway
        self.tree = Tree()
        self.asked: list[Message] = []
        self.writes: dict[Path, bytes] = {}
        self.executed: list[tuple[Path, str]] = []
        self.on_execute: Callable[[Path, str], Message | None] = lambda *_: None
        self.answer: Answering = self.well_behaved
        self.is_deaf = False
        self.observes = False
        self.observed: dict[Path, Message] = {}
        self.resets = 0
        self.location: tuple[str, ...] = ()
        self._numbers = itertools.count(1)
        self._news = itertools.count(3)
        self._waiting: dict[bytes, asyncio.Future[Message]] = {}
        self._uploads: dict[Path, bytearray] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._changed = asyncio.Event()

    # the socket

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's shape
        self._transport = transport

    def datagram_received(self, data: bytes, _: Any) -> None:  # noqa: ANN401 - asyncio's shape
        if self.is_deaf:
            return
        message = Message.decode(data, None)
        message.direction = Direction.INCOMING
        if message.code.is_response():
            waiting = self._waiting.pop(message.token, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            if message.mtype is CON:
                self.send_raw(struct.pack("!BBH", 0x60, 0, message.mid))
        elif message.mtype is RST:
            self.resets += 1
            self._changed.set()
        elif message.code.is_request():
            self.asked.append(message)
            reply = self.answer(message)
            self._changed.set()
            if reply is not None:
                self.reply(message, reply)

    @property
    def address(self) -> str:
        """Host and port, as peers are stored."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return f"{host}|{port}"

    def send_raw(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(data, self.gateway)

    def reply(self, request: Message, reply: Message) -> None:
        """Answer piggybacked."""
        reply.mtype, reply.mid, reply.token = ACK, request.mid, request.token
        self.send_raw(reply.encode())

    def reset(self, request: Message) -> None:
        self.send_raw(struct.pack("!BBH", 0x40 | (int(RST) << 4), 0, request.mid))

    def tell(self, path: Path, *, number: int | None = None) -> None:
        """Notify what `path`, which is observed, holds now."""
        request, content = self.observed[path], self.tree.tlv(path)
        assert content is not None
        self.notify(request, content, number=next(self._news) if number is None else number)

    def notify(self, request: Message, payload: bytes, *, number: int, content_format: int = TLV) -> None:
        """Notify what `request` observes."""
        news = Message(code=codes.CONTENT, payload=payload, content_format=content_format, observe=number)
        news.mtype, news.mid, news.token = NON, next(self._numbers) & 0xFFFF, request.token
        self.send_raw(news.encode())

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    async def move(self) -> None:
        """Speak from another port from now on, as behind a NAT that forgot."""
        self.close()
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    # what it asks

    async def ask(
        self,
        code: int,
        path: tuple[str, ...],
        *,
        confirmable: bool = True,
        **options: object,
    ) -> Message:
        message = Message(code=code, uri_path=path, **options)
        message.mtype = CON if confirmable else NON
        message.mid = next(self._numbers) & 0xFFFF
        message.token = struct.pack("!I", next(self._numbers))
        waiting = self._waiting[message.token] = asyncio.get_running_loop().create_future()
        self.send_raw(message.encode())
        async with asyncio.timeout(PATIENCE_S):
            return await waiting

    async def register(
        self,
        name: str = "dev-1",
        links: str = "</1/0>,</3/0>",
        *,
        query: tuple[str, ...] = ("lwm2m=1.1", "lt=300", "b=U"),
        content_format: int | None = LINKS,
    ) -> Message:
        answer = await self.ask(
            codes.POST,
            ("rd",),
            uri_query=(f"ep={name}", *query),
            payload=links.encode(),
            content_format=content_format,
        )
        if answer.code == codes.CREATED:
            self.location = tuple(answer.opt.location_path)
        return answer

    async def update(self, *, query: tuple[str, ...] = (), links: str = "") -> Message:
        kind = LINKS if links else None
        return await self.ask(codes.POST, self.location, uri_query=query, payload=links.encode(), content_format=kind)

    async def deregister(self) -> Message:
        return await self.ask(codes.DELETE, self.location)

    # what it answers

    def well_behaved(self, message: Message) -> Message | None:
        path = tuple(int(each) for each in message.opt.uri_path)
        if message.code == codes.GET:
            reply = blockwise(self.read(path), message)
            if self.observes and message.opt.observe == 0 and reply.code == codes.CONTENT:
                self.observed[path], reply.opt.observe = message, next(self._news)
            return reply
        if message.code == codes.PUT:
            return self.write(path, message)
        if message.code == codes.POST:
            argument = message.payload.decode()
            self.executed.append((path, argument))
            return self.on_execute(path, argument) or Message(code=codes.CHANGED)
        return Message(code=codes.METHOD_NOT_ALLOWED)

    def read(self, path: Path) -> Message:
        content = self.tree.tlv(path)
        if content is None:
            return Message(code=codes.NOT_FOUND)
        return Message(code=codes.CONTENT, payload=content, content_format=TLV)

    def write(self, path: Path, message: Message) -> Message:
        block = message.opt.block1
        if block is None:
            self.writes[path] = message.payload
            return Message(code=codes.CHANGED)
        part = self._uploads.setdefault(path, bytearray())
        if block.start == 0:
            part.clear()
        if block.start != len(part):
            return Message(code=codes.REQUEST_ENTITY_INCOMPLETE)
        part += message.payload
        if block.more:
            return Message(code=codes.CONTINUE, block1=(block.block_number, True, block.size_exponent))
        self.writes[path] = bytes(part)
        return Message(code=codes.CHANGED, block1=(block.block_number, False, block.size_exponent))

    # what tests wait for

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a message makes `condition` true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def blockwise(reply: Message, request: Message) -> Message:
    """Cut an answer that is over one block."""
    block = request.opt.block2
    number, exponent = (block.block_number, block.size_exponent) if block else (0, 6)
    size = 1 << (exponent + 4)
    if block is None and len(reply.payload) <= size:
        return reply
    rest = reply.payload[number * size :]
    reply.payload = rest[:size]
    reply.opt.block2 = (number, len(rest) > size, exponent)
    return reply


@asynccontextmanager
async def scripted_device(gateway: tuple[str, int]) -> AsyncIterator[ScriptedDevice]:
    device = ScriptedDevice(gateway)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: device, local_addr=("127.0.0.1", 0))
    try:
        yield device
    finally:
        device.close()
