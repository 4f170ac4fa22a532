"""What an engine says on stderr, kept so that it can be told: TFLM gives the reason of a refusal nowhere else.

Who starts the worker gives it a file of its own as stderr, opened for appending and readable (a memfd). The worker
empties it before an operation and reads it after a failure; when the worker dies, its starter reads what is left.
RLIMIT_FSIZE bounds it.
"""

from __future__ import annotations

import os
import stat

STDERR = 2
TAIL_BYTES = 2000


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
        return read_tail(self._descriptor) if self._is_file else ""


def read_tail(descriptor: int) -> str:
    """Return the last TAIL_BYTES of a file as text fit for a message: printable, no blank lines."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    lines = content.decode("utf-8", "replace").splitlines()
    printable = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
    return "\n".join(line for line in printable if line)
