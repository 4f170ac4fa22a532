"""Decoding a stream that is in flash into the same slot, as a board does it: a piece read, a page written, and so on."""

from collections.abc import Iterator

from gatewayd.core.errors import BadRequest
from gatewayd.sim.flash import Flash
from gatewayd.wire.agent_inflate import READ_BYTES, inflated_pages
from gatewayd.wire.agent_terms import InflateSlot, SlotInflated


def unpacked(flash: Flash, task: InflateSlot) -> SlotInflated:
    """Carry out `InflateSlot`. Raises: FlashFault, PowerCut."""
    at, page_bytes = 0, flash.layout.page_bytes
    pages = inflated_pages(
        _pieces(flash, task), window_bits=task.window_bits, size_bytes=task.size_bytes, page_bytes=page_bytes
    )
    try:
        for page in pages:
            flash.write(task.slot, at, page)
            at += len(page)
    except BadRequest as error:
        return SlotInflated(task.slot, str(error))
    return SlotInflated(task.slot)


def _pieces(flash: Flash, task: InflateSlot) -> Iterator[bytes]:
    for at in range(0, task.encoded_bytes, READ_BYTES):
        yield flash.read(task.slot, task.offset + at, min(READ_BYTES, task.encoded_bytes - at))
