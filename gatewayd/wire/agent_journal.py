"""The device's journal: what each slot holds and how far a transfer got; survives power cuts and one rotten copy.

Two copies in flash, each whole pages with a log of records. A record is written to one copy, then to the other, before
anything that depends on it is done; a copy is erased only while the other one holds the newest record. So a cut (in a program
or an erase, of either) leaves the newest record or the one before, and a copy that rots costs nothing once both are written.

All little-endian; every record is padded with 0xFF to whole `WORD_BYTES`, because some flash takes each such word once.
State record: magic "GWJ3", u32 sequence, u32 push, u32 offset, u8 slot count, u8 attempts, u8 1 + the slot
that gives way when the push is accepted (0: none), u8 0; per slot: u8 state,
63 bytes name (0-padded), u32 version, 32 bytes digest, u32 size; per slot: u32 CRC-32 of a model's name, u32 the newest version
ever accepted of it (both 0: free); u32 size and u32 first digest bytes of the DEFLATE stream that is being received (both 0: the
artifact comes as it is); u32 CRC-32 of all before.
Progress record: magic "GWP2", u32 sequence, u32 offset, u32 CRC-32; its sequence is one more than that of the record before.
"""

import struct
import zlib
from dataclasses import replace

from gatewayd.core.device import SlotState
from gatewayd.core.errors import BadRequest
from gatewayd.core.names import Digest, PushId, parse_model_name
from gatewayd.core.record import record
from gatewayd.wire.agent_terms import EMPTY_SLOT, Floor, SlotRecord

WORD_BYTES = 16
"""The widest unit that internal flash of the reference boards programs at once (STM32U5); 4 and 8 divide it."""
_STATES_PER_COPY = 4
"""A copy is erased once in so many state records at most: wear."""

_HEAD = struct.Struct("<4sIIIBBBx")
_SLOT = struct.Struct("<B63sI32sI")
_FLOOR = struct.Struct("<II")
_ENCODED = struct.Struct("<II")
_PROGRESS = struct.Struct("<4sII")
_CRC = struct.Struct("<I")
_MAGIC, _PROGRESS_MAGIC = b"GWJ3", b"GWP2"
_ERASED = b"\xff"
_MAX_31 = 2**31 - 1
_STATES = (SlotState.EMPTY, SlotState.STAGING, SlotState.TRIAL, SlotState.ACTIVE)
_UNFINISHED = {SlotState.STAGING, SlotState.TRIAL}
PROGRESS_BYTES = _PROGRESS.size + _CRC.size


@record
class Journal:
    """One state. `push`, `offset` and `attempts` belong to the one slot that is STAGING or TRIAL, if any.

    `leaving` is one more than the slot that gives way when that one is accepted (0: none does).
    `encoded_bytes` and `encoded_mark` (the first bytes of its digest) name the DEFLATE stream that a STAGING slot receives.
    """

    sequence: int
    push: PushId
    offset: int
    attempts: int
    slots: tuple[SlotRecord, ...]
    floors: tuple[Floor, ...]
    encoded_bytes: int = 0
    encoded_mark: int = 0
    leaving: int = 0


@record
class JournalCopy:
    """What one copy says. `journal` None: nothing whole. `end` is where the next record goes; -1: erase it first."""

    journal: Journal | None
    end: int


