"""OSCORE over an aiocoap context: protected questions are opened before the site sees them, and answers sealed after it.

An opened message comes from an `OscoreAddress`, whose `identity` was proved; questions to such an address are sealed by it.
aiocoap has an OSCORE of its own, for which it wants four more packages and a context store of its own in files.
Blocks are cut inside (RFC 8613, section 4.1.3.4.1); an outer Block option, which only a proxy makes, is refused.
Sources: RFC 8613, sections 4.1.3 (options), 8.1 to 8.4; RFC 9175, section 2 (Echo).
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiocoap import Message, error, interfaces  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.message import Direction  # type: ignore[import-untyped]  # as above
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.types import CON  # type: ignore[import-untyped]  # as above
from aiocoap.pipe import Pipe  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.coap_context import Refused
from gatewayd.adapters.oscore_contexts import Held, OscoreContexts
from gatewayd.core.errors import BadRequest, Conflict, DeviceUnreachable, Forbidden, NotStored
from gatewayd.core.record import record
from gatewayd.wire.oscore.context import Asked
from gatewayd.wire.oscore.header import Header, decode_header
from gatewayd.wire.oscore.numbers import Verdict

logger = logging.getLogger("coap-server")

Opener = Callable[[Message], Message]
"""Opens an answer to a question of ours. Raises: DeviceUnreachable when it is none of the device's."""

_PAYLOAD_MARK = b"\xff"


class OscoreAddress(interfaces.EndpointAddress):  # type: ignore[misc]  # aiocoap ships no types
    """Who is at the other end: an address, and the identity that its context proves."""

    scheme = "coap"
    maximum_block_size_exp = 6
    maximum_payload_size = 1024
    is_multicast = False
    is_multicast_locally = False

    def __init__(self, underlying: Any, identity: str, contexts: OscoreContexts) -> None:  # noqa: ANN401 - aiocoap ships no types
        self.underlying = underlying
        self.identity = identity
        self._contexts = contexts

    def __hash__(self) -> int:
        return hash((self.underlying, self.identity))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OscoreAddress) and (self.identity, self.underlying) == (
            other.identity,
            other.underlying,
        )

    @property
    def interface(self) -> Any:  # noqa: ANN401 - aiocoap ships no types
        """The transport below."""
        return self.underlying.interface

    @property
    def sockaddr(self) -> Any:  # noqa: ANN401 - as above
        """Where the peer is."""
        return self.underlying.sockaddr

    @property
    def pktinfo(self) -> Any:  # noqa: ANN401 - as above
        """Which address of ours the peer spoke to; None: not told."""
        return getattr(self.underlying, "pktinfo", None)

    @property
    def hostinfo(self) -> str:
        """Host and port of the peer."""
        return str(self.underlying.hostinfo)

    @property
    def hostinfo_local(self) -> str:
        """Host and port under which the peer reaches us."""
        return str(self.underlying.hostinfo_local)

    @property
    def uri_base(self) -> str:
        """The peer's base URI."""
        return str(self.underlying.uri_base)

    @property
    def uri_base_local(self) -> str:
        """Our base URI."""
        return str(self.underlying.uri_base_local)

    @property
    def authenticated_claims(self) -> list[str]:
        """Who it is, in aiocoap's words."""
        return [self.identity]

    @property
    def blockwise_key(self) -> Any:  # noqa: ANN401 - as above
        """What blocks of one transfer have in common."""
        return self.underlying.blockwise_key, self.identity

    def as_response_address(self) -> "OscoreAddress":
        """Answers go where the question came from."""
        return self

    async def sealed(self, question: Message) -> tuple[Message, Opener]:
        """Return a question of ours as it goes out, and what opens its answers.

        Raises: DeviceUnreachable when the context is gone, or its numbers cannot be kept.
        """
        held = self._contexts.of_identity(self.identity)
        if held is None:
            raise DeviceUnreachable(f"{self.identity}: its OSCORE context was revoked")
        try:
            number = await self._contexts.next_number(held)
        except (NotStored, Conflict) as failure:
            raise DeviceUnreachable(str(failure)) from failure
        sealed, asked = held.context.seal_question(number, _plaintext(question))
        observe = question.opt.observe
        outer = Message(
            code=codes.POST if observe is None else codes.FETCH,
            payload=sealed.payload,
            oscore=sealed.option,
            observe=observe,
            transport_tuning=question.transport_tuning,
        )
        outer.remote = self.underlying
        return outer, _Answers(held, asked, self).open


