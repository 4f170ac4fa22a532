"""Which devices there are, what they hold and how reachable they are.

Links hand in events; everybody else reads immutable snapshots. What must survive a restart (who was let in) is in the
store; what devices say of themselves is told again by them.
"""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from gatewayd.core.command import Note
from gatewayd.core.damping import STEADY, USUAL, Damping, DampingRules
from gatewayd.core.device import Born, Departure, DeviceView, LinkKind, Lost, Profile, Slot
from gatewayd.core.errors import CallerError, DeviceError, NodeError, NotStored, UnknownDevice
from gatewayd.core.events import DeviceChanged, InputRefused
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.record import record
from gatewayd.services.estimates import Estimates
from gatewayd.services.join_window import JoinWindow
from gatewayd.services.ports import Clock, DeviceStore, Notify, Pinger
from gatewayd.services.tracked import Tracked, running

MAX_PINGS = 32  # in flight at once: a thousand silent devices must not fill the outgoing queue of a link
_PING_TIMEOUT_S = 5.0
_TICK_S = 0.5
_STORE_RETRY_S = 5.0

WriteDeparture = Callable[[Departure], Awaitable[object]]
"""Makes it durable that a device is taken out, with all that goes with it."""

logger = logging.getLogger(__name__)


@record
class TrackingOptions:
    """`open_join`: unknown devices are let in at once. `max_devices` bounds memory and the store.

    A connected device that answers no ping for `absent_after_s` counts as offline until it answers again.
    """

    open_join: bool = False
    max_devices: int = 1000
    ping_every_s: float = 30.0
    absent_after_s: float = 90.0
    damping: DampingRules = USUAL


