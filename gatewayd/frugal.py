"""What keeps the daemon's memory small from its first moment: the program calls it around its imports and behind its start.

Figures: docs/node-runtime.md, "Memory of an idle node".
"""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_M_ARENA_MAX = -8  # source: glibc, malloc.h
_AUTHORITIES = "SSL_CERT_FILE"

# Objects made since the last collection of the youngest; of these until the middle ones, of those until the oldest ones.
COLLECT_AFTER = (10_000, 20, 50)


def begin() -> None:
    """Before the imports: no collections while all that is made stays (a seventh of start-up), and one heap for all threads.

    Threads hold the interpreter's lock while they allocate, so that heaps of their own spare them no waiting.
    """
    gc.disable()
    _libc("mallopt", _M_ARENA_MAX, 1)


def settle() -> None:
    """At the end of start-up: give back what it left over, and take what stays out of the garbage collector's sight.

    Without that a collection walks all of it, over and over. What comes later (a thousand devices) is walked rarely, too: each
    time takes 10 ms, and hardly any garbage is in circles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
    _libc("malloc_trim", 0)


@contextmanager
def without_authorities() -> Iterator[None]:
    """While aiohttp is imported: it reads the machine's certificate authorities twice then, 2 MB and 60 ms for nobody.

    Whoever connects with TLS makes a context when it does (`HttpFetcher`, `mqtt_paho`).
    """
    before = os.environ.get(_AUTHORITIES)
    os.environ[_AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[_AUTHORITIES]
        else:
            os.environ[_AUTHORITIES] = before


def _libc(function: str, *arguments: int) -> None:
    """Call what glibc has and others may not: it spares memory, and nothing depends on it."""
    if (found := getattr(ctypes.CDLL(None), function, None)) is not None:
        found(*arguments)
