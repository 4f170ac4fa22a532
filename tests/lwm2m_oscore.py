"""The scripted LwM2M client with OSCORE. What protects its messages is aiocoap's implementation, which is not gatewayd's."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiocoap import Message, error  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.message import Direction  # type: ignore[import-untyped]  # as above
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.types import CON, NON  # type: ignore[import-untyped]  # as above
from cryptography.hazmat.primitives.hashes import SHA256

from gatewayd.core.credentials import OscoreKey
from tests.lwm2m_client import PATIENCE_S, ScriptedDevice

oscore = pytest.importorskip("aiocoap.oscore", reason="aiocoap[oscore] is not installed: no peer for OSCORE here")


class PeerContext(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc,name-defined]  # no types
    """A context in memory. `is_new` False: its replay window is lost, as after a reboot."""

    echo_recovery: bytes | None = None

    def __init__(self, key: OscoreKey, *, first: int = 0, is_new: bool = True) -> None:
        self.alg_aead = oscore.AES_CCM_16_64_128()
        self.hashfun = SHA256()
        self.id_context = None
        self.sender_id, self.recipient_id = key.kid, key.gateway_id
        self.sender_sequence_number = first
        self.derive_keys(key.salt, key.secret)
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        if is_new:
            self.recipient_replay_window.initialize_empty()
        else:
            self.echo_recovery = b"say this"

    def post_seqnoincrease(self) -> None:
        """See aiocoap."""


class OscoreDevice(ScriptedDevice):
    """A device whose messages are protected. `sent` are its datagrams as they went out."""

    def __init__(self, gateway: tuple[str, int], key: OscoreKey) -> None:
        super().__init__(gateway)
        self.key = key
        self.context = PeerContext(key)
        self.sent: list[bytes] = []
        self.heard: list[bytes] = []
        self._binding: dict[bytes, Any] = {}
        self._asked_with: dict[bytes, Any] = {}

    @property
    def port(self) -> int:
        """Its UDP port."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def resume(self, other: "OscoreDevice") -> None:
        """Go on as another one, on another socket."""
        self.tree, self.context, self.location = other.tree, other.context, other.location
        self._numbers, self._asked_with = other._numbers, other._asked_with  # noqa: SLF001 - of the same class

    def send_raw(self, data: bytes) -> None:
        self.sent.append(data)
        super().send_raw(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401 - asyncio's shape
        self.heard.append(data)
        outer = Message.decode(data, None)
        outer.direction = Direction.INCOMING
        if outer.opt.oscore is None or self.is_deaf:
            super().datagram_received(data, addr)
        elif outer.code.is_request():
            self._take_question(outer)
        else:
            self._take_answer(outer)

    def _take_question(self, outer: Message) -> None:
        try:
            inner, binding = self.context.unprotect(outer)
        except error.RenderableError as failure:
            self.reply(outer, failure.to_message())
            return
        except oscore.ProtectionInvalid:
            return
        inner.mtype, inner.mid, inner.token = outer.mtype, outer.mid, outer.token
        self._binding[outer.token] = binding
        self.asked.append(inner)
        reply = self.answer(inner)
        self._changed.set()
        if reply is not None:
            self.reply(inner, reply)

    def _take_answer(self, outer: Message) -> None:
        waiting = self._waiting.pop(outer.token, None)
        if waiting is None:
            return
        inner, _ = self.context.unprotect(outer, self._asked_with[outer.token])
        if not waiting.done():
            waiting.set_result(inner)

    def reply(self, request: Message, reply: Message) -> None:
        binding = self._binding.get(request.token)
        if binding is not None and reply.opt.oscore is None:
            reply.direction, observe = Direction.OUTGOING, reply.opt.observe
            reply, _ = self.context.protect(reply, binding)
            reply.opt.observe = observe
        super().reply(request, reply)

    def notify(self, request: Message, payload: bytes, *, number: int, content_format: int = 11542) -> None:
        news = Message(code=codes.CONTENT, payload=payload, content_format=content_format, observe=0)
        outer, _ = self.context.protect(news, self._binding[request.token])
        outer.opt.observe = number
        outer.mtype, outer.mid, outer.token = NON, next(self._numbers) & 0xFFFF, request.token
        self.send_raw(outer.encode())

    async def ask(self, code: int, path: tuple[str, ...], *, confirmable: bool = True, **options: object) -> Message:
        """Ask protected, and once more with the Echo that the gateway wants."""
        answer = await self.ask_once(code, path, confirmable=confirmable, **options)
        if answer.code == codes.UNAUTHORIZED and answer.opt.echo is not None:
            return await self.ask_once(code, path, confirmable=confirmable, echo=answer.opt.echo, **options)
        return answer

    async def ask_once(
        self, code: int, path: tuple[str, ...], *, confirmable: bool = True, **options: object
    ) -> Message:
        inner = Message(code=code, uri_path=path, **options)
        outer, binding = self.context.protect(inner)
        outer.mtype = CON if confirmable else NON
        outer.mid, outer.token = next(self._numbers) & 0xFFFF, struct.pack("!I", next(self._numbers))
        self._asked_with[outer.token] = binding
        waiting = self._waiting[outer.token] = asyncio.get_running_loop().create_future()
        self.send_raw(outer.encode())
        async with asyncio.timeout(PATIENCE_S):
            return await waiting


@asynccontextmanager
async def oscore_device(gateway: tuple[str, int], key: OscoreKey) -> AsyncIterator[OscoreDevice]:
    device = OscoreDevice(gateway, key)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: device, local_addr=("127.0.0.1", 0))
    try:
        yield device
    finally:
        device.close()
