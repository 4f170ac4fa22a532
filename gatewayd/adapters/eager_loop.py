"""An event loop that waits awake (`worker/awake.py`) where an answer is due sooner than a sleeping processor is up again."""

import asyncio
import os
import select
import selectors
import time
from collections.abc import Callable

from gatewayd.worker.awake import Awake

_TURNS = 3  # of callbacks between two looks at what has come: one request takes as many, and each look a system call
_A_WHILE_S = 0.002  # who asks again asks sooner; nobody notices that something was counted so much later


def _no_loop(work: Callable[[], None]) -> None:
    """Refuse: the selector belongs to no loop yet."""
    raise RuntimeError(f"no loop to run {work} on")


class EagerSelector(selectors.EpollSelector):
    """Epoll that can be told to stay awake for a moment. Linux only, as is the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self._awake = Awake()
        self._awake_until_s = 0.0
        self._turns = 0
        self._expected = -1
        self._told: Callable[[], object] = bool
        self.meanwhile: list[Callable[[], None]] = []
        self.call_soon: Callable[[Callable[[], None]], object] = _no_loop
        # Epoll is itself something to poll: asking so costs a third of asking it for its list.
        self._anything = select.poll()
        self._anything.register(self.fileno(), select.POLLIN)

    def expect(self, within_s: float, descriptor: int, told: Callable[[], object]) -> None:
        """Stay awake for `within_s` seconds from now, or until there is something: once.

        If that is something to read from `descriptor`, `told` is called before the loop's next turn rather than in it: what it
        wakes runs a turn earlier.
        """
        self._awake_until_s = time.monotonic() + within_s
        self._expected, self._told = descriptor, told

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as epoll does, awake first where something is expected."""
        if timeout == 0:  # callbacks are due: what has come meanwhile can wait for a few of them as well
            self._turns = (self._turns + 1) % (_TURNS + 1)
            return [] if self._turns else super().select(0)
        self._turns = 0
        until_s, self._awake_until_s = self._awake_until_s, 0.0
        if self.meanwhile:
            return self._select_meanwhile(timeout, until_s)
        if until_s:
            if timeout is not None:
                until_s = min(until_s, time.monotonic() + timeout)
            if self._awake.wait(self._anything.poll, until_s):
                return self._after_telling(super().select(0))
        return super().select(timeout)

    def _select_meanwhile(self, timeout: float | None, until_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        """With work that can wait: give it to the loop when something is expected, or when nothing comes for a while."""
        wait_s = 0.0 if until_s else _A_WHILE_S if timeout is None else min(timeout, _A_WHILE_S)
        found = super().select(wait_s)
        if found:
            return self._after_telling(found) if until_s else found
        self._awake_until_s = until_s
        work, self.meanwhile = self.meanwhile, []
        for each in work:
            self.call_soon(each)
        return []

    def _after_telling(self, found: list[tuple[selectors.SelectorKey, int]]) -> list[tuple[selectors.SelectorKey, int]]:
        others = [each for each in found if each[0].fd != self._expected]
        if len(others) < len(found):
            self._told()
        return others


class EagerLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on an EagerSelector."""

    def __init__(self) -> None:
        self._eager = EagerSelector()
        super().__init__(self._eager)
        self._eager.call_soon = self.call_soon

    def expect(self, within_s: float, descriptor: int, told: Callable[[], object]) -> None:
        """Stay awake for `within_s` seconds from now, or until there is something; as `EagerSelector.expect`.

        `told` is what the loop calls for `descriptor` anyway, and may be called for nothing; it must not raise.
        """
        self._eager.expect(within_s, descriptor, told)

    def call_meanwhile(self, work: Callable[[], None]) -> None:
        """Call `work` while the loop waits awake for something, or when nothing has come for 2 ms: nobody waits for it."""
        self._eager.meanwhile.append(work)


def has_another_processor() -> bool:
    """Whether something can run while this process waits awake: else it would keep from running what it waits for."""
    return len(os.sched_getaffinity(0)) > 1