@dataclass(slots=True)
class _Answers:
    """What comes back to one question: one answer, or notifications, each newer than the last one."""

    held: Held
    asked: Asked
    remote: OscoreAddress
    newest: int = -1

    def open(self, message: Message) -> Message:
        """See `Opener`."""
        option = message.opt.oscore
        device = self.held.key.device
        if option is None:
            raise DeviceUnreachable(
                f"device {device} answered {message.code} without OSCORE: it has no such context, or lost its numbers"
            )
        try:
            header = decode_header(option)
            content = self.held.context.open_answer(self.asked, header, message.payload)
        except (BadRequest, Forbidden) as failure:
            raise DeviceUnreachable(f"device {device}: {failure}") from failure
        inner = _inner(content, self.remote)
        if inner is None:
            raise DeviceUnreachable(f"device {device}: what it protected is no CoAP message")
        self._number(inner, message, header)
        return inner

    def _number(self, inner: Message, outer: Message, header: Header) -> None:
        """Number a notification by its partial IV; one that was overtaken is dropped. Source: RFC 8613, section 4.1.3.5.2."""
        if outer.opt.observe is None or not header.partial_iv:
            inner.opt.observe = None if outer.opt.observe is None else 0
            return
        if header.number <= self.newest:
            raise DeviceUnreachable(f"device {self.held.key.device}: an old notification came again")
        self.newest = header.number
        inner.opt.observe = header.number & 0xFFFFFF


@record
class _Opened:
    """A question that its sender proved; `code` is that of its answer, outside."""

    held: Held
    message: Message
    asked: Asked
    number: int
    code: Any


class _Turned(Exception):
    """A question that is answered without protection, if at all."""

    def __init__(self, code: Any, kind: str, text: str) -> None:  # noqa: ANN401 - aiocoap ships no types
        super().__init__(text)
        self.code, self.kind, self.text = code, kind, text


