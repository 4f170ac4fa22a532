"""Simulated flash: one file per slot and per journal copy in a state directory; survives SIGKILL.

NOR flash as it is: erased bytes are 0xFF, writing over anything else is a fault (the agent has to erase first), erasing starts
at a page. Writes are on disk before they return. Blocking: call it off the event loop.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from gatewayd.core.names import Digest

_ERASED = b"\xff"
_JOURNALS = ("journal-a.bin", "journal-b.bin")


class FlashFault(RuntimeError):
    """The flash cannot do that; on a board, a reset."""


@dataclass(frozen=True, slots=True)
class Flash:
    """The flash of one board. `page_bytes` is what is erased at once."""

    directory: Path
    slot_count: int
    slot_bytes: int
    page_bytes: int

    def prepare(self) -> None:
        """Make the files that are not there; slots come erased from the factory.

        Raises: FlashFault when a slot in the directory has another size.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for slot in range(self.slot_count):
            path = self._slot_path(slot)
            if not path.exists():
                path.write_bytes(_ERASED * self.slot_bytes)
            if path.stat().st_size != self.slot_bytes:
                raise FlashFault(f"{path} is {path.stat().st_size} bytes, this board's slots are {self.slot_bytes}")

    def erase(self, slot: int, offset: int) -> None:
        """Erase from `offset` to the end of the slot."""
        if offset % self.page_bytes:
            raise FlashFault(f"erase at {offset} of slot {slot}: pages are {self.page_bytes} bytes")
        self._store(self._slot_path(slot), offset, _ERASED * (self.slot_bytes - offset))

    def write(self, slot: int, offset: int, content: bytes) -> None:
        """Write into erased flash."""
        before = self.read(slot, offset, len(content))
        if len(before) != len(content) or before.count(_ERASED) != len(before):
            raise FlashFault(f"write of {len(content)} bytes at {offset} of slot {slot}: not erased, or past its end")
        self._store(self._slot_path(slot), offset, content)

    def read(self, slot: int, offset: int, length: int) -> bytes:
        """Return the bytes there; fewer at the slot's end."""
        with self._slot_path(slot).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def digest(self, slot: int, size_bytes: int) -> Digest:
        """Return the SHA-256 of the first `size_bytes` bytes."""
        return Digest(hashlib.sha256(self.read(slot, 0, size_bytes)).hexdigest())

    def export(self, slot: int, size_bytes: int) -> Path:
        """Return a file that holds the model alone, for a runtime that reads files."""
        path = self.directory / f"slot-{slot}.tflite"
        path.write_bytes(self.read(slot, 0, size_bytes))
        return path

    def journals(self) -> tuple[bytes, bytes]:
        """Return both copies as they are; b"" for one that was never written."""
        first, second = (self.directory / name for name in _JOURNALS)
        return (first.read_bytes() if first.exists() else b"", second.read_bytes() if second.exists() else b"")

    def write_journal(self, copy: int, content: bytes) -> None:
        """Replace one copy in place; a power cut may tear it."""
        path = self.directory / _JOURNALS[copy]
        path.touch()
        self._store(path, 0, content)

    def _slot_path(self, slot: int) -> Path:
        return self.directory / f"slot-{slot}.bin"

    def _store(self, path: Path, offset: int, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, content, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
