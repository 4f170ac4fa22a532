"""An event loop that waits awake (`worker/awake.py`) where an answer is due sooner than a sleeping processor is up again."""

import asyncio
import os
import selectors
import time

from gatewayd.worker.awake import Awake


class EagerSelector(selectors.EpollSelector):
    """Epoll that can be told to stay awake for a moment. Linux only, as is the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self._awake = Awake()
        self._awake_until_s = 0.0

    def expect(self, within_s: float) -> None:
        """Stay awake for `within_s` seconds from now, or until there is something: once."""
        self._awake_until_s = time.monotonic() + within_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as epoll does, awake first where something is expected."""
        until_s, self._awake_until_s = self._awake_until_s, 0.0
        if until_s and (timeout is None or timeout > 0):
            if timeout is not None:
                until_s = min(until_s, time.monotonic() + timeout)
            found = self._awake.wait(super().select, until_s)
            if found:
                return list(found)
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
    """Whether something can run while this process waits awake: else it would keep from running what it waits for."""
    return len(os.sched_getaffinity(0)) > 1
