"""How much RAM the agent's state takes on a microcontroller, field by field. A test holds `AgentState` to it.

Beside the state a port needs one receive buffer (the largest of offer, control message and chunk), one buffer for what it sends
(a status is the largest), and room for a journal record. The commands are carried out as they come and need no room.
"""

from gatewayd.core.device import Capabilities
from gatewayd.wire.agent_inflate import READ_BYTES
from gatewayd.wire.agent_journal import state_bytes
from gatewayd.wire.mqttdevice import MAX_CONTROL_BYTES, MAX_OFFER_BYTES, MAX_STATUS_BYTES

MAX_REASON_BYTES = 200
MAX_EXPECTED_BYTES = 1024
"""The self-test's expected output is part of a signed manifest of at most 1,024 bytes."""
_DIGEST, _NAME, _U32, _U8 = 32, 64, 4, 1
_INFLATE_BYTES = 7 * 1024

SLOT_RAM_BYTES = _U8 + _NAME + _U32 + _DIGEST + _U32
FLOOR_RAM_BYTES = 2 * _U32

PER_SLOT: dict[str, int] = {"slots": SLOT_RAM_BYTES, "floors": FLOOR_RAM_BYTES, "is_erased": _U8}
FIXED: dict[str, int] = {
    "journal_ends": 2 * _U32, "journal_newest": _U8, "journal_sequence": _U32, "is_journal_stale": _U8, "step": _U8,
    "now_ms": _U32, "is_connected": _U8, "battery_percent": _U8, "checked_slots": _U8, "push": _U32, "staging": _U8,
    "offset": _U32, "attempts": _U8, "leaving": _U8, "encoded_bytes": _U32, "encoded_mark": _U32, "encoded_digest": _DIGEST,
    "window_bits": _U8, "self_test": 2 * _U32 + 2 + MAX_EXPECTED_BYTES, "want_due_ms": _U32,
    "wants_left": _U8, "trial_due_ms": _U32, "ended_push": _U32, "ended_digest": _DIGEST, "ended_phase": _U8,
    "ended_reason": MAX_REASON_BYTES, "is_end_unsent": _U8,
}  # fmt: skip


def agent_ram_bytes(slot_count: int) -> int:
    """Return the size of the state alone."""
    return slot_count * sum(PER_SLOT.values()) + sum(FIXED.values())


def buffer_bytes(capabilities: Capabilities, slot_count: int) -> int:
    """Return the size of the buffers around it."""
    received = max(MAX_OFFER_BYTES, MAX_CONTROL_BYTES, 8 + capabilities.chunk_bytes)
    return received + MAX_STATUS_BYTES + state_bytes(slot_count)


def inflate_bytes(window_bits: int, page_bytes: int) -> int:
    """Return what decoding takes while it lasts: zlib's inflate with a window of its own, a page to write, a piece to read.

    A decoder that looks back into the flash it has written needs no window. Source: zlib's zconf.h ("the memory requirements
    for inflate are 1 << windowBits plus about 7 kilobytes").
    """
    return _INFLATE_BYTES + (1 << window_bits) + page_bytes + READ_BYTES
