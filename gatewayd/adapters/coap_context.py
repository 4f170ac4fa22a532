"""An aiocoap server context on one UDP port, with bounds where aiocoap has none. Who serves and who asks is handed it.

aiocoap keeps each message it received for 247 s (RFC 7252's EXCHANGE_LIFETIME) with the whole response and a timer: at 1,000
registration updates a second that would be half a gigabyte. Here it is some 8 MB, and bounded (`adapters.coap_recent`).
A question that nobody waits for any more is dropped with its retransmissions; in aiocoap it would hold back, for 93 s, all that
is to be sent to the same device. Tokens are drawn at random: who did not see a question cannot make up its answer.
"""

import asyncio
import functools
import logging
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiocoap import Context, Message, error  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.message import Direction  # type: ignore[import-untyped]  # as above
from aiocoap.messagemanager import MessageManager  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.codes import EMPTY, GET  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.types import ACK, CON, NON, RST  # type: ignore[import-untyped]  # as above
from aiocoap.pipe import error_to_message, run_driving_pipe  # type: ignore[import-untyped]  # as above
from aiocoap.tokenmanager import TokenManager  # type: ignore[import-untyped]  # as above
from aiocoap.transports.udp6 import (  # type: ignore[import-untyped]  # as above
    MessageInterfaceUDP6,
    UDP6EndpointAddress,
)
from aiocoap.util import socknumbers  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.coap_recent import EXCHANGE_LIFETIME_S, MAX_ANSWERS, Recent

_SMALL_BYTES = 64  # longer answers to a GET are not kept: asking again gives the same, and costs less than the memory
MAX_NUMBERED = 4_096
"""Protects memory: peers whose next message number is known; past that the one not written to for longest is forgotten."""
RECEIVE_BUFFER_BYTES = 4 * 2**20
"""What the kernel holds while the loop is busy: 1,000 devices that register at once after a power cut. It may give less."""
_TOKEN_BYTES = 4  # 2**32 guesses for each answer; constrained clients copy tokens, so short ones are kind
_GROUPS_V6, _GROUPS_V4, _V4_MAPPED = 0xFF, 0xE, bytes(10) + b"\xff\xff"
_NUMBERS = 65_536  # of messages: 16 bits
_MAX_DATAGRAM = 8192  # larger ones are no CoAP: RFC 7252 assumes 1,152 bytes


Refused = Callable[[str, str, str], None]
"""Counts what is refused: where it came in, a code, and what it was."""


def _ignore(where: str, code: str, message: str) -> None:
    """Nobody counts."""


@dataclass(slots=True)
class _Sent:
    """An answer as it went out: what aiocoap's transports need of a message."""

    content: bytes
    remote: Any

    def encode(self) -> bytes:
        return self.content


def _key(message: Message) -> int:
    return hash((message.remote, message.mid))


