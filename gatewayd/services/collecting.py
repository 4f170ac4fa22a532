"""Garbage collection: removes artifacts that nothing needs, and knows for each of the others what needs it.

Needed are the artifacts of every version in use (so of every alias), of a version retired a short time ago, what a device runs by
its last report or is to run, what a push sends, and what an admission or a build in progress stored.
"""

import asyncio
from collections.abc import Mapping, Sequence

from gatewayd.core.device import Born
from gatewayd.core.events import ArtifactsCollected
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId, Digest
from gatewayd.core.record import record
from gatewayd.core.update import Push
from gatewayd.services.catalog import Catalog
from gatewayd.services.ports import Artifacts, Clock, HoldingStore, Notify, PushStore
from gatewayd.services.pushes import Pushes
from gatewayd.services.tracking import Tracking

MAX_UNSAVED = 10_000
"""Protects memory: devices whose holdings wait to be written. Past it a change is not recorded; the next report is."""

_IN_USE = "a version in use"
_BATCH = 64  # removed in one turn: an admission waits that long to store its bytes


@record
class Collected:
    """What a collection removed (or would), with sizes, and why each artifact outside the versions in use was kept."""

    removed: Mapping[Digest, int]
    kept: Mapping[Digest, str]
    kept_count: int
    kept_bytes: int


@record
class CollectorPorts:
    """What collecting needs from outside; `wall_clock` gives seconds since 1970."""

    artifacts: Artifacts
    holdings: HoldingStore
    pushes: PushStore
    notify: Notify
    wall_clock: Clock


class Collector:
    """Collects on command and every `every_s`; `keep_retired_s` is how long a retired version may still be brought back."""

    def __init__(
        self,
        ports: CollectorPorts,
        *,
        catalog: Catalog,
        tracking: Tracking,
        pushes: Pushes,
        keep_retired_s: float,
        every_s: float,
    ) -> None:
        self._ports = ports
        self._catalog = catalog
        self._tracking = tracking
        self._pushes = pushes
        self._keep_retired_s = keep_retired_s
        self._every_s = every_s
        self._holdings: dict[DeviceId, frozenset[Digest]] = {}
        self._unsaved: asyncio.Queue[DeviceId] = asyncio.Queue(MAX_UNSAVED)

    async def load(self) -> None:
        """Read what devices held; call once before collecting and before links start."""
        self._holdings = dict(await self._ports.holdings.load_holdings())

    def saw(self, event: Born) -> None:
        """Take what a device reports; never blocks."""
        holds = frozenset(slot.digest for slot in event.report.slots if slot.digest is not None)
        if self._holdings.get(event.device, frozenset()) == holds:
            return
        self._holdings[event.device] = holds
        if not self._unsaved.full():
            self._unsaved.put_nowait(event.device)

    def forget(self, device: DeviceId) -> None:
        """What a forgotten device held is needed no more on its account."""
        self._holdings.pop(device, None)

    async def run(self) -> None:
        """Write what devices hold, and collect every `every_s`, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save(), name="collecting: holdings")
            while True:
                await asyncio.sleep(self._every_s)
                await self.collect()

    async def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nothing needs; with `dry_run` only tell. Raises: NodeError."""
        stored = await self._ports.artifacts.digests()
        journal = await self._ports.pushes.load_live()
        needed = self._needed(journal)
        spare = [digest for digest in stored if digest not in needed]
        removed = spare if dry_run else await self._remove(spare, journal)
        gone = {digest: stored[digest] for digest in removed}
        if removed and not dry_run:
            self._ports.notify(ArtifactsCollected(len(gone), sum(gone.values())))
        others = {digest: why for digest, why in needed.items() if digest in stored and why != _IN_USE}
        kept_bytes = sum(stored.values()) - sum(gone.values())
        return Collected(gone, others, len(stored) - len(gone), kept_bytes)

    async def _remove(self, spare: Sequence[Digest], journal: Sequence[Push]) -> list[Digest]:
        removed: list[Digest] = []
        for start in range(0, len(spare), _BATCH):
            batch = spare[start : start + _BATCH]
            removed += await self._catalog.keeper.remove(batch, needed=lambda: self._needed(journal))
        return removed

    def _needed(self, journal: Sequence[Push]) -> dict[Digest, str]:
        """Return every needed artifact with what needs it; asked again before each removal, since all may have changed."""
        needed: dict[Digest, str] = {}
        for push in (*journal, *self._pushes.live()):
            needed.update(dict.fromkeys((push.digest, push.stream), f"push {push.id} sends it"))
        for device, holds in self._holdings.items():
            needed.update(dict.fromkeys(holds, f"device {device} holds it"))
        wanted = self._tracking.wanted()
        for version in self._catalog.versions():
            if why := self._need_of(version, is_wanted=(version.model, version.number) in wanted):
                needed.update(dict.fromkeys(version.digests(), why))
        return needed

    def _need_of(self, version: Version, *, is_wanted: bool) -> str:
        retired = self._catalog.retirement(version)
        if retired is None:
            return _IN_USE
        if is_wanted:
            return f"a device is to hold {version}"
        age_s = self._ports.wall_clock() - retired.retired_at
        return f"{version} was retired only {age_s / 3600:.1f} hours ago" if age_s < self._keep_retired_s else ""

    def unsaved(self) -> int:
        """Return how many devices' holdings wait to be written."""
        return self._unsaved.qsize()

    async def save_next(self) -> None:
        """Write the next device's holdings when there are any."""
        device = await self._unsaved.get()
        if device in self._holdings:  # else it was forgotten meanwhile
            await self._ports.holdings.save_holdings(device, self._holdings[device])

    async def _save(self) -> None:
        while True:
            await self.save_next()
