"""What an engine says on stderr, kept so that it can be told: TFLM gives the reason of a refusal nowhere else.

Who starts the worker gives it a file of its own as stderr, opened for appending and readable (a memfd). The worker
empties it before an operation and reads it after a failure; when the worker dies, its starter reads what is left.
RLIMIT_FSIZE bounds it.
"""

from __future__ import annotations

import os
import stat

from .framing import TAIL_BYTES, printable

STDERR = 2


class StderrCapture:
    """The process's own stderr, where that is a file; else (a terminal, a pipe) nothing is captured."""

    def __init__(self, descriptor: int = STDERR) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def clear(self) -> None:
        """Forget what was said so far."""
        if self._is_file and os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, 0)

    def tail(self) -> str:
        """Return the last words since `clear`."""
        if not self._is_file:
            return ""
        size = os.fstat(self._descriptor).st_size
        return printable(os.pread(self._descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES)))
