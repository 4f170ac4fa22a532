"""The one file of this link that knows aiocoap: its messages to our values and back. It is handed an open context.

Nothing is decided here. Every question is one datagram: blocks are `blocks`, so that transfers can be counted and resumed.
"""

import asyncio
import functools
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiocoap import Message, error  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.constants import TransportTuning  # type: ignore[import-untyped]  # as above
from aiocoap.pipe import Pipe  # type: ignore[import-untyped]  # as above
from aiocoap.transports.udp6 import (  # type: ignore[import-untyped]  # as above
    MessageInterfaceUDP6,
    UDP6EndpointAddress,
)

from gatewayd.core.errors import DeviceUnreachable
from gatewayd.links.lwm2m.coap import (
    STANDARD,
    Answer,
    Ask,
    Block,
    Code,
    Incoming,
    NoAnswer,
    Notified,
    Observation,
    Peer,
    Reset,
    Serve,
    Timing,
)

logger = logging.getLogger(__name__)

Resolve = Callable[[Any, str], Any]
"""Makes of a plain remote the one that a stored identity is spoken to through; None: by its address alone it cannot be."""


class CoapPeer:
    """A remote of aiocoap's, as `Peer`."""

    __slots__ = ("remote",)

    def __init__(self, remote: Any) -> None:  # noqa: ANN401 - aiocoap ships no types
        self.remote = remote

    @property
    def address(self) -> str:
        """Host and port; the port stands always."""
        host, port = self.remote.sockaddr[:2]
        return f"{host.removeprefix('::ffff:')}|{port}"

    @property
    def identity(self) -> str:
        """The credential that the security layer has checked."""
        return str(getattr(self.remote, "identity", ""))

    @property
    def gateway(self) -> str:
        """Where the peer sent its last message to: that is how it reaches us. After a restart: where we speak from."""
        if getattr(self.remote, "pktinfo", self) is None:
            host = _own_address(self.remote.sockaddr)
            port = self.remote.interface.transport.get_extra_info("socket").getsockname()[1]
            return f"coap://[{host}]:{port}" if ":" in host else f"coap://{host}:{port}"
        return str(self.remote.uri_base_local)

    def __hash__(self) -> int:
        return hash(self.remote)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoapPeer) and bool(self.remote == other.remote)

    def __repr__(self) -> str:
        return f"CoapPeer({self.address})"


class CoapEndpoint:
    """Satisfies `coap.Exchange` over an aiocoap context that `adapters.coap_context` opened."""

    def __init__(self, secured: Resolve = lambda remote, identity: None if identity else remote) -> None:
        self._context: Any = None
        self._secured = secured

    def opened(self, context: Any) -> None:  # noqa: ANN401 - aiocoap ships no types
        """Take the context; until then nothing can be asked."""
        self._context = context

    async def ask(self, peer: Peer, ask: Ask, *, timeout_s: float, timing: Timing = STANDARD) -> Answer:
        """See `coap.Exchange`."""
        question = await self._question(peer, ask, timing)
        answer = await question.answer(timeout_s)
        if _wants_echo(answer):
            again = await self._question(peer, replace(ask, echo=answer.echo), timing)
            return await again.answer(timeout_s)
        return answer

    async def observe(
        self, peer: Peer, ask: Ask, notified: Notified, *, timeout_s: float, timing: Timing = STANDARD
    ) -> tuple[Answer, Observation | None]:
        """See `coap.Exchange`."""
        question = await self._question(peer, ask, timing, notified)
        answer = await question.answer(timeout_s)
        if _wants_echo(answer):
            question = await self._question(peer, replace(ask, echo=answer.echo), timing, notified)
            answer = await question.answer(timeout_s)
        return answer, None if question.has_ended else question

    def peer(self, address: str, identity: str = "") -> Peer | None:
        """See `coap.Exchange`."""
        host, _, port = address.rpartition("|")
        transport = next(filter(None, map(_udp, self._context.request_interfaces)), None)
        if transport is None:
            return None
        mapped = host if ":" in host else f"::ffff:{host}"
        remote = self._secured(UDP6EndpointAddress((mapped, int(port), 0, 0), transport), identity)
        return None if remote is None else CoapPeer(remote)

    async def _question(self, peer: Peer, ask: Ask, timing: Timing, notified: Notified | None = None) -> "_Question":
        """Put a question, protected where the peer's identity was proved by OSCORE. Raises: DeviceUnreachable."""
        tokens, message = self._tokens(peer), _message(peer, ask, timing)
        seal = getattr(message.remote, "sealed", None)
        opener = _as_it_is
        if seal is not None:
            message, opener = await seal(message)
        return _Question(tokens, message, notified, opener)

    def _tokens(self, peer: Peer) -> Any:  # noqa: ANN401 - aiocoap ships no types
        """Return the layer that reaches the peer: each transport of the context has one."""
        if self._context is None or not isinstance(peer, CoapPeer):
            raise DeviceUnreachable("the gateway's CoAP port is not open")
        for tokens in self._context.request_interfaces:
            if (
                tokens.outgoing_requests is not None
                and tokens.token_interface.message_interface is peer.remote.interface
            ):
                return tokens
        raise DeviceUnreachable(f"{peer.address}: there is no way to it any more")


