"""The device's journal: what each slot holds and how far a transfer got; survives power cuts.

Two copies in flash, written in turn (sequence number odd: copy 1, even: copy 0). A torn write fails its CRC and leaves the other
copy, which is one step older. Fixed layout, little-endian: magic "GWJ1", u32 sequence, u32 push, u32 offset, u32 slot
count; per slot: u8 state, 63 bytes name (0-padded), u32 version, 32 bytes digest, u32 size; u32 CRC-32 of all before it.
"""

import struct
import zlib
from dataclasses import dataclass

from gatewayd.core.device import SlotState
from gatewayd.core.errors import BadRequest
from gatewayd.core.names import Digest, PushId, parse_model_name
from gatewayd.wire.agent_terms import EMPTY_SLOT, SlotRecord

_HEAD = struct.Struct("<4sIIII")
_SLOT = struct.Struct("<B63sI32sI")
_CRC = struct.Struct("<I")
_MAGIC = b"GWJ1"
_MAX_31 = 2**31 - 1
_STATES = (SlotState.EMPTY, SlotState.STAGING, SlotState.TRIAL, SlotState.ACTIVE)
_UNFINISHED = {SlotState.STAGING, SlotState.TRIAL}


@dataclass(frozen=True, slots=True)
class Journal:
    """One copy's content. `push` and `offset` belong to the one slot that is STAGING or TRIAL, if any."""

    sequence: int
    push: PushId
    offset: int
    slots: tuple[SlotRecord, ...]


def journal_bytes(slot_count: int) -> int:
    """Return the size of one copy."""
    return _HEAD.size + slot_count * _SLOT.size + _CRC.size


def encode_journal(journal: Journal) -> bytes:
    """Return one copy's bytes."""
    head = _HEAD.pack(_MAGIC, journal.sequence, journal.push, journal.offset, len(journal.slots))
    body = head + b"".join(_packed(slot) for slot in journal.slots)
    return body + _CRC.pack(zlib.crc32(body))


def decode_journal(content: bytes, *, slot_count: int, slot_bytes: int) -> Journal | None:
    """Return what a copy says; None when it is torn, of another layout, or says what cannot be."""
    if len(content) < journal_bytes(slot_count):
        return None
    body, crc = content[: journal_bytes(slot_count) - _CRC.size], content[journal_bytes(slot_count) - _CRC.size :]
    magic, sequence, push, offset, count = _HEAD.unpack_from(body)
    if _CRC.unpack_from(crc)[0] != zlib.crc32(body) or magic != _MAGIC or count != slot_count or push > _MAX_31:
        return None
    slots = tuple(_unpacked(body, index) for index in range(slot_count))
    journal = Journal(sequence, PushId(push), offset, tuple(slot for slot in slots if slot is not None))
    return journal if len(journal.slots) == slot_count and _makes_sense(journal, slot_bytes) else None


def newest_journal(journals: tuple[bytes, bytes], *, slot_count: int, slot_bytes: int) -> Journal | None:
    """Return the newer copy that is whole, or None when neither is."""
    found = [decode_journal(each, slot_count=slot_count, slot_bytes=slot_bytes) for each in journals]
    return max((each for each in found if each is not None), key=lambda each: each.sequence, default=None)


def _packed(slot: SlotRecord) -> bytes:
    name, digest = slot.model.encode(), bytes.fromhex(slot.digest)
    return _SLOT.pack(_STATES.index(slot.state), name, slot.version, digest, slot.size_bytes)


def _unpacked(body: bytes, index: int) -> SlotRecord | None:
    state, name, version, digest, size_bytes = _SLOT.unpack_from(body, _HEAD.size + index * _SLOT.size)
    if state == 0:
        return EMPTY_SLOT
    try:
        model = parse_model_name(name.rstrip(b"\0").decode("ascii"))
    except (BadRequest, UnicodeDecodeError):
        return None
    return (
        SlotRecord(_STATES[state], model, version, Digest(digest.hex()), size_bytes) if state < len(_STATES) else None
    )


def _makes_sense(journal: Journal, slot_bytes: int) -> bool:
    held = [slot for slot in journal.slots if slot.state is not SlotState.EMPTY]
    unfinished = [slot for slot in held if slot.state in _UNFINISHED]
    if len(unfinished) > 1 or any(journal.offset > slot.size_bytes for slot in unfinished):
        return False
    return all(0 < slot.size_bytes <= slot_bytes and 0 < slot.version <= _MAX_31 for slot in held)
