"""A bounded queue served by a fixed number of tasks: what keeps one slow request from holding up the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from gatewayd.core.errors import Overloaded

T = TypeVar("T")


class Lane(Generic[T]):
    """At most `in_flight` items are served at once, `waiting` more wait, `max_bytes` of payload in all.

    Full: `put` raises Overloaded at once. `serve` must not raise.
    """

    def __init__(
        self, name: str, serve: Callable[[T], Awaitable[None]], *, in_flight: int, waiting: int, max_bytes: int
    ) -> None:
        self.name = name
        self._serve = serve
        self._in_flight = in_flight
        self._max_bytes = max_bytes
        self._bytes = 0
        self._queue: asyncio.Queue[tuple[T, int]] = asyncio.Queue(waiting)

    def put(self, item: T, *, size: int) -> None:
        """Queue an item of `size` bytes. Raises: Overloaded."""
        is_too_much = self._bytes > 0 and self._bytes + size > self._max_bytes
        if self._queue.full() or is_too_much:
            message = f"{self._queue.qsize()} {self.name} requests ({self._bytes} bytes) wait already; try again later"
            raise Overloaded(message)
        self._bytes += size
        self._queue.put_nowait((item, size))

    async def drain(self) -> None:
        """Wait until everything that was put has been served."""
        await self._queue.join()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._in_flight):
                group.create_task(self._work(), name=f"{self.name}-{number}")

    async def _work(self) -> None:
        while True:
            item, size = await self._queue.get()
            try:
                await self._serve(item)
            finally:
                self._bytes -= size
                self._queue.task_done()