class _Question:
    """One question on its way, and its notifications when it observes."""

    def __init__(
        self,
        tokens: Any,  # noqa: ANN401 - as above
        message: Message,
        notified: Notified | None,
        opener: Callable[[Message], Message],
    ) -> None:
        self._tokens = tokens
        self._message = message
        self._notified = notified
        self._open = opener
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.has_ended = False
        self._pipe = Pipe(message, logger)
        self._stop = self._pipe.on_event(self._happened)
        tokens.request(self._pipe)

    async def answer(self, timeout_s: float) -> Answer:
        """Wait for the first answer. Raises: NoAnswer, Reset, DeviceUnreachable."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None
        finally:
            if not self._answer.done() or self._answer.cancelled():
                self.forget()
                self._tokens.token_interface.give_up(self._message)

    def forget(self) -> None:
        """See `coap.Observation`."""
        self._notified = None
        if not self.has_ended:
            self.has_ended = True
            self._stop()

    def _happened(self, event: Any) -> bool:  # noqa: ANN401 - as above
        """Take an answer, a notification or a failure; return whether more is wanted."""
        self.has_ended = self.has_ended or event.is_last or event.exception is not None
        if not self._answer.done():
            self._answered(event)
        elif self._notified is not None:
            self._notice(event, self._notified)
        return not self.has_ended

    def _answered(self, event: Any) -> None:  # noqa: ANN401 - as above
        if event.exception is not None:
            self._answer.set_exception(_failure(event.exception))
            return
        try:
            self._answer.set_result(_answer(self._open(event.message)))
        except DeviceUnreachable as failure:
            self._answer.set_exception(failure)

    def _notice(self, event: Any, notified: Notified) -> None:  # noqa: ANN401 - as above
        if event.message is not None:
            try:
                notified(_answer(self._open(event.message)))
            except DeviceUnreachable as failure:
                logger.debug("notification dropped", extra={"fields": {"reason": str(failure)}})
        if self.has_ended:
            notified(None)


class Served:
    """Hands requests to `serve`, block by block, without aiocoap's own observations and assembly, which has no bounds."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer one request."""
        reply = await self._serve(_incoming(pipe.request))
        message = Message(code=reply.code, payload=reply.payload)
        for name, value in (
            ("content_format", reply.content_format), ("size2", reply.size2), ("etag", reply.etag),
            ("max_age", reply.max_age_s), ("block1", _tuple(reply.block1)), ("block2", _tuple(reply.block2)),
        ):  # fmt: skip
            if value is not None:
                setattr(message.opt, name, value)
        if reply.location:
            message.opt.location_path = reply.location
        pipe.add_response(message, is_last=True)


def _as_it_is(message: Message) -> Message:
    return message


def _udp(tokens: Any) -> Any:  # noqa: ANN401 - aiocoap ships no types
    """Return the plain transport of a layer; None: it is another one."""
    transport = tokens.token_interface.message_interface
    return transport if isinstance(transport, MessageInterfaceUDP6) else None


def _wants_echo(answer: Answer) -> bool:
    """Whether a device wants proof that a question is no old one. Source: RFC 9175, section 2.3; RFC 8613, appendix B.1.2."""
    return answer.code == Code.UNAUTHORIZED and answer.echo is not None


def _own_address(sockaddr: tuple[Any, ...]) -> str:
    """Return the address of this machine from which the kernel would send there; nothing is sent."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.connect(sockaddr)
        return str(probe.getsockname()[0]).removeprefix("::ffff:")


@functools.lru_cache(maxsize=256)
def _tuning(timing: Timing) -> TransportTuning:
    tuning = TransportTuning()
    tuning.ACK_TIMEOUT, tuning.MAX_RETRANSMIT = timing.ack_timeout_s, timing.retransmits
    tuning.longest_s = timing.longest_s  # not aiocoap's: `adapters.coap_context` reads it
    return tuning


def _message(peer: Peer, ask: Ask, timing: Timing) -> Message:
    message = Message(code=int(ask.method), payload=ask.payload, transport_tuning=_tuning(timing))
    options = message.opt
    options.uri_path = ask.path
    if ask.query:
        options.uri_query = ask.query
    for name, value in (
        ("content_format", ask.content_format), ("accept", ask.accept), ("size1", ask.size1), ("observe", ask.observe),
        ("block1", _tuple(ask.block1)), ("block2", _tuple(ask.block2)), ("echo", ask.echo),
    ):  # fmt: skip
        if value is not None:
            setattr(options, name, value)
    message.remote = peer.remote if isinstance(peer, CoapPeer) else None
    return message


def _answer(message: Message) -> Answer:
    options = message.opt
    return Answer(
        int(message.code),
        bytes(message.payload),
        None if options.content_format is None else int(options.content_format),
        _block(options.block1),
        _block(options.block2),
        options.observe,
        options.etag,
        tuple(options.location_path),
        options.echo,
    )


def _incoming(message: Message) -> Incoming:
    options = message.opt
    return Incoming(
        CoapPeer(message.remote),
        int(message.code),
        tuple(options.uri_path),
        tuple(options.uri_query),
        bytes(message.payload),
        None if options.content_format is None else int(options.content_format),
        None if options.accept is None else int(options.accept),
        _block(options.block1),
        _block(options.block2),
        options.size1,
        tuple(options.etags or ()),
    )


def _block(option: Any) -> Block | None:  # noqa: ANN401 - aiocoap ships no types
    return None if option is None else Block(option.block_number, bool(option.more), option.size_exponent)


def _tuple(block: Block | None) -> tuple[int, bool, int] | None:
    return None if block is None else (block.number, block.more, block.size_exponent)


def _failure(cause: Exception | type[Exception]) -> Exception:
    """Return our error for aiocoap's, which may be a class instead of an instance."""
    cause = cause() if isinstance(cause, type) else cause
    if isinstance(cause, error.MessageError):
        return Reset("the device rejected the message (reset)")
    if isinstance(cause, error.ConRetransmitsExceeded):
        return NoAnswer("no answer to any repetition")
    told = cause.__cause__ or cause  # aiocoap puts what was said into an error that says nothing
    return DeviceUnreachable(str(told) or type(told).__name__)
