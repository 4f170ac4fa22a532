"""The line in which events wait for the consumer of the pushes: bounded, taken in batches."""

import asyncio

from gatewayd.core.names import PushId
from gatewayd.core.push import DeviceBack, DeviceGone, Event
from gatewayd.core.record import record

# Reports that wait for the journal. Past it new ones are dropped: devices repeat what was not answered.
MAX_WAITING = 4096

# Events taken at once: as many as one transaction may hold up the others.
BATCH = 256


@record
class Given:
    """An event for one push, waiting its turn."""

    push: PushId
    event: Event


class EventLine:
    """First in, first out. When full, presence is kept (the latest of each push) and all else dropped."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Given] = asyncio.Queue(MAX_WAITING)
        self._presence: dict[PushId, Event] = {}

    def put(self, push: PushId, event: Event) -> None:
        """Append; never blocks."""
        if not self._queue.full():
            self._queue.put_nowait(Given(push, event))
        elif isinstance(event, DeviceBack | DeviceGone):
            self._presence[push] = event

    def waiting(self) -> list[Given]:
        """Return what waits now: a batch at most, then the presence that found no room."""
        given: list[Given] = []
        while len(given) < BATCH and not self._queue.empty():
            given.append(self._queue.get_nowait())
        if self._queue.empty():
            given += [Given(push, event) for push, event in self._presence.items()]
            self._presence.clear()
        return given

    async def take(self, wait_s: float) -> list[Given]:
        """Return what waits, after at least one event came or `wait_s` passed."""
        given: list[Given] = []
        try:
            async with asyncio.timeout(wait_s):
                given.append(await self._queue.get())
        except TimeoutError:
            pass
        return given + self.waiting()
