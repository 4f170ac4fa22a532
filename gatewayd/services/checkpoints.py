"""What was learned survives a restart: kept every few minutes and at the end, never more often than an SD card should bear."""

import asyncio
import logging
from dataclasses import replace

from gatewayd.core.errors import NodeError
from gatewayd.core.learned import Learned, kept_now
from gatewayd.core.record import record
from gatewayd.services.estimates import Estimates
from gatewayd.services.ports import CheckpointStore, Clock
from gatewayd.services.renting import Renting
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

EVERY_S = 600.0
# What a write costs the card beside its bytes, twice over (journal): blocks of the file, its directory and their inodes.
_OVERHEAD_BYTES = 8192
_WRITTEN_TIMES = 2
# A day's share of the card: half of what the whole gateway may write with 10 devices, less than half of it with 1,000.
_DAY_BYTES, _DAY_BYTES_PER_DEVICE = 2_500_000, 20_000
_DAY_S = 86_400.0


@record
class Book:
    """Who keeps the book of rent and buy and of the devices that come and go, and the clocks that its times are told by."""

    renting: Renting
    tracking: Tracking
    clock: Clock
    wall_clock: Clock


class Checkpoints:
    """Keeps what the estimators learn, and the book of rent and buy (`book` None: not)."""

    def __init__(self, *, estimates: Estimates, store: CheckpointStore, book: Book | None = None) -> None:
        self._estimates = estimates
        self._store = store
        self._book = book
        self._kept = Learned()

    async def load(self) -> None:
        """Take over the last checkpoint; one that is broken is dropped."""
        found = await self._store.load_learned()
        if found is not None:
            self._estimates.recall(found)
            self._restore(found)
            self._kept = self._learned()
            pairs = {"pairs": len(found.pairs), "links": len(found.links), "balances": len(found.kept.pairs)}
            logger.info("estimates taken over", extra={"fields": pairs})

    async def run(self) -> None:
        """Keep what is new, every so often, until cancelled."""
        pause_s = EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = pause_of(await self.save(), devices=len(self._kept.links))

    async def save(self) -> int:
        """Keep what is new; return how many bytes it took. A disk that refuses is said, and tried again next time."""
        learned = self._learned()
        if learned == self._kept:
            return 0
        try:
            size_bytes = await self._store.save_learned(learned)
        except NodeError as error:
            logger.warning("estimates not kept", extra={"fields": {"reason": str(error)}})
            return 0
        self._kept = learned
        return size_bytes

    def _learned(self) -> Learned:
        learned, book = self._estimates.learned(), self._book
        if book is None:
            return learned
        kept = replace(book.renting.kept(), dampings=book.tracking.dampings())
        return replace(learned, kept=kept, at_s=book.clock(), at=book.wall_clock())

    def _restore(self, found: Learned) -> None:
        if self._book is not None:
            kept = kept_now(found, now_s=self._book.clock(), now=self._book.wall_clock())
            self._book.renting.restore(kept)
            self._book.tracking.restore(kept.dampings)


def pause_of(size_bytes: int, *, devices: int) -> float:
    """Return the seconds until the next checkpoint, so that a day's do not exceed the card's share."""
    allowed = _DAY_BYTES + _DAY_BYTES_PER_DEVICE * devices
    return max(EVERY_S, _DAY_S * _WRITTEN_TIMES * (size_bytes + _OVERHEAD_BYTES) / allowed)
