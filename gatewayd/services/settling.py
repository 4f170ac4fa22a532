"""What answers teach is entered when nobody waits for anything else: what is only counted and learned delays no answer."""

from collections import deque
from collections.abc import Callable

Later = Callable[[Callable[[], None]], object]
"""Calls what it is given in a moment, when there is nothing better to do (the event loop)."""

# Protects memory, and the moment in which it is entered, when there is always something better to do.
_MOST = 128


def at_once(settle: Callable[[], None]) -> None:
    """Do it now."""
    settle()


class Settling:
    """Work that can wait, in order. Who shows what it changes calls `settle` first."""

    def __init__(self, later: Later = at_once) -> None:
        self._later = later
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, work: Callable[[], None]) -> None:
        """Have `work` done in a moment, after what was entered before."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            self._later(self.settle)
        elif len(self._waiting) >= _MOST:
            self.settle()

    def settle(self) -> None:
        """Do now what waits; nothing, mostly. A defect in one piece of work is raised, and the others are done later."""
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            if self._waiting:
                self._later(self.settle)
