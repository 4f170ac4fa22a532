"""Bounded reading of FlatBuffers: every offset, vtable and vector length is checked against the file before it is followed.

Generic: it knows tables, vectors and strings, no schema. Nothing is copied but what is asked for, and nothing loops over more
items than the caller allows, so that a hostile file costs no more than a good one.

Source: FlatBuffers internals (https://flatbuffers.dev/internals/).
"""

from struct import Struct, unpack_from
from typing import Final

from gatewayd.core.errors import ModelRefused
from gatewayd.core.record import record

U8: Final = Struct("<B")
I8: Final = Struct("<b")
U32: Final = Struct("<I")
I32: Final = Struct("<i")
I64: Final = Struct("<q")
U64: Final = Struct("<Q")
F32: Final = Struct("<f")
_U16: Final = Struct("<H")

_VTABLE_HEADER_BYTES = 4  # its own size and the table's, 16 bits each


@record
class Vector:
    """A vector that lies wholly inside the file: `count` items from byte `start`."""

    start: int
    count: int


@record
class Table:
    """A table whose vtable and inline fields lie inside the file. `where` names it in errors, such as `tensor 5`."""

    content: bytes
    start: int
    where: str
    size_bytes: int
    vtable: int
    vtable_bytes: int

    def scalar(self, slot: int, kind: Struct, default: int, *, what: str) -> int:
        """Return the whole number in field `slot`, `default` when it is absent. Raises: ModelRefused."""
        position = self._field(slot, kind.size, what)
        if position is None:
            return default
        value: int = kind.unpack_from(self.content, position)[0]
        return value

    def has(self, slot: int) -> bool:
        """Tell whether field `slot` is present."""
        return self._entry(slot) != 0

    def table(self, slot: int, *, what: str) -> "Table | None":
        """Follow field `slot` to a table; None when it is absent. Raises: ModelRefused."""
        position = self._target(slot, what)
        return None if position is None else table_at(self.content, position, self._of(what))

    def tables(self, slot: int, *, what: str, limit: int) -> "list[Table]":
        """Follow a vector of tables, named `what 0`, `what 1` …; empty when absent. Raises: ModelRefused."""
        vector = self.vector(slot, item_bytes=4, what=f"list of {what}s", limit=limit)
        starts = range(vector.start, vector.start + 4 * vector.count, 4)
        return [
            table_at(self.content, at + U32.unpack_from(self.content, at)[0], f"{what} {index}")
            for index, at in enumerate(starts)
        ]

    def string(self, slot: int, *, what: str, limit_bytes: int) -> str:
        """Return a printable string of at most `limit_bytes`, "" when absent. Raises: ModelRefused."""
        raw = self.vector(slot, item_bytes=1, what=what, limit=limit_bytes)
        try:
            text = self.content[raw.start : raw.start + raw.count].decode()
        except UnicodeDecodeError as error:
            raise ModelRefused(f"{self._of(what)} is not UTF-8 (offset {raw.start + error.start})") from error
        if not text.isprintable():
            raise ModelRefused(f"{self._of(what)} holds unprintable characters (offset {raw.start})")
        return text

    def integers(self, slot: int, kind: Struct, *, what: str, limit: int) -> tuple[int, ...]:
        """Return a vector of whole numbers, () when absent. Raises: ModelRefused."""
        vector = self.vector(slot, item_bytes=kind.size, what=what, limit=limit)
        return unpack_from(f"<{vector.count}{kind.format[1:]}", self.content, vector.start)

    def floats(self, slot: int, *, what: str, limit: int) -> tuple[float, ...]:
        """Return a vector of 32-bit floats, () when absent. Raises: ModelRefused."""
        vector = self.vector(slot, item_bytes=F32.size, what=what, limit=limit)
        return unpack_from(f"<{vector.count}f", self.content, vector.start)

    def vector(self, slot: int, *, item_bytes: int, what: str, limit: int) -> Vector:
        """Locate a vector of at most `limit` items; an absent one is empty. Raises: ModelRefused."""
        position = self._target(slot, what)
        if position is None:
            return Vector(0, 0)
        _check(self.content, position, 4, self._of(what))
        count: int = U32.unpack_from(self.content, position)[0]
        if count > limit:
            raise ModelRefused(f"{self._of(what)} has {count} items, the limit is {limit} (offset {position})")
        start = position + 4
        _check(self.content, start, count * item_bytes, self._of(what), alignment=item_bytes if count else 1)
        return Vector(start, count)

    def _entry(self, slot: int) -> int:
        at = _VTABLE_HEADER_BYTES + 2 * slot
        if at + 2 > self.vtable_bytes:
            return 0
        offset: int = _U16.unpack_from(self.content, self.vtable + at)[0]
        return offset

    def _field(self, slot: int, size_bytes: int, what: str) -> int | None:
        offset = self._entry(slot)
        if offset == 0:
            return None
        if offset + size_bytes > self.size_bytes:
            raise ModelRefused(f"corrupted: {self._of(what)} lies outside its table (offset {self.start + offset})")
        _check(self.content, self.start + offset, size_bytes, self._of(what), alignment=size_bytes)
        return self.start + offset

    def _target(self, slot: int, what: str) -> int | None:
        position = self._field(slot, U32.size, what)
        if position is None:
            return None
        relative: int = U32.unpack_from(self.content, position)[0]
        return position + relative

    def _of(self, what: str) -> str:
        return f"{self.where}'s {what}"


def root_table(content: bytes, where: str) -> Table:
    """Return the table the file starts with. Raises: ModelRefused."""
    _check(content, 0, U32.size, where)
    return table_at(content, U32.unpack_from(content, 0)[0], where)


def table_at(content: bytes, position: int, where: str) -> Table:
    """Return the table at `position`, its vtable and extent checked. Raises: ModelRefused."""
    _check(content, position, I32.size, where)
    vtable = position - I32.unpack_from(content, position)[0]
    _check(content, vtable, _VTABLE_HEADER_BYTES, f"{where}'s vtable", alignment=2)
    vtable_bytes, size_bytes = unpack_from("<HH", content, vtable)
    if vtable_bytes < _VTABLE_HEADER_BYTES or vtable_bytes % 2:
        raise ModelRefused(f"corrupted: {where}'s vtable claims {vtable_bytes} bytes (offset {vtable})")
    _check(content, vtable, vtable_bytes, f"{where}'s vtable", alignment=2)
    _check(content, position, size_bytes, where)
    return Table(content, position, where, size_bytes, vtable, vtable_bytes)


def _check(content: bytes, position: int, size_bytes: int, what: str, *, alignment: int = 4) -> None:
    # Misaligned values work here and fault on a microcontroller, which reads them in place.
    if position < 0 or position + size_bytes > len(content):
        raise ModelRefused(f"truncated: {what} lies outside the file (offset {position}, file {len(content)} bytes)")
    if position % alignment:
        raise ModelRefused(f"corrupted: {what} is not aligned to {alignment} bytes (offset {position})")