class BoundedMessages(MessageManager):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's message layer with a bounded memory of what was received, and questions that can be taken back."""

    def __init__(
        self,
        tokens: Any,  # noqa: ANN401 - aiocoap ships no types
        *,
        recent: Recent | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(tokens)
        self._wall_clock = wall_clock
        self._recent = Recent() if recent is None else recent
        self._numbers: OrderedDict[Any, int] = OrderedDict()
        self._addressee: Any = None

    def send_message(self, message: Message, messageerror_monitor: Any) -> None:  # noqa: ANN401 - aiocoap ships no types
        """See aiocoap's MessageManager."""
        self._addressee = message.remote
        super().send_message(message, messageerror_monitor)

    def _next_message_id(self) -> int:
        """Return the next number of messages to this peer.

        A device takes a number that it heard within EXCHANGE_LIFETIME for a repeated message, and says nothing, or what it said
        then. aiocoap's one counter for all peers comes round within that time at 265 messages a second, ten pushes at 30 ms
        round trip; a counter for each does so only when one peer gets as many. It begins where the clock stands in a circle of
        EXCHANGE_LIFETIME, so that a restarted gateway goes on past what it used before. Source: RFC 7252, section 4.4.
        """
        number = self._numbers.pop(self._addressee, None)
        if number is None:
            number = int(self._wall_clock() % EXCHANGE_LIFETIME_S / EXCHANGE_LIFETIME_S * _NUMBERS)
        self._numbers[self._addressee] = (number + 1) % _NUMBERS
        if len(self._numbers) > MAX_NUMBERED:
            self._numbers.popitem(last=False)
        return number

    def _schedule_retransmit(self, message: Message, timeout: float, retransmission_counter: int) -> Any:  # noqa: ANN401 - as above
        """See aiocoap's MessageManager, which doubles a wait without end."""
        longest_s = getattr(message.transport_tuning, "longest_s", timeout)
        return super()._schedule_retransmit(message, min(timeout, longest_s), retransmission_counter)

    def give_up(self, message: Message) -> None:
        """Send no more of `message` (a confirmable one that was sent); what waits behind it goes next."""
        key = (message.remote, message.mid)
        found = self._active_exchanges and self._active_exchanges.pop(key, None)
        if found:
            found[1].cancel()
            if message.remote in self._backlogs:  # an ICMP error, or shutting down, may have emptied it before
                self._continue_backlog(message.remote)
            return
        waiting = self._backlogs.get(message.remote)
        if waiting:
            waiting[:] = [each for each in waiting if each[0] is not message]

    @property
    def remembered(self) -> int:
        """How many messages are kept to know them again."""
        return len(self._recent)

    def _deduplicate_message(self, message: Message) -> bool:
        key = _key(message)
        if not self._recent.is_repeated(key, self.loop.time()):
            return False
        answer = self._recent.answer(key)
        if message.mtype is CON and answer is not None:
            self._send_via_transport(_Sent(answer, message.remote.as_response_address()))
        return True

    def _process_response(self, response: Message) -> bool:
        """Take a response; a notification that nobody waits for is rejected also where it asks for no acknowledgement.

        That is how a device learns that its observation has ended. Source: RFC 7641, section 3.6.
        """
        if super()._process_response(response):
            return True
        if response.mtype is NON and response.opt.observe is not None and not response.remote.is_multicast_locally:
            rejection = Message(_mtype=RST, _mid=response.mid, code=EMPTY, payload=b"")
            rejection.remote = response.remote.as_response_address()
            self._send_initially(rejection)
        return False

    def _store_response_for_duplicates(self, message: Message) -> None:
        if message.mtype not in (ACK, RST):
            return  # a separate answer has a number of its own
        answer, asked = message.encode(), message.request
        if asked is not None and asked.code == GET and len(answer) > _SMALL_BYTES:
            self._recent.drop(_key(message))
        else:
            self._recent.keep(_key(message), answer)


class RandomTokens(TokenManager):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's token layer with tokens that cannot be foreseen."""

    def next_token(self) -> bytes:
        """Return a token; two of the same to one device at one time would need some 65,000 observations of it."""
        return secrets.token_bytes(_TOKEN_BYTES)


class LeanAddress(UDP6EndpointAddress):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's address, which parses itself again for every answer to see whether it is a group's."""

    @property
    def is_multicast(self) -> bool:
        """Whether the peer's address is a group's."""
        return _is_group(self.sockaddr[0])

    @property
    def is_multicast_locally(self) -> bool:
        """Whether the peer spoke to a group's address of ours."""
        local = self.pktinfo or bytes(16)
        return bool(local[0] == _GROUPS_V6 or (local[:12] == _V4_MAPPED and local[12] >> 4 == _GROUPS_V4))


@functools.lru_cache(maxsize=4096)
def _is_group(address: str) -> bool:
    return UDP6EndpointAddress((address, 0, 0, 0), _Nobody).is_multicast is True


class _Nobody:
    """An interface for an address that is only looked at."""


class _Lazily:
    """A coroutine that is made when it is awaited: a request that a repeated one overtakes is dropped before that."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._make = make

    def __await__(self) -> Generator[Any, Any, None]:
        return self._make().__await__()


class LeanContext(Context):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's context, which describes every request at length for the name of its task."""

    def render_to_pipe(self, pipe: Any) -> None:  # noqa: ANN401 - aiocoap ships no types
        """See aiocoap's Context."""
        answered = error_to_message(pipe, self.log)
        run_driving_pipe(answered, _Lazily(lambda: self._render_to_pipe(answered)), name="coap: answer")


class CountingUdp(MessageInterfaceUDP6):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's UDP transport; what is not CoAP is counted, not logged line by line."""

    on_refused: Refused = staticmethod(_ignore)

    def datagram_msg_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:  # noqa: ANN401, ARG002 - its shape
        """Decode a datagram and hand it on. What cannot be read is answered with silence (RFC 7252, section 4.2)."""
        pktinfo = next(
            (each for level, kind, each in ancdata if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)), None
        )
        remote = LeanAddress(address, self, pktinfo=pktinfo)
        message = decoded(data, remote)
        if message is None:
            self.on_refused("coap", "malformed", f"{len(data)} bytes from {address[0]} are no CoAP message")
            return
        message.direction = Direction.INCOMING
        self._ctx.dispatch_message(message)


