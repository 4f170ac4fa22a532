"""Simulated flash of a board: NOR as it is, in memory or in a state directory that survives SIGKILL.

Erased bytes are 0xFF; a page is erased at once; a word is written once per erase (writing over anything is a fault, the agent
has to erase first). Every program of a page and every erase of one is one operation, and the power may go in the middle of
any: then a part of the page is done. Erases are counted per page. The journal's two copies come first, then the slots.
Blocking: call it off the event loop.
"""

import hashlib
import struct
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from gatewayd.core.names import Digest

_ERASED = b"\xff"
_COPIES = 2


class FlashFault(RuntimeError):
    """The flash cannot do that; on a board, a reset."""


class PowerCut(RuntimeError):
    """The power went in the middle of an operation."""


class Tear(Enum):
    """How many bytes of a page are done when the power goes in the middle of it."""

    NONE = "0"
    ONE = "1"
    HALF = "n/2"
    ALMOST = "n-1"

    def of(self, length: int) -> int:
        """Return the bytes that are done, of `length`."""
        done = {Tear.NONE: 0, Tear.ONE: 1, Tear.HALF: length // 2, Tear.ALMOST: length - 1}
        return min(done[self], length - 1)


@dataclass(slots=True)
class Power:
    """Counts operations and cuts one. `cut_at` is the number of the operation (from 0) that is torn; None: none is."""

    cut_at: int | None = None
    tear: Tear = Tear.HALF
    done: int = 0

    def part(self, length: int) -> int | None:
        """Return how much of this operation happens; None: all of it."""
        self.done += 1
        return self.tear.of(length) if self.cut_at is not None and self.done > self.cut_at else None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is. Both kinds of regions are whole pages; `word_bytes` is what is programmed at once."""

    slot_count: int
    slot_bytes: int
    page_bytes: int
    journal_bytes: int
    word_bytes: int = 1

    @property
    def pages(self) -> int:
        """All pages."""
        return _COPIES * self._pages(self.journal_bytes) + self.slot_count * self._pages(self.slot_bytes)

    def journal_address(self, copy: int) -> int:
        """Return where a copy of the journal begins."""
        return copy * self._pages(self.journal_bytes) * self.page_bytes

    def slot_address(self, slot: int) -> int:
        """Return where a slot begins."""
        return self.journal_address(_COPIES) + slot * self._pages(self.slot_bytes) * self.page_bytes

    def _pages(self, size_bytes: int) -> int:
        return -(-size_bytes // self.page_bytes)


class Cells(Protocol):
    """The bytes themselves, with a count of erases per page; durable when a call returns."""

    def read(self, address: int, length: int) -> bytes:
        """Return the bytes there."""

    def store(self, address: int, content: bytes) -> None:
        """Put bytes there."""

    def wear_out(self, page: int) -> None:
        """Count an erase."""

    def wear(self) -> tuple[int, ...]:
        """Return the erases of each page."""


class MemoryCells:
    """In memory; `content` may be copied and put back."""

    def __init__(self, layout: Layout) -> None:
        self.content = bytearray(_ERASED * (layout.pages * layout.page_bytes))
        self._wear = [0] * layout.pages

    def read(self, address: int, length: int) -> bytes:
        """See `Cells`."""
        return bytes(self.content[address : address + length])

    def store(self, address: int, content: bytes) -> None:
        """See `Cells`."""
        self.content[address : address + len(content)] = content

    def wear_out(self, page: int) -> None:
        """See `Cells`."""
        self._wear[page] += 1

    def wear(self) -> tuple[int, ...]:
        """See `Cells`."""
        return tuple(self._wear)


@dataclass(slots=True)
class Flash:
    """The flash of one board."""

    layout: Layout
    cells: Cells
    power: Power = field(default_factory=Power)

    def erase(self, slot: int, offset: int, end: int) -> None:
        """Erase from `offset` to `end` of the slot, page by page."""
        layout = self.layout
        if offset % layout.page_bytes or (end % layout.page_bytes and end != layout.slot_bytes):
            raise FlashFault(f"erase of {offset}..{end} of slot {slot}: pages are {layout.page_bytes} bytes")
        start = layout.slot_address(slot)
        self._erase(start + offset, min(start + end, layout.slot_address(slot + 1)))

    def write(self, slot: int, offset: int, content: bytes) -> None:
        """Write into erased flash."""
        if offset + len(content) > self.layout.slot_bytes:
            raise FlashFault(f"write of {len(content)} bytes at {offset} of slot {slot}: past its end")
        self._program(self.layout.slot_address(slot) + offset, content)

    def write_journal(self, copy: int, offset: int, content: bytes) -> None:
        """Write a record into a copy of the journal; at offset 0 the copy is erased first."""
        start = self.layout.journal_address(copy)
        if offset + len(content) > self.layout.journal_bytes:
            raise FlashFault(f"write of {len(content)} bytes at {offset} of journal {copy}: past its end")
        if offset == 0:
            self._erase(start, self.layout.journal_address(copy + 1))
        self._program(start + offset, content)

    def journals(self) -> tuple[bytes, bytes]:
        """Return both copies, whole."""
        first, second = (self.layout.journal_address(copy) for copy in range(_COPIES))
        length = self.layout.journal_bytes
        return self.cells.read(first, length), self.cells.read(second, length)

    def read(self, slot: int, offset: int, length: int) -> bytes:
        """Return the bytes there; fewer at the slot's end."""
        length = max(0, min(length, self.layout.slot_bytes - offset))
        return self.cells.read(self.layout.slot_address(slot) + offset, length)

    def digest(self, slot: int, size_bytes: int, offset: int = 0) -> Digest:
        """Return the SHA-256 of `size_bytes` bytes from `offset`."""
        return Digest(hashlib.sha256(self.read(slot, offset, size_bytes)).hexdigest())

    def _erase(self, start: int, end: int) -> None:
        size = self.layout.page_bytes
        for address in range(start, end, size):
            part = self.power.part(size)
            self.cells.store(address, _ERASED * (size if part is None else part))
            self.cells.wear_out(address // size)
            if part is not None:
                raise PowerCut(f"erasing page {address // size}")

    def _program(self, address: int, content: bytes) -> None:
        self._check_erased(address, len(content))
        size, at = self.layout.page_bytes, 0
        while at < len(content):
            piece = content[at : at + size - (address + at) % size]
            part = self.power.part(len(piece))
            self.cells.store(address + at, piece if part is None else piece[:part])
            if part is not None:
                raise PowerCut(f"programming page {(address + at) // size}")
            at += len(piece)

    def _check_erased(self, address: int, length: int) -> None:
        word = self.layout.word_bytes
        first, last = address - address % word, -(-(address + length) // word) * word
        before = self.cells.read(first, last - first)
        if before.count(_ERASED) != len(before):
            raise FlashFault(f"write of {length} bytes at {address}: not erased")


class FileCells:
    """In a directory: `flash.bin`, and `wear.bin` with one u32 per page; what is stored survives SIGKILL and more."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        self._content, self._wear = directory / "flash.bin", directory / "wear.bin"
        self._size = layout.pages * layout.page_bytes
        self._format = struct.Struct(f"<{layout.pages}I")

    def prepare(self) -> None:
        """Make the files that are not there; flash comes erased from the factory.

        Raises: FlashFault when the files are those of another board.
        """
        self._content.parent.mkdir(parents=True, exist_ok=True)
        for path, size, content in self._files():
            if not path.exists():
                path.write_bytes(content * size)
            if path.stat().st_size != size:
                raise FlashFault(f"{path} is {path.stat().st_size} bytes, this board's flash takes {size}")

    def read(self, address: int, length: int) -> bytes:
        """See `Cells`."""
        with self._content.open("rb") as file:
            file.seek(address)
            return file.read(length)

    def store(self, address: int, content: bytes) -> None:
        """See `Cells`."""
        with self._content.open("r+b") as file:
            file.seek(address)
            file.write(content)

    def wear_out(self, page: int) -> None:
        """See `Cells`."""
        with self._wear.open("r+b") as file:
            file.seek(page * 4)
            (count,) = struct.unpack("<I", file.read(4))
            file.seek(page * 4)
            file.write(struct.pack("<I", count + 1))

    def wear(self) -> tuple[int, ...]:
        """See `Cells`."""
        return self._format.unpack(self._wear.read_bytes())

    def _files(self) -> tuple[tuple[Path, int, bytes], ...]:
        return ((self._content, self._size, _ERASED), (self._wear, self._format.size, b"\0"))
