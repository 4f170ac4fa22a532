"""CoAP as the protocol logic sees it: questions and answers as values, and the seam to whoever carries them. No sockets.

Sources: RFC 7252 (CoAP), RFC 7959 (blocks), RFC 7641 (observe).
"""

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Protocol

from gatewayd.core.errors import DeviceRefused, DeviceTimeout, DeviceUnreachable
from gatewayd.core.record import record

DEFAULT_SIZE_EXPONENT = 6
"""Blocks of 1,024 bytes, the largest."""


class Method(IntEnum):
    """Methods by their codes."""

    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4
    FETCH = 5
    IPATCH = 7


class Code(IntEnum):
    """Answers by their codes: class in the upper three bits, detail in the lower five."""

    CREATED = 0x41
    DELETED = 0x42
    VALID = 0x43
    CHANGED = 0x44
    CONTENT = 0x45
    CONTINUE = 0x5F
    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    BAD_OPTION = 0x82
    FORBIDDEN = 0x83
    NOT_FOUND = 0x84
    METHOD_NOT_ALLOWED = 0x85
    NOT_ACCEPTABLE = 0x86
    INCOMPLETE = 0x88
    CONFLICT = 0x89
    PRECONDITION_FAILED = 0x8C
    TOO_LARGE = 0x8D
    UNSUPPORTED_FORMAT = 0x8F
    TOO_MANY = 0x9D
    INTERNAL = 0xA0
    NOT_IMPLEMENTED = 0xA1
    UNAVAILABLE = 0xA3
    GATEWAY_TIMEOUT = 0xA4


_FIRST_ERROR = 0x80


def dotted(code: int) -> str:
    """Return a code as people write it: 4.04."""
    return f"{code >> 5}.{code & 31:02}"


@record
class Block:
    """A Block1 or Block2 option: block `number` of 2**(`size_exponent` + 4) bytes, and whether `more` follow."""

    number: int
    more: bool
    size_exponent: int

    @property
    def size_bytes(self) -> int:
        """How large a block is."""
        return 1 << (min(self.size_exponent, DEFAULT_SIZE_EXPONENT) + 4)

    @property
    def start(self) -> int:
        """The offset of the block's first byte."""
        return self.number * self.size_bytes


@record
class Timing:
    """How a question is repeated: first after `ack_timeout_s` (times up to 1.5), then after twice that, `retransmits` times.

    No two repetitions are further apart than `longest_s`.
    """

    ack_timeout_s: float = 2.0
    retransmits: int = 4
    longest_s: float = 64.0


STANDARD = Timing()
"""RFC 7252, section 4.8."""


class Peer(Protocol):
    """Who is at the other end of a datagram: hashable, equal when address and credential are."""

    @property
    def address(self) -> str:
        """Host and port, for people and for rows."""

    @property
    def identity(self) -> str:
        """The credential that the security layer has checked, "" where there is none."""

    @property
    def gateway(self) -> str:
        """The base URI under which the peer reaches the gateway: `coap://192.0.2.1:5683`."""


@record
class Ask:
    """A question to a device. `observe` 0 registers an observation, 1 cancels it; `echo`: what it wants to hear again."""

    method: Method
    path: tuple[str, ...]
    query: tuple[str, ...] = ()
    payload: bytes = b""
    content_format: int | None = None
    accept: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    size1: int | None = None
    observe: int | None = None
    echo: bytes | None = None


@record
class Answer:
    """What a device answered, or notified."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    observe: int | None = None
    etag: bytes | None = None
    location: tuple[str, ...] = ()
    echo: bytes | None = None

    @property
    def is_success(self) -> bool:
        """Whether the class of the code is 2."""
        return self.code < _FIRST_ERROR


@record
class Incoming:
    """A question from a device. `etags`: what it holds already."""

    peer: Peer
    method: int
    path: tuple[str, ...]
    query: tuple[str, ...] = ()
    payload: bytes = b""
    content_format: int | None = None
    accept: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    size1: int | None = None
    etags: tuple[bytes, ...] = ()


@record
class Reply:
    """Our answer to a device. `max_age_s` says when it may try again."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    block1: Block | None = None
    block2: Block | None = None
    size2: int | None = None
    etag: bytes | None = None
    location: tuple[str, ...] = ()
    max_age_s: int | None = None


Serve = Callable[[Incoming], Awaitable[Reply]]
"""Answers what devices ask below one path. Must not raise."""

Notified = Callable[[Answer | None], None]
"""Takes each notification of an observation; None: it ended (the device gave it up, or its link failed)."""


class Observation(Protocol):
    """A registered observation."""

    def forget(self) -> None:
        """Take no more notifications: the device is told with a reset when it sends one (RFC 7641, section 3.6)."""


class Exchange(Protocol):
    """Carries questions to devices and brings back the answers."""

    async def ask(self, peer: Peer, ask: Ask, *, timeout_s: float, timing: Timing = STANDARD) -> Answer:
        """Send one datagram's worth, repeated until there is an answer.

        Raises: NoAnswer (silence), Reset (the device does not know what this is about), DeviceUnreachable (the network says so).
        """

    async def observe(
        self, peer: Peer, ask: Ask, notified: Notified, *, timeout_s: float, timing: Timing = STANDARD
    ) -> tuple[Answer, Observation | None]:
        """Ask with `observe` 0; None when the device answered without observing. Raises: as `ask`."""

    def peer(self, address: str, identity: str = "") -> Peer | None:
        """Return the peer of an address and identity that were stored.

        None where one cannot be spoken to before it has spoken: its DTLS session is gone, or its credential.
        """


class NoAnswer(DeviceTimeout):
    """Every repetition of a question was lost, or the device is silent."""

    code = "device_timeout"


class Reset(DeviceUnreachable):
    """The device rejected the message: it has rebooted, or does not speak what we do."""

    code = "device_unreachable"


class Refusal(DeviceRefused):
    """The device answered with an error. `response` is its code; 0: not said, when who tried several things sums up."""

    code = "device_refused"

    def __init__(self, message: str, response: int = 0) -> None:
        super().__init__(message)
        self.response = response
