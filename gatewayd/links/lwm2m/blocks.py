"""Block-wise transfers, both ends, over one question at a time: bounded, and sequential as RFC 7959 wants it. No sockets.

What a device asks in blocks is put together in `Uploads`; what we ask goes through `fetched` and `sent`.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gatewayd.core.errors import DeviceRefused
from gatewayd.core.record import record
from gatewayd.links.lwm2m.coap import (
    DEFAULT_SIZE_EXPONENT,
    Answer,
    Ask,
    Block,
    Code,
    Incoming,
    Method,
    Peer,
    Refusal,
    dotted,
)

Asking = Callable[[Ask], Awaitable[Answer]]
"""Asks a device one datagram's worth."""

MAX_ANSWER_BYTES = 1_048_576
"""Protects memory from a device that answers without end; a camera's sample has some 30 KB."""
_RESTARTS = 2  # an upload that the device lost, or answered as if it had, begins again so often


async def fetched(asking: Asking, ask: Ask, *, most_bytes: int = MAX_ANSWER_BYTES) -> Answer:
    """Ask, and ask for the rest when the answer is only the first block.

    Raises: DeviceRefused when the blocks do not fit together or there are too many; as `asking`.
    """
    answer = await asking(ask)
    block = answer.block2
    if block is None or not block.more or not answer.is_success:
        return answer
    content, etag = bytearray(answer.payload), answer.etag
    while block is not None and block.more:
        wanted = Block(len(content) // block.size_bytes, more=False, size_exponent=block.size_exponent)
        part = await asking(replace(_further(ask), block1=None, block2=wanted, observe=None))
        if not part.is_success:
            raise Refusal(f"it answered a later block with {dotted(part.code)}", part.code)
        block = part.block2
        _check(part, block, len(content), etag)
        content += part.payload
        if len(content) > most_bytes:
            raise DeviceRefused(f"its answer is over {most_bytes} bytes")
    return replace(answer, payload=bytes(content), block2=None)


def _further(ask: Ask) -> Ask:
    """Return the question about a later block; what is fetched is named each time. Source: RFC 8132, section 2.3."""
    return ask if ask.method is Method.FETCH else replace(ask, payload=b"", content_format=None)


def _check(part: Answer, block: Block | None, offset: int, etag: bytes | None) -> None:
    """Raises: DeviceRefused when a later block does not continue what is there."""
    if block is None or block.start != offset or part.etag != etag:
        raise DeviceRefused("the blocks of its answer do not belong together")
    if block.more and len(part.payload) != block.size_bytes:
        raise DeviceRefused("a block of its answer has a wrong size")


async def sent(asking: Asking, ask: Ask, *, size_exponent: int = DEFAULT_SIZE_EXPONENT) -> Answer:
    """Ask with a payload that may need several blocks; it starts again where the device lost what it had.

    A device that wants smaller blocks says so in its first answer. Raises: as `asking`.
    """
    size = Block(0, more=False, size_exponent=size_exponent).size_bytes
    if len(ask.payload) <= size:
        return await asking(ask)
    answer = await _sent_once(asking, ask, size_exponent)
    for _ in range(_RESTARTS):
        if answer.code not in {Code.INCOMPLETE, Code.UNAVAILABLE}:
            break
        answer = await _sent_once(asking, ask, size_exponent)
    return answer


async def _sent_once(asking: Asking, ask: Ask, exponent: int) -> Answer:
    payload, offset = ask.payload, 0
    while True:
        size = Block(0, more=False, size_exponent=exponent).size_bytes
        more = offset + size < len(payload)
        block = Block(offset // size, more, exponent)
        size1 = len(payload) if offset == 0 else None
        answer = await asking(replace(ask, payload=payload[offset : offset + size], block1=block, size1=size1))
        if not more or not answer.is_success:
            return answer
        offset += size
        if answer.block1 is not None and answer.block1.size_exponent < exponent:
            exponent = answer.block1.size_exponent


@record
class Whole:
    """A request whose last block came."""

    request: Incoming


@record
class Part:
    """A request that goes on: what to answer."""

    code: int
    block: Block | None


class Uploads:
    """Puts the blocks of requests together: `most_bytes` each, at most `most` at one time.

    When full, the one that waited longest is dropped, and its sender told to begin again (4.08).
    """

    def __init__(self, *, most_bytes: int, most: int = 64) -> None:
        self._most_bytes = most_bytes
        self._most = most
        self._parts: OrderedDict[tuple[Peer, tuple[str, ...]], bytearray] = OrderedDict()

    def feed(self, request: Incoming) -> Whole | Part:
        """Take one request; it may be whole already."""
        block = request.block1
        start = block.start if block else 0
        if max(start + len(request.payload), request.size1 or 0) > self._most_bytes:
            return Part(Code.TOO_LARGE, None)
        if block is None or (not block.more and block.number == 0):
            return Whole(request)
        key = (request.peer, request.path)
        part = self._parts.pop(key, bytearray()) if start else bytearray()
        if len(part) != start:
            return Part(Code.INCOMPLETE, None)
        part += request.payload
        if not block.more:
            return Whole(replace(request, payload=bytes(part)))
        if len(request.payload) != block.size_bytes:
            return Part(Code.BAD_REQUEST, None)
        if len(self._parts) >= self._most:
            self._parts.popitem(last=False)
        self._parts[key] = part
        return Part(Code.CONTINUE, block)
