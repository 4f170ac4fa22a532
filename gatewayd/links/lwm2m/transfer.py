"""Writing a package block by block (Block1): one confirmable block at a time, sizes as the device takes them.

What its end means is `slots_transfer`; a last 2.04 proves only that the bytes were taken. Source: RFC 7959, sections 2.5 and 2.9.
"""

from collections.abc import Callable

from gatewayd.core.errors import DeviceError, NodeError
from gatewayd.core.record import record
from gatewayd.links.lwm2m.coap import DEFAULT_SIZE_EXPONENT, Answer, Ask, Block, Code, Method
from gatewayd.links.lwm2m.feed import Feed
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.slot_terms import TransferEnded
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.paths import Path

_LEAST_EXPONENT = 2  # 64 bytes: what fits one frame of 802.15.4 with its headers
_PROGRESS_S = 1.0  # how often the table hears that the transfer goes on; a block of a slow link takes longer


@record
class Writing:
    """How to write: where to, how large a block is at most, how long one may take now until it counts as lost."""

    path: Path
    size_exponent: int
    block_s: Callable[[], float]


async def write_package(
    operations: Operations, feed: Feed, writing: Writing, *, offset: int, progressed: Callable[[], None]
) -> TransferEnded:
    """Write from `offset`; return how it ended."""
    exponent = writing.size_exponent
    clock = operations.line.clock
    told_s = clock()
    at = _aligned(offset, exponent)
    while True:
        size = 1 << (exponent + 4)
        try:
            block_s = writing.block_s()
            content = await feed.take(at, size, timeout_s=block_s)
            more = at + len(content) < feed.total_bytes
            ask = Ask(
                Method.PUT,
                (),
                payload=content,
                content_format=int(Format.OPAQUE),
                block1=Block(at // size, more, exponent) if more or at else None,
                size1=feed.total_bytes if at == 0 and more else None,
            )
            answer = await operations.block(writing.path, ask, timeout_s=block_s)
        except (DeviceError, NodeError):
            return TransferEnded(None)
        if answer.code == Code.TOO_LARGE and at == 0 and exponent > _LEAST_EXPONENT:
            exponent = _smaller(answer, exponent)
            continue
        if not answer.is_success or not more:
            return TransferEnded((answer.code >> 5, answer.code & 31))
        at += len(content)
        if answer.block1 is not None and answer.block1.size_exponent < exponent:
            exponent = max(0, answer.block1.size_exponent)
        if clock() - told_s >= _PROGRESS_S:
            told_s = clock()
            progressed()


def exponent_for(most_bytes: int) -> int:
    """Return the largest block size that a receive buffer of `most_bytes` takes."""
    exponent = DEFAULT_SIZE_EXPONENT
    while exponent > _LEAST_EXPONENT and (1 << (exponent + 4)) > most_bytes:
        exponent -= 1
    return exponent


def _smaller(answer: Answer, exponent: int) -> int:
    """Return the block size that a device asks for in a 4.13, or half of what was too large."""
    hinted = answer.block1.size_exponent if answer.block1 is not None else exponent
    return hinted if hinted < exponent else exponent - 1


def _aligned(offset: int, exponent: int) -> int:
    return offset & ~((1 << (exponent + 4)) - 1)
