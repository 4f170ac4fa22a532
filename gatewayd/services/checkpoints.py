"""What was learned survives a restart: kept every few minutes and at the end, never more often than an SD card should bear."""

import asyncio
import logging

from gatewayd.core.errors import NodeError
from gatewayd.core.learned import Learned
from gatewayd.services.estimates import Estimates
from gatewayd.services.ports import CheckpointStore

logger = logging.getLogger(__name__)

EVERY_S = 600.0
# What a write costs the card beside its bytes, twice over (journal): blocks of the file, its directory and their inodes.
_OVERHEAD_BYTES = 8192
_WRITTEN_TIMES = 2
# A day's share of the card: half of what the whole gateway may write with 10 devices, less than half of it with 1,000.
_DAY_BYTES, _DAY_BYTES_PER_DEVICE = 2_500_000, 20_000
_DAY_S = 86_400.0


class Checkpoints:
    """Keeps what the estimators learn."""

    def __init__(self, *, estimates: Estimates, store: CheckpointStore) -> None:
        self._estimates = estimates
        self._store = store
        self._kept = Learned()

    async def load(self) -> None:
        """Take over the last checkpoint; one that is broken is dropped."""
        found = await self._store.load_learned()
        if found is not None:
            self._estimates.recall(found)
            self._kept = self._estimates.learned()
            pairs = {"pairs": len(found.pairs), "links": len(found.links)}
            logger.info("estimates taken over", extra={"fields": pairs})

    async def run(self) -> None:
        """Keep what is new, every so often, until cancelled."""
        pause_s = EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = pause_of(await self.save(), devices=len(self._kept.links))

    async def save(self) -> int:
        """Keep what is new; return how many bytes it took. A disk that refuses is said, and tried again next time."""
        learned = self._estimates.learned()
        if learned == self._kept:
            return 0
        try:
            size_bytes = await self._store.save_learned(learned)
        except NodeError as error:
            logger.warning("estimates not kept", extra={"fields": {"reason": str(error)}})
            return 0
        self._kept = learned
        return size_bytes


def pause_of(size_bytes: int, *, devices: int) -> float:
    """Return the seconds until the next checkpoint, so that a day's do not exceed the card's share."""
    allowed = _DAY_BYTES + _DAY_BYTES_PER_DEVICE * devices
    return max(EVERY_S, _DAY_S * _WRITTEN_TIMES * (size_bytes + _OVERHEAD_BYTES) / allowed)