class OscoreSite:
    """A site behind the protection: what is not protected goes through as it is, and the site has to look at who asks."""

    def __init__(self, site: Any, contexts: OscoreContexts, *, on_refused: Refused) -> None:  # noqa: ANN401 - as above
        self._site = site
        self._contexts = contexts
        self._on_refused = on_refused

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer a request."""
        request = pipe.request
        if request.opt.oscore is None:
            await self._site.render_to_pipe(pipe)
            return
        try:
            opened = self._open(request)
            answer = await self._judged(opened)
        except _Turned as turned:
            self._on_refused("coap", turned.kind, f"OSCORE from {request.remote.hostinfo}: {turned.text}")
            if request.mtype is CON:
                pipe.add_response(Message(code=turned.code, max_age=0, payload=turned.text.encode()), is_last=True)
            return
        pipe.add_response(answer, is_last=True)

    def _open(self, request: Message) -> _Opened:
        """Raises: _Turned with the code that RFC 8613, section 8.2, has for it."""
        if request.opt.block1 is not None or request.opt.block2 is not None:
            raise _Turned(codes.BAD_OPTION, "oscore_malformed", "cut outside: blocks have to be inside")
        if request.code not in {codes.POST, codes.FETCH}:
            raise _Turned(codes.BAD_OPTION, "oscore_malformed", "neither POST nor FETCH outside")
        try:
            header = decode_header(request.opt.oscore)
        except BadRequest as failure:
            raise _Turned(codes.BAD_OPTION, "oscore_malformed", "Failed to decode COSE") from failure
        if header.kid is None or not header.partial_iv:
            raise _Turned(codes.BAD_OPTION, "oscore_malformed", "Failed to decode COSE")
        held = None if header.kid_context else self._contexts.of_kid(header.kid)
        if held is None:
            raise _Turned(codes.UNAUTHORIZED, "oscore_unknown", "Security context not found")
        if held.numbers.judge(header.number) is Verdict.COPY:
            raise _Turned(codes.UNAUTHORIZED, "oscore_replay", "Replay detected")
        try:
            content, asked = held.context.open_question(header, request.payload)
        except (BadRequest, Forbidden) as failure:
            raise _Turned(codes.BAD_REQUEST, "oscore_forged", "Decryption failed") from failure
        inner = _inner(content, OscoreAddress(request.remote, held.identity, self._contexts))
        if inner is None or not inner.code.is_request():
            raise _Turned(codes.BAD_REQUEST, "oscore_malformed", "what was protected is no CoAP request")
        inner.mtype = request.mtype
        answered = codes.CHANGED if request.code == codes.POST else codes.CONTENT
        return _Opened(held, inner, asked, header.number, answered)

    async def _judged(self, opened: _Opened) -> Message:
        """Serve what is new; have the device prove it where that cannot be told. Raises: _Turned."""
        held = opened.held
        is_proved = held.numbers.judge(opened.number) is Verdict.NEW or _has_echo(opened)
        try:
            if not is_proved:
                self._on_refused("coap", "oscore_unproved", f"{held.identity} has to repeat an Echo")
                number = await self._contexts.next_number(held)
                return _sealed(opened, Message(code=codes.UNAUTHORIZED, max_age=0, echo=held.echo), number=number)
            await self._contexts.take(held, opened.number)
        except (NotStored, Conflict) as failure:
            raise _Turned(codes.SERVICE_UNAVAILABLE, "not_stored", str(failure)) from failure
        return _sealed(opened, await self._rendered(opened.message))

    async def _rendered(self, message: Message) -> Message:
        """Have the site answer. Its answer to somebody who proved who they are is protected, whatever it is."""
        answers: list[Message] = []
        inner = Pipe(message, logger)

        def took(event: Any) -> bool:  # noqa: ANN401 - aiocoap ships no types
            answers.append(event.message)
            return not event.is_last

        inner.on_event(took)
        try:
            await self._site.render_to_pipe(inner)
        except error.RenderableError as failure:
            return failure.to_message()
        return answers[-1] if answers and answers[-1] is not None else Message(code=codes.INTERNAL_SERVER_ERROR)


def _has_echo(opened: _Opened) -> bool:
    echo = opened.message.opt.echo
    return echo is not None and secrets.compare_digest(bytes(echo), opened.held.echo)


def _sealed(opened: _Opened, answer: Message, *, number: int | None = None) -> Message:
    sealed = opened.held.context.seal_answer(opened.asked, _plaintext(answer), number=number)
    outer = Message(code=opened.code, payload=sealed.payload, oscore=sealed.option)
    outer.transport_tuning = answer.transport_tuning
    return outer


def _plaintext(message: Message) -> bytes:
    """Return what is protected: the code, all options (none of ours is for proxies), the payload."""
    payload = _PAYLOAD_MARK + bytes(message.payload) if message.payload else b""
    return bytes([int(message.code)]) + bytes(message.opt.encode()) + payload


def _inner(plaintext: bytes, remote: OscoreAddress) -> Message | None:
    """Return the message that was protected, None when it is none."""
    try:
        message = Message(code=plaintext[0])
        message.payload = message.opt.decode(plaintext[1:])
    except (error.UnparsableMessage, ValueError, IndexError, KeyError, AttributeError, TypeError):
        return None
    message.remote, message.direction = remote, Direction.INCOMING
    return message
