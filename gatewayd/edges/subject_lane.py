"""A bounded queue whose items about the same subject are served one after the other, in the order they came."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from gatewayd.core.errors import Overloaded
from gatewayd.core.record import record

T = TypeVar("T")


@record
class _Waiting(Generic[T]):
    item: T
    size: int
    subjects: frozenset[str]


class SubjectLane(Generic[T]):
    """At most `in_flight` items are served at once, `waiting` more wait, `max_bytes` of payload in all.

    Two items that share a subject never run at the same time, nor in another order than they were put; items without a
    subject wait for nobody. Full: `put` raises Overloaded at once. `serve` must not raise.
    """

    def __init__(
        self, name: str, serve: Callable[[T], Awaitable[None]], *, in_flight: int, waiting: int, max_bytes: int
    ) -> None:
        self.name = name
        self._serve = serve
        self._in_flight = in_flight
        self._most = in_flight + waiting
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiting: list[_Waiting[T]] = []
        self._running: list[_Waiting[T]] = []
        self._fresh = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, item: T, *, size: int, subjects: frozenset[str] = frozenset()) -> None:
        """Queue an item of `size` bytes about `subjects`. Raises: Overloaded."""
        count = len(self._waiting) + len(self._running)
        if count >= self._most or (self._bytes > 0 and self._bytes + size > self._max_bytes):
            raise Overloaded(
                f"{count} {self.name} requests ({self._bytes} bytes) are at work or wait already; try again later"
            )
        self._bytes += size
        self._waiting.append(_Waiting(item, size, subjects))
        self._idle.clear()
        self._fresh.set()

    async def drain(self) -> None:
        """Wait until everything that was put has been served."""
        await self._idle.wait()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._fresh.wait()
                self._fresh.clear()
                for each in tuple(self._ready()):
                    self._waiting.remove(each)
                    self._running.append(each)
                    group.create_task(self._work(each), name=self.name)

    def _ready(self) -> Iterator[_Waiting[T]]:
        """Yield what may begin now: nothing before it that runs or waits shares a subject with it."""
        free = self._in_flight - len(self._running)
        taken = frozenset[str]().union(*(each.subjects for each in self._running))
        for each in self._waiting:
            if free <= 0:
                return
            if not taken & each.subjects:
                free -= 1
                yield each
            taken |= each.subjects

    async def _work(self, each: _Waiting[T]) -> None:
        try:
            await self._serve(each.item)
        finally:
            self._running.remove(each)
            self._bytes -= each.size
            self._fresh.set()
            if not self._running and not self._waiting:
                self._idle.set()
