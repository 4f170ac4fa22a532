"""An event loop that waits awake where sleeping would take longer than what it waits for.

A processor with nothing to do goes to sleep, and waking it costs 30 to 60 µs in a virtual machine and on small boards: as much
as a small model computes. `expect` says that something is due within a moment; for that long the loop asks instead of sleeping.
"""

import asyncio
import os
import selectors
import time


class EagerSelector(selectors.EpollSelector):
    """Epoll that can be told to stay awake for a moment. Linux only, as is the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self._awake_until_s = 0.0

    def expect(self, within_s: float) -> None:
        """Stay awake for `within_s` seconds, or until there is something; what ran out costs nothing further."""
        self._awake_until_s = time.monotonic() + within_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as epoll does, awake first where something is expected."""
        until_s, self._awake_until_s = self._awake_until_s, 0.0
        if until_s and (timeout is None or timeout > 0):
            if timeout is not None:
                until_s = min(until_s, time.monotonic() + timeout)
            while time.monotonic() < until_s:
                found = super().select(0)
                if found:
                    return found
        return super().select(timeout)


class EagerLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on an EagerSelector."""

    def __init__(self) -> None:
        self._eager = EagerSelector()
        super().__init__(self._eager)

    def expect(self, within_s: float) -> None:
        """Stay awake for `within_s` seconds from now, or until there is something."""
        self._eager.expect(within_s)


def has_another_processor() -> bool:
    """Whether something can run while this process waits awake: else waiting awake is what it would wait for."""
    return len(os.sched_getaffinity(0)) > 1
