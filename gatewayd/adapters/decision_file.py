"""The decision log on disk: a capped file of JSON lines and the one before it. Off by default, for SD cards die of writes.

Decisions are collected in memory and written now and then, by a thread, in one go: a power cut loses the last minute and may
tear the last line, which readers tolerate. Nothing waits for this file, and nothing fails with it: what cannot be written is
counted and said once.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gatewayd.core.decision import Decision
from gatewayd.core.record import record
from gatewayd.wire.decisionlog import LogWriter

logger = logging.getLogger(__name__)

# Protects memory when the disk is slow: more decisions than this between two writes are left out, and counted.
MAX_WAITING = 10_000
_DAY_S = 86_400.0


@record
class DecisionFileOptions:
    """`max_bytes` for both files together; `max_bytes_per_day` protects the card: what is more is left out until the next day.

    Of the requests a share of `sample` (0..1) is kept, evenly: with 0.1 every tenth.
    """

    path: Path
    max_bytes: int = 2**23
    max_bytes_per_day: int = 2**22
    sample: float = 1.0
    write_every_s: float = 60.0


class DecisionFile:
    """Takes decisions on the event loop, writes them elsewhere. `path` holds the newest, `path` with `.1` those before."""

    def __init__(self, options: DecisionFileOptions, *, node: str, clock: Callable[[], float]) -> None:
        self._options = options
        self._writer = LogWriter(node)
        self._clock = clock
        self._waiting: list[Decision] = []
        self._due = 0.0
        self._size: int | None = None
        self._day_ends_s = 0.0
        self._day_bytes = 0
        self._failed = ""
        self.left_out = 0

    def keep(self, decision: Decision) -> None:
        """Take a decision, if it is one of the sample."""
        self._due += self._options.sample
        if self._due < 1.0:
            return
        self._due -= 1.0
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(decision)
        else:
            self.left_out += 1

    async def run(self) -> None:
        """Write what was collected, every so often, until cancelled."""
        while True:
            await asyncio.sleep(self._options.write_every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what was collected."""
        taken, self._waiting = self._waiting, []
        if not taken:
            return
        try:
            await asyncio.to_thread(self._write, taken)
        except OSError as error:
            self.left_out += len(taken)
            self._size = None
            if str(error) != self._failed:
                logger.warning(
                    "decisions not logged", extra={"fields": {"path": self._options.path, "reason": str(error)}}
                )
            self._failed = str(error)
        else:
            self._failed = ""

    def _write(self, decisions: Sequence[Decision]) -> None:
        if self._clock() >= self._day_ends_s:
            self._day_ends_s, self._day_bytes = self._clock() + _DAY_S, 0
        parts: list[bytes] = []
        if self._size is None:
            self._size = self._whole_lines()
            parts.append(self._writer.header().encode())
        length = sum(map(len, parts))
        for index, decision in enumerate(decisions):
            lines = "".join(self._writer.lines(decision)).encode()
            if self._day_bytes + length + len(lines) > self._options.max_bytes_per_day:
                self.left_out += len(decisions) - index
                self._size = None  # facts of this decision were not written: what follows tomorrow begins anew
                break
            if (self._size or 0) + length + len(lines) > self._options.max_bytes // 2:
                self._append(parts)
                self._rotate()
                lines = (self._writer.header() + "".join(self._writer.lines(decision))).encode()
                parts, length = [], 0
            parts.append(lines)
            length += len(lines)
        self._append(parts)

    def _append(self, parts: Sequence[bytes]) -> None:
        content = b"".join(parts)
        with self._options.path.open("ab") as file:
            file.write(content)
        self._day_bytes += len(content)
        if self._size is not None:
            self._size += len(content)

    def _rotate(self) -> None:
        if self._options.path.exists():
            self._options.path.replace(older(self._options.path))
        self._size = 0

    def _whole_lines(self) -> int:
        """End a line that a power cut tore, so that the next one is not lost with it; return the file's size."""
        path = self._options.path
        try:
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                if not size:
                    return 0
                file.seek(size - 1)
                if file.read(1) == b"\n":
                    return size
                file.write(b"\n")
                return size + 1
        except FileNotFoundError:
            return 0


def older(path: Path) -> Path:
    """Return the file before `path`."""
    return path.with_name(f"{path.name}.1")