def _set_up(bound: socket.socket) -> None:
    """Make room for a burst, and take no ICMP errors.

    With them on, Linux reports "port unreachable" of a client that is gone at the next send to anybody, which is then not
    sent; and whoever forges one ends what is under way with a device. A device that is gone is noticed by its silence.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    bound.setsockopt(socket.IPPROTO_IPV6, socknumbers.IPV6_RECVERR, 0)
    bound.setsockopt(socket.IPPROTO_IP, socknumbers.IP_RECVERR, 0)


def decoded(data: bytes, remote: Any) -> Message | None:  # noqa: ANN401 - aiocoap ships no types
    """Return the message of a datagram, None when it is none."""
    if len(data) > _MAX_DATAGRAM:
        return None
    try:
        return Message.decode(data, remote)
    except (error.UnparsableMessage, ValueError, IndexError, KeyError, AttributeError, TypeError):
        return None


@asynccontextmanager
async def open_context(
    site: Any,  # noqa: ANN401 - aiocoap ships no types
    *,
    host: str,
    port: int,
    max_recent: int = MAX_ANSWERS,
    on_refused: Refused = _ignore,
) -> AsyncIterator[Context]:
    """Serve `site` on a UDP port while the context lasts; `max_recent` messages are remembered with their answers.

    Raises: OSError when the address cannot be bound.
    """
    context = _context(site)
    tokens = RandomTokens(context)
    messages = BoundedMessages(tokens, recent=Recent(max_answers=max_recent))
    transport = await CountingUdp.create_server_transport_endpoint(
        messages, log=context.log, loop=context.loop, bind=(host, port), multicast=[]
    )
    transport.on_refused = on_refused
    _set_up(transport.transport.get_extra_info("socket"))
    messages.message_interface, tokens.token_interface = transport, messages
    context.request_interfaces.append(tokens)
    try:
        yield context
    finally:
        await asyncio.shield(context.shutdown())


@asynccontextmanager
async def open_without_port(site: Any) -> AsyncIterator[Context]:  # noqa: ANN401 - aiocoap ships no types
    """Serve `site` while the context lasts to whoever another transport lets in, for instance DTLS."""
    context = _context(site)
    try:
        yield context
    finally:
        if context.request_interfaces:  # aiocoap cannot end what has none
            await asyncio.shield(context.shutdown())


def _context(site: Any) -> LeanContext:  # noqa: ANN401 - as above
    context = LeanContext(loop=asyncio.get_running_loop(), serversite=site, loggername="coap-server")
    # aiocoap says a line or more about every datagram, and warns of each strange one: strangers must not fill the disk.
    context.log.setLevel(logging.ERROR)
    return context
