"""An event loop in which no time passes by itself: it runs what is ready, then stops, and knows when it would go on."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Idle(selectors.SelectSelector):
    """Waits for nothing: where the loop would wait, it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.on_idle: Callable[[], None] = lambda: None
        self.wait_s: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return nothing; a wait is remembered and ends the loop's turn."""
        if timeout is None or timeout > 0:
            self.wait_s = timeout
            self.on_idle()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock is `now_s`; what goes to threads is done on the spot, so that every run is the same."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._idle = _Idle()
        super().__init__(self._idle)
        self._idle.on_idle = self.stop

    def time(self) -> float:
        """Return the clock of whoever drives it."""
        return self.now_s

    def settle(self, now_s: float) -> None:
        """Run all that is ready at `now_s`, and what follows from it."""
        self.now_s = now_s
        self.run_forever()

    def next_s(self) -> float | None:
        """Return when it would go on by itself; None: never."""
        return None if self._idle.wait_s is None else self.now_s + self._idle.wait_s

    def run_in_executor(self, _executor: object, work: Callable[[*Ts], T], *arguments: *Ts) -> "asyncio.Future[T]":
        """Do it here and now. Raises: what the work raises."""
        done: asyncio.Future[T] = self.create_future()
        done.set_result(work(*arguments))
        return done

    def enter(self, work: Coroutine[object, object, T], *, name: str) -> "asyncio.Task[T]":
        """Begin a process's outermost coroutine, as `asyncio.run` does; it ends at the latest with `quit`."""
        return self.create_task(work, name=name)

    def quit(self) -> None:
        """End all tasks, as far as they go, and close."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        self.set_exception_handler(_forget)
        self.run_forever()
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # seen: nobody is left to be told
        self.close()


def _forget(_loop: asyncio.AbstractEventLoop, _context: Mapping[str, object]) -> None:
    """Say nothing of what a killed process left."""
