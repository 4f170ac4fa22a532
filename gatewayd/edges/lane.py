"""A bounded queue served by a fixed number of tasks: a slow request holds up no other, a flood of one sender no other sender."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from gatewayd.core.errors import Overloaded

T = TypeVar("T")


class Lane(Generic[T]):
    """At most `in_flight` items are served at once, `waiting` more wait, `max_bytes` of payload in all.

    Senders take turns; the items of each keep their order. Full: whoever has most waiting (of items, or of bytes where those are
    too many) loses the newest of it to somebody with less, which `on_dropped` is told, or `put` raises Overloaded at once. Half
    of the bytes, and one item, are served at most: what is being served makes no room. `serve` and `on_dropped` must not raise.
    Source: McKenney, "Stochastic Fairness Queueing" (INFOCOM 1990): turns, and dropping from the longest queue.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[T], Awaitable[None]],
        *,
        in_flight: int,
        waiting: int,
        max_bytes: int,
        on_dropped: Callable[[T, Overloaded], None] | None = None,
    ) -> None:
        self.name = name
        self._serve = serve
        self._in_flight = in_flight
        self._max_bytes = max_bytes
        self._on_dropped = on_dropped
        self._bytes = 0
        # One token for each item that waits; whoever takes one serves the next item of the sender whose turn it is.
        self._tokens: asyncio.Queue[None] = asyncio.Queue(waiting)
        self._waiting: OrderedDict[str, deque[tuple[T, int]]] = OrderedDict()
        self._waiting_bytes: dict[str, int] = {}
        self._served_bytes = 0
        self._may_begin = asyncio.Event()
        self._may_begin.set()

    def put(self, item: T, *, size: int, sender: str = "") -> None:
        """Queue an item of `size` bytes. Raises: Overloaded."""
        if (self._is_too_much(size) and not self._made_bytes(sender, size)) or (
            self._tokens.full() and not self._made_room(sender)
        ):
            raise self._full()
        self._bytes += size
        self._waiting_bytes[sender] = self._waiting_bytes.get(sender, 0) + size
        self._waiting.setdefault(sender, deque()).append((item, size))
        self._tokens.put_nowait(None)

    async def drain(self) -> None:
        """Wait until everything that was put has been served."""
        await self._tokens.join()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._in_flight):
                group.create_task(self._work(), name=f"{self.name}-{number}")

    def _full(self) -> Overloaded:
        return Overloaded(
            f"{self._tokens.qsize()} {self.name} requests ({self._bytes} bytes) wait already; try again later"
        )

    def _made_room(self, sender: str) -> bool:
        """Drop the newest item of whoever has most waiting, if that is more than `sender` would have."""
        longest = max(self._waiting, key=lambda each: len(self._waiting[each]))
        ours = len(self._waiting.get(sender, ())) + 1
        if self._on_dropped is None or len(self._waiting[longest]) <= ours:
            return False
        self._drop_newest(longest, self._on_dropped)
        return True

    def _is_too_much(self, size: int) -> bool:
        return self._bytes > 0 and self._bytes + size > self._max_bytes

    def _made_bytes(self, sender: str, size: int) -> bool:
        """Drop the newest items of whoever has most bytes waiting, as long as that is more than `sender` would have."""
        ours = self._waiting_bytes.get(sender, 0) + size
        spare = sum(max(0, each - ours) for each in self._waiting_bytes.values())
        if self._on_dropped is None or self._bytes - spare + size > self._max_bytes:
            return False  # whatever were dropped, it would not be enough: nobody loses anything
        while self._is_too_much(size):
            heaviest = max(self._waiting_bytes, key=self._waiting_bytes.__getitem__)
            self._drop_newest(heaviest, self._on_dropped)
        return True

    def _drop_newest(self, sender: str, on_dropped: Callable[[T, Overloaded], None]) -> None:
        refusal, items = self._full(), self._waiting[sender]
        item, size = items.pop()
        if not items:
            del self._waiting[sender]
        self._bytes -= size
        self._no_longer_waits(sender, size)
        self._tokens.get_nowait()
        self._tokens.task_done()
        on_dropped(item, refusal)

    def _no_longer_waits(self, sender: str, size: int) -> None:
        self._waiting_bytes[sender] -= size
        if sender not in self._waiting:
            del self._waiting_bytes[sender]

    def _next(self) -> tuple[T, int]:
        """Return the oldest item of the sender whose turn it is; then it is the next sender's."""
        sender, items = next(iter(self._waiting.items()))
        item = items.popleft()
        if items:
            self._waiting.move_to_end(sender)
        else:
            del self._waiting[sender]
        self._no_longer_waits(sender, item[1])
        return item

    async def _work(self) -> None:
        while True:
            await self._may_begin.wait()
            await self._tokens.get()
            if not self._may_begin.is_set():  # others began meanwhile; only what waits has a token
                self._tokens.put_nowait(None)
                self._tokens.task_done()
                continue
            item, size = self._next()
            self._serves(size)
            try:
                await self._serve(item)
            finally:
                self._bytes -= size
                self._serves(-size)
                self._tokens.task_done()

    def _serves(self, more: int) -> None:
        """Count bytes that are being served."""
        self._served_bytes += more
        if 2 * self._served_bytes < self._max_bytes:
            self._may_begin.set()
        else:
            self._may_begin.clear()
