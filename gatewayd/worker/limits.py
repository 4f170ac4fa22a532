"""What the worker denies itself before it touches a model: memory, core dumps, big files, life without its parent."""

from __future__ import annotations

import ctypes
import resource
import signal
from contextlib import suppress

MAX_FILE_BYTES = 1024 * 1024
"""Bounds captured stderr, which lives in memory. Python ignores SIGXFSZ, so that writing on fails instead of killing."""

_PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h


def limit_process(memory_bytes: int | None) -> None:
    """Apply all limits. `memory_bytes` is address space (RLIMIT_AS), of which an engine takes about 120 MB before any model."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def trim() -> None:
    """Give freed memory back to the system: importing and loading leave 3 MB of it."""
    with suppress(OSError, AttributeError):  # not every libc has it
        ctypes.CDLL(None).malloc_trim(0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: a closed socket is not seen in the middle of an invoke."""
    with suppress(OSError, AttributeError):  # a libc without prctl: the closed socket is what ends the worker then
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