def state_bytes(slot_count: int) -> int:
    """Return the size of a state record, padding included."""
    size = _HEAD.size + slot_count * (_SLOT.size + _FLOOR.size) + _ENCODED.size + _CRC.size
    return -(-size // WORD_BYTES) * WORD_BYTES


def journal_bytes(slot_count: int, page_bytes: int) -> int:
    """Return the size of one copy: whole pages."""
    return -(-_STATES_PER_COPY * state_bytes(slot_count) // page_bytes) * page_bytes


def encode_state(journal: Journal) -> bytes:
    """Return a state record."""
    count, leaving = len(journal.slots), journal.leaving
    head = _HEAD.pack(_MAGIC, journal.sequence, journal.push, journal.offset, count, journal.attempts, leaving)
    floors = (_FLOOR.pack(floor.name_crc, floor.version) for floor in journal.floors)
    encoded = _ENCODED.pack(journal.encoded_bytes, journal.encoded_mark)
    body = head + b"".join(_packed(slot) for slot in journal.slots) + b"".join(floors) + encoded
    return (body + _CRC.pack(zlib.crc32(body))).ljust(state_bytes(len(journal.slots)), _ERASED)


def encode_progress(sequence: int, offset: int) -> bytes:
    """Return a progress record."""
    body = _PROGRESS.pack(_PROGRESS_MAGIC, sequence, offset)
    return body + _CRC.pack(zlib.crc32(body))


def read_copy(content: bytes, *, slot_count: int, slot_bytes: int, copy_bytes: int) -> JournalCopy:
    """Read one copy up to its last whole record; any bytes are a copy."""
    if len(content) != copy_bytes:
        return JournalCopy(None, -1)
    journal, end = None, 0
    while (found := _record_at(content, end, journal, slot_count, slot_bytes)) is not None:
        journal, end = found
    is_blank = content.count(_ERASED, end) == copy_bytes - end
    return JournalCopy(journal, end if is_blank and journal is not None else -1)


def newest_copy(copies: tuple[JournalCopy, JournalCopy]) -> int:
    """Return which copy has the newest record; 0 when neither has one."""
    first, second = (-1 if copy.journal is None else copy.journal.sequence for copy in copies)
    return 1 if second > first else 0


def name_crc(model: str) -> int:
    """Return what a model's name is remembered by; 0 stands for none and is made 1."""
    return zlib.crc32(model.encode()) or 1


def _record_at(
    content: bytes, start: int, before: Journal | None, slot_count: int, slot_bytes: int
) -> tuple[Journal, int] | None:
    """Return the state after the record at `start`, and where that ends; None when none is whole there."""
    magic = content[start : start + 4]
    if magic == _PROGRESS_MAGIC and before is not None:
        journal = _progress(content[start : start + PROGRESS_BYTES], before)
        return None if journal is None else (journal, start + PROGRESS_BYTES)
    if magic != _MAGIC:
        return None
    end = start + state_bytes(slot_count)
    journal = _state(content[start:end], slot_count, slot_bytes) if end <= len(content) else None
    return None if journal is None else (journal, end)


def _progress(record: bytes, before: Journal) -> Journal | None:
    if len(record) != PROGRESS_BYTES or not _is_whole(record):
        return None
    _, sequence, offset = _PROGRESS.unpack_from(record)
    sizes = [before.encoded_bytes or slot.size_bytes for slot in before.slots if slot.state is SlotState.STAGING]
    if sequence != before.sequence + 1 or not sizes or offset > sizes[0]:
        return None
    return replace(before, sequence=sequence, offset=offset)


def _state(record: bytes, slot_count: int, slot_bytes: int) -> Journal | None:
    body = record[: _HEAD.size + slot_count * (_SLOT.size + _FLOOR.size) + _ENCODED.size + _CRC.size]
    _, sequence, push, offset, count, attempts, leaving = _HEAD.unpack_from(body)
    if not _is_whole(body) or count != slot_count or push > _MAX_31:
        return None
    slots = [_unpacked(body, index) for index in range(slot_count)]
    held = tuple(slot for slot in slots if slot is not None)
    at = _HEAD.size + slot_count * _SLOT.size
    floors = tuple(Floor(*_FLOOR.unpack_from(body, at + index * _FLOOR.size)) for index in range(slot_count))
    encoded: tuple[int, int] = _ENCODED.unpack_from(body, at + slot_count * _FLOOR.size)
    journal = Journal(sequence, PushId(push), offset, attempts, held, floors, *encoded, leaving=leaving)
    return journal if len(held) == slot_count and _makes_sense(journal, slot_bytes) else None


def _is_whole(record: bytes) -> bool:
    body, crc = record[: -_CRC.size], record[-_CRC.size :]
    return _CRC.pack(zlib.crc32(body)) == crc


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
    if len(unfinished) > 1 or journal.encoded_bytes > slot_bytes or journal.leaving > len(journal.slots):
        return False
    if journal.leaving and journal.slots[journal.leaving - 1].state in _UNFINISHED:
        return False
    if any(journal.offset > (journal.encoded_bytes or slot.size_bytes) for slot in unfinished):
        return False
    return all(0 < slot.size_bytes <= slot_bytes and 0 < slot.version <= _MAX_31 for slot in held)
