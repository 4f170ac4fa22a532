"""Who needs which artifact right now: what an admission has just stored is held until its rows are written.

Storing and removing take turns, so that bytes which were found there already are not removed before they are held.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager

from gatewayd.core.names import Digest
from gatewayd.services.ports import Artifacts

Hold = list[Digest]
"""The artifacts that one admission or build needs."""


class Keeper:
    """The one way by which services store and remove artifacts."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._held: Counter[Digest] = Counter()
        self.turn = asyncio.Lock()

    @contextmanager
    def holding(self) -> Iterator[Hold]:
        """Give a hold that ends with the block."""
        hold: Hold = []
        try:
            yield hold
        finally:
            self.release(hold)

    def release(self, hold: Hold) -> None:
        """End a hold before its block does."""
        self._held.subtract(hold)
        self._held = +self._held  # drops what nobody holds any more

    async def put(self, content: bytes, hold: Hold) -> Digest:
        """Store durably and keep it as long as `hold` lasts. Raises: TooLarge, NodeError."""
        digest = Digest(await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest()))
        async with self.turn:
            self.hold(digest, hold)
            await self._artifacts.put(content)
        return digest

    def hold(self, digest: Digest, hold: Hold) -> None:
        """Keep an artifact that is there as long as `hold` lasts."""
        hold.append(digest)
        self._held[digest] += 1

    def is_held(self, digest: Digest) -> bool:
        """Tell whether an admission or a build needs it."""
        return self._held[digest] > 0

    async def remove(self, digests: Iterable[Digest], *, needed: Callable[[], Container[Digest]]) -> list[Digest]:
        """Remove the artifacts that are neither held nor `needed`, asked when it is our turn. Returns what was removed."""
        async with self.turn:
            there = needed()
            removed = [digest for digest in digests if not self.is_held(digest) and digest not in there]
            for digest in removed:
                await self._artifacts.remove(digest)
            return removed
