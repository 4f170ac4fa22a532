"""An event loop whose clock runs as fast as the code: when nothing is ready, time jumps to the next timer.

Real code runs on it, real sockets of the loopback included: a datagram sent there is in the receiver's queue before `sendto`
returns, so "nothing is ready" means that nothing is on its way. Computing takes no time on this clock: what a processor adds is
not in its figures, and tables must say which rows are virtual. Threads would be overtaken: none may be used on this loop.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

Result = TypeVar("Result")

_STUCK_S = 10.0
"""Real seconds to wait when there is neither a timer nor a datagram: a child process may still write; then the loop is stuck."""


class _Selector(selectors.DefaultSelector):
    """Polls; when nothing is ready the clock advances by what the loop would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.clock_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See the base class. Raises: RuntimeError when nothing will ever happen."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(_STUCK_S)
            if not ready:
                raise RuntimeError("a virtual clock with no timer and nothing on its way: somebody waits for ever")
            return ready
        self.clock_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the virtual seconds since the start."""
        return self._clock.clock_s

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        """Nothing that fails in a callback may go unseen in a benchmark."""
        raise RuntimeError(str(context)) from context.get("exception")


def run_virtual(main: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end on a virtual clock; return the result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