class Tracking:
    """The devices. All methods run on the event loop; `handle` never blocks."""

    def __init__(
        self,
        *,
        store: DeviceStore,
        estimates: Estimates,
        profiles: Mapping[str, Profile],
        options: TrackingOptions,
        notify: Notify,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self._store = store
        self._estimates = estimates
        self._profiles = profiles
        self._options = options
        self._notify = notify
        self._clock = clock
        self._wall_clock = wall_clock
        self.window = JoinWindow(clock=clock, notify=notify)
        # Approving, revoking and forgetting write a row each: in turn, so that the last one is what holds.
        self._deciding = asyncio.Lock()
        self._devices: dict[DeviceId, Tracked] = {}
        self._holders: dict[tuple[ModelName, int], set[DeviceId]] = {}
        self._unsaved: asyncio.Queue[DeviceId] = asyncio.Queue()
        self._ping_due: list[tuple[float, DeviceId]] = []
        self._pinged: set[DeviceId] = set()
        self._watchers: list[Callable[[DeviceId], None]] = []
        self._held_off: list[tuple[float, DeviceId]] = []

    def watch(self, watcher: Callable[[DeviceId], None]) -> None:
        """Have `watcher` called after every change of a device; it must return at once."""
        self._watchers.append(watcher)

    async def load(self) -> None:
        """Read who was seen before; call once before links start."""
        for known in await self._store.load_devices():
            self._devices[known.device] = Tracked.returning(known)

    def dampings(self) -> tuple[tuple[DeviceId, Damping], ...]:
        """Return what is remembered of the devices that came and went, for the time after a restart."""
        return tuple((each.id, each.damping) for each in self._devices.values() if each.damping != STEADY)

    def restore(self, dampings: Sequence[tuple[DeviceId, Damping]]) -> None:
        """Take over what was remembered before a restart; once, after `load`. Whoever was held off still is."""
        for device, damping in (each for each in dampings if each[0] in self._devices):
            if self._devices[device].recall(damping, self._options.damping, now_s=self._clock()):
                heapq.heappush(self._held_off, (damping.until_s, device))

    def devices(self) -> tuple[DeviceView, ...]:
        """Return a snapshot of every device ever seen, by id."""
        return tuple(self._view(self._devices[key]) for key in sorted(self._devices))

    def online_count(self) -> int:
        """Return how many devices are connected now."""
        return sum(tracked.online for tracked in self._devices.values())

    def device(self, device: DeviceId) -> DeviceView:
        """Return one snapshot. Raises: UnknownDevice."""
        return self._view(self._tracked(device))

    def find(self, device: DeviceId) -> DeviceView | None:
        """Return one snapshot; None when nobody knows the device (any more)."""
        return None if (tracked := self._devices.get(device)) is None else self._view(tracked)

    def running(self, device: DeviceId) -> int:
        """Return how many requests are on the device now. Raises: UnknownDevice."""
        return self._tracked(device).running

    def link_kind(self, device: DeviceId) -> LinkKind:
        """Return how the device was reached last; MQTT for one that was never seen."""
        return LinkKind.MQTT if (tracked := self._devices.get(device)) is None else tracked.link

    def holding(self, model: ModelName, version: int) -> tuple[DeviceView, ...]:
        """Return a snapshot of the devices that run that version, by id."""
        return tuple(self._view(self._devices[key]) for key in sorted(self._holders.get((model, version), ())))

    def handle(self, event: Born | Lost) -> None:
        """Take what a link saw. A device past the limit is refused, counted and not kept."""
        match event:
            case Born():
                self._born(event)
            case Lost():
                self._lost(event)

    async def approve(self, device: DeviceId, *, who: str, note_of: Note[DeviceView] | None = None) -> DeviceView:
        """Let a device in; durable before returning. Raises: UnknownDevice, NotStored."""
        async with self._deciding:
            tracked, note = self._tracked(device), f"approved by {who}"
            record = note_of and note_of(replace(self._view(tracked), approved=True, note=note))
            await self._store.noting(record).save_device(replace(tracked.known, approved=True, revoked=False))
            tracked.approved, tracked.revoked = True, False
            tracked.note = note
        self._announce(tracked, "approved")
        return self._view(tracked)

    async def revoke(self, device: DeviceId, *, who: str, write: WriteDeparture) -> DeviceView:
        """Take a device out until somebody approves it again. Raises: UnknownDevice, what `write` raises."""
        async with self._deciding:
            tracked = self._tracked(device)
            await write(Departure(device, replace(tracked.known, approved=False, revoked=True)))
            tracked.approved, tracked.revoked = False, True
            tracked.note = f"revoked by {who}"
        self._announce(tracked, "revoked")
        return self._view(tracked)

    async def forget(self, device: DeviceId, *, who: str, write: WriteDeparture) -> None:
        """Remove a device as if it had never been seen. Raises: UnknownDevice, what `write` raises."""
        async with self._deciding:
            tracked = self._tracked(device)
            await write(Departure(device))
            self._drop(tracked)
        tracked.connected = False
        self._announce(tracked, f"forgotten by {who}")

    def open_join(self, *, allowed: bool) -> None:
        """Let newcomers in at once from now on, or no longer; who is in stays."""
        self._options = replace(self._options, open_join=allowed)

    def began(self, device: DeviceId) -> None:
        """Count one more request on the device."""
        self._tracked(device).running += 1
        self._changed(device)

    def ended(self, device: DeviceId) -> None:
        """Count one less; of a device that was forgotten meanwhile there is nothing to count."""
        tracked = self._devices.get(device)
        if tracked is not None:
            tracked.running -= 1
            tracked.used_at_s = self._clock()
            self._changed(device)

    def inference_at_s(self, device: DeviceId) -> float | None:
        """Return when a request used the device's link last, on the monotonic clock; None when none did or nobody knows it."""
        tracked = self._devices.get(device)
        if tracked is None:
            return None
        return self._clock() if tracked.running else tracked.used_at_s

    def unwant(self, device: DeviceId, model: ModelName) -> None:
        """Want nothing of that model there any more."""
        tracked = self._devices.get(device)
        if tracked is not None:
            tracked.desired.pop(model, None)

    def want(self, device: DeviceId, *, model: ModelName, version: int) -> None:
        """Record what the gateway wants the device to hold (desired, beside what it reports)."""
        self._tracked(device).desired[model] = version

    def wanted(self) -> frozenset[tuple[ModelName, int]]:
        """Return every version that some device is to hold."""
        return frozenset(item for tracked in self._devices.values() for item in tracked.desired.items())

    async def run(self, link: Pinger) -> None:
        """Save new devices, ping those online and close the door in time, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.window.run(), name="tracking: join window")
            tasks.create_task(self._save_new(), name="tracking: save")
            tasks.create_task(self._ping_all(link, tasks), name="tracking: ping")
            tasks.create_task(self._release_all(), name="tracking: damping")

    def _born(self, event: Born) -> None:
        tracked = self._devices.get(event.device) or self._joined(event.device)
        if tracked is None:
            return
        came = not tracked.online
        changed = event.report.is_news_to(tracked.report)
        tracked.connected, tracked.silent, tracked.heard_s = True, False, self._clock()
        tracked.link, tracked.report = event.link, event.report
        self._estimates.reached_by(event.device, event.link, event.report.bearer)
        self._hold(tracked, event.report.slots)
        if came and not tracked.approved:
            self._admit(tracked)
        if event.device not in self._pinged:
            self._pinged.add(event.device)
            heapq.heappush(self._ping_due, (self._clock(), event.device))
        if came and not tracked.has_returned():
            self._dampen(tracked)
        self._changed(event.device)
        if came or changed:
            waits = "revoked" if tracked.revoked else "waits for approval"
            came_as = "online" if tracked.approved else f"online, {waits}"
            self._announce(tracked, came_as if came else "report")

    def _joined(self, device: DeviceId) -> Tracked | None:
        if len(self._devices) >= self._options.max_devices and not self._made_room():
            limit = f"devices.max_devices is {self._options.max_devices}"
            self._notify(InputRefused("devices", "too_many", f"{device} is not let in: {limit}"))
            return None
        tracked = self._devices[device] = Tracked(device, approved=False, first_seen_at=self._wall_clock())
        return tracked

    def _admit(self, tracked: Tracked) -> None:
        """Let a newcomer in where that goes by itself; who was taken out waits for the operator."""
        if tracked.revoked:
            tracked.note = tracked.note or "revoked"
        elif self._options.open_join or self.window.admits(tracked.id):
            tracked.approved = True
            tracked.note = "" if self._options.open_join else "joined while joining was permitted"
            self._unsaved.put_nowait(tracked.id)
        else:
            tracked.note = "waits for approval"

    def _made_room(self) -> bool:
        """Forget the oldest device that nobody let in, an absent one first: strangers must not keep others out."""
        strangers = [each for each in self._devices.values() if not each.approved and not each.revoked]
        if not strangers:
            return False
        gone = next((each for each in strangers if not each.connected), strangers[0])
        self._drop(gone)
        return True

    def _drop(self, gone: Tracked) -> None:
        self._hold(gone, ())
        del self._devices[gone.id]
        self._estimates.forget_device(gone.id)
        self._changed(gone.id)

    def _hold(self, tracked: Tracked, slots: Sequence[Slot]) -> None:
        """Keep the index of who runs what in step with the device's report."""
        for held in tracked.runs:
            self._holders[held].discard(tracked.id)
            if not self._holders[held]:
                del self._holders[held]
        tracked.runs = running(slots)
        for held in tracked.runs:
            self._holders.setdefault(held, set()).add(tracked.id)

    def _lost(self, event: Lost) -> None:
        tracked = self._devices.get(event.device)
        if tracked is None or not tracked.connected:
            return
        tracked.connected = False
        self._announce(tracked, "offline" if event.reason in {"", "offline"} else f"offline: {event.reason}")

    def release(self) -> None:
        """End what held devices off and is over."""
        while self._held_off and self._held_off[0][0] <= self._clock():
            _, device = heapq.heappop(self._held_off)
            tracked = self._devices.get(device)
            if tracked is not None and tracked.held_off and not tracked.damping.holds(self._clock()):
                tracked.held_off = ""
                self._announce(tracked, "no longer held off")

    async def _release_all(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.release()

    def _dampen(self, tracked: Tracked) -> None:
        """Count a coming; hold the device off when it comes and goes too often."""
        rules, before = self._options.damping, tracked.damping
        tracked.damping = before.came(self._clock(), rules)
        if tracked.damping.until_s > before.until_s:
            tracked.held_off = tracked.damping.words(rules)
            heapq.heappush(self._held_off, (tracked.damping.until_s, tracked.id))
            self._announce(tracked, tracked.held_off)

    def _changed(self, device: DeviceId) -> None:
        for watcher in self._watchers:
            watcher(device)

    def _announce(self, tracked: Tracked, what: str) -> None:
        self._changed(tracked.id)
        self._notify(DeviceChanged(tracked.id, tracked.online, what))

    async def _save_new(self) -> None:
        while True:
            device = await self._unsaved.get()
            while not await self._saved(device):  # noqa: ASYNC110 - a disk tells nobody when it has room again
                await asyncio.sleep(_STORE_RETRY_S)

    async def _saved(self, device: DeviceId) -> bool:
        try:
            async with self._deciding:
                tracked = self._devices.get(device)
                if tracked is not None:  # it may have been forgotten meanwhile
                    await self._store.save_device(tracked.known)
        except NotStored as error:
            pairs = {"device": device, "reason": str(error)}
            logger.error("device not stored yet", extra={"fields": pairs})  # noqa: TRY400 - the message says all
            return False
        return True

    async def _ping_all(self, link: Pinger, tasks: asyncio.TaskGroup) -> None:
        free = asyncio.Semaphore(MAX_PINGS)
        while True:
            while self._ping_due and self._ping_due[0][0] <= self._clock():
                _, device = heapq.heappop(self._ping_due)
                if device not in self._devices or not self._devices[device].connected:
                    self._pinged.discard(device)
                    continue
                await free.acquire()
                tasks.create_task(self._ping(link, device, free), name=f"ping {device}")
            await asyncio.sleep(_TICK_S)

    async def _ping(self, link: Pinger, device: DeviceId, free: asyncio.Semaphore) -> None:
        try:
            self._estimates.saw_ping(device, await link.ping(device, timeout_s=_PING_TIMEOUT_S))
            self._heard(device)
        except DeviceError:
            self._estimates.saw_failure(device)
            self._missed(device)
        except (
            NodeError,
            CallerError,
        ) as error:  # our own queue is full, or the broker's limit too small: not its fault
            logger.warning("ping not sent", extra={"fields": {"device": device, "reason": str(error)}})
        finally:
            free.release()
            heapq.heappush(self._ping_due, (self._clock() + self._options.ping_every_s, device))

    def _heard(self, device: DeviceId) -> None:
        tracked = self._devices.get(device)
        if tracked is None:
            return
        tracked.heard_s = self._clock()
        if tracked.silent:
            tracked.silent = False
            self._announce(tracked, "answers again")

    def _missed(self, device: DeviceId) -> None:
        tracked = self._devices.get(device)
        quiet_s = self._clock() - tracked.heard_s if tracked else 0.0
        if tracked is not None and tracked.online and quiet_s >= self._options.absent_after_s:
            tracked.silent = True
            self._announce(tracked, f"offline: no answer for {quiet_s:.0f} s")

    def _tracked(self, device: DeviceId) -> Tracked:
        if (found := self._devices.get(device)) is None:
            raise UnknownDevice(f"no device {device!r} was ever seen here")
        return found

    def _view(self, tracked: Tracked) -> DeviceView:
        board = tracked.report.capabilities.board if tracked.report else ""
        return DeviceView(
            id=tracked.id,
            approved=tracked.approved,
            online=tracked.online,
            link=tracked.link,
            report=tracked.report,
            quality=self._estimates.link(tracked.id).quality(),
            profile=self._profiles.get(board),
            desired=tuple(tracked.desired.items()),
            running=tracked.running,
            note=tracked.note,
            revoked=tracked.revoked,
            held_off=tracked.held_off,
        )
