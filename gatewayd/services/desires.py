"""What the gateway wants on devices, beside what they report: kept, tried again with pauses, given up, quarantined.

The decisions are `core.retry`; here they meet the store, the clock and chance. Starting the pushes is `services.pushes`.
"""

import heapq
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from gatewayd.core.command import Note, Record
from gatewayd.core.device import DeviceView, Slot, SlotState
from gatewayd.core.errors import NotStored, UnknownDevice
from gatewayd.core.events import DeviceChanged
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.push import Push, PushState
from gatewayd.core.record import record
from gatewayd.core.retry import PLACEMENT, Desire, Retry, Terms, after_end, obstacle, pause_s
from gatewayd.services.ports import Clock, DesireStore, Notify
from gatewayd.services.pushable import Wanted
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

# A device that came back is left alone for up to this long, so that a fleet does not ask for everything in one moment.
_SETTLE_S = 2.0

# A slot that shows an accepted version so was read before the device took it for good.
_BEFORE_ACCEPTED = (SlotState.STAGING, SlotState.TRIAL)

_Key = tuple[DeviceId, ModelName]

Wishes = tuple[Terms, tuple[Desire, ...]]
"""A device's terms, and what is wanted there."""


@record
class DesirePorts:
    """What this service needs from outside; `wall_clock` gives seconds since 1970, `chance` numbers of 0..1."""

    store: DesireStore
    notify: Notify
    clock: Clock
    wall_clock: Clock
    chance: Callable[[], float]


class Desires:
    """Every wish (one per device and model) and the terms of every device."""

    def __init__(self, ports: DesirePorts, *, tracking: Tracking, retry: Retry) -> None:
        self._ports = ports
        self._tracking = tracking
        self._retry = retry
        self._desires: dict[DeviceId, dict[ModelName, Desire]] = {}
        self._terms: dict[DeviceId, Terms] = {}
        # When a wish is looked at next; a later entry replaces an earlier one, whose place in the heap is then void.
        self._due_s: dict[_Key, float] = {}
        self._heap: list[tuple[float, DeviceId, ModelName]] = []
        # Versions that devices accepted, and have not reported since what they hold: over a lossy link that takes a while.
        self._accepted: dict[_Key, int] = {}

    async def load(self) -> None:
        """Read what was wanted before; call once, after the devices are loaded and before links start."""
        for desire in await self._ports.store.load_desires():
            self._desires.setdefault(desire.device, {})[desire.model] = desire
            self._show(desire)
        for terms in await self._ports.store.load_terms():
            self._terms[terms.device] = terms

    def terms(self, device: DeviceId) -> Terms:
        """Return on which terms the device is pushed to."""
        return self._terms.get(device, Terms(device))

    def of_device(self, device: DeviceId) -> tuple[Desire, ...]:
        """Return what is wanted there."""
        return tuple(self._desires.get(device, {}).values())

    def wish(self, device: DeviceId, model: ModelName) -> Desire | None:
        """Return what is wanted of a model there."""
        return self._find((device, model))

    def gives_way_to(self, desire: Desire) -> ModelName | None:
        """Return the model that still gives way to a wish: not one that was wished for since, nor a pin when nobody asked."""
        other = self._find((desire.device, desire.instead_of)) if desire.instead_of is not None else None
        is_pinned = other is not None and other.who != PLACEMENT and desire.who == PLACEMENT
        is_newer = other is not None and other.wished_at > desire.wished_at
        return None if is_pinned or is_newer else desire.instead_of

    async def want(
        self,
        device: DeviceId,
        model: ModelName,
        version: int,
        *,
        who: str,
        downgrade: bool,
        instead_of: ModelName | None = None,
    ) -> None:
        """Wish for a version: the count of failures starts anew."""
        wished_at = self._ports.wall_clock()
        await self._keep(Desire(device, model, version, who, wished_at, downgrade, instead_of=instead_of))

    async def wish_for(self, plan: Wanted, *, who: str) -> None:
        """Wish for what is about to be pushed, on its terms."""
        leaving = plan.instead_of.model if plan.instead_of is not None else None
        model, version = plan.version.model, plan.version.number
        await self.want(plan.device, model, version, who=who, downgrade=plan.replaces > 0, instead_of=leaving)

    def wish_behind(self, push: Push) -> Desire | None:
        """Return what the push is for; None when nobody wished for it, or for another version by now."""
        desire = self._find((push.device, push.model))
        return None if desire is None or desire.version != push.version else desire

    async def withdraw(self, push: Push) -> None:
        """Somebody cancelled the push: what it was for is wanted no more."""
        if self.wish_behind(push) is None:
            return
        self.unwish(push.device, push.model)
        await self._ports.store.drop_desire(push.device, push.model)

    def unwish(self, device: DeviceId, model: ModelName) -> None:
        """Keep nothing in memory of a wish whose row is gone, or goes with what is being stored."""
        self._desires.get(device, {}).pop(model, None)
        self._due_s.pop((device, model), None)
        self._accepted.pop((device, model), None)
        self._tracking.unwant(device, model)

    def withdraw_all(self, device: DeviceId) -> None:
        """What was wanted there was dropped from the store: want nothing of it any more. The terms stay."""
        for model in self._desires.pop(device, {}):
            self._due_s.pop((device, model), None)
            self._accepted.pop((device, model), None)
            self._tracking.unwant(device, model)

    def forget(self, device: DeviceId) -> None:
        """The device's rows are gone: keep nothing of it in memory either."""
        self.withdraw_all(device)
        self._terms.pop(device, None)

    async def ended(self, push: Push) -> None:
        """Take a push's end: count it, plan what follows, and see to what else is wanted on the device."""
        self._gave_way(push)
        before, key = self.terms(push.device), (push.device, push.model)
        wish = self._find(key)
        after = after_end(push, wish, before, retry=self._retry, jitter=self._ports.chance())
        if after.desire is not None:
            self._remember(after.desire)
            self._await_report(push)
        self._set_terms(after.terms)
        if after.again_in_s is not None:
            pairs = {"id": push.id, "device": push.device, "again_in_s": f"{after.again_in_s:.1f}"}
            logger.info("push failed", extra={"fields": pairs})
            self._plan(key, self._ports.clock() + after.again_in_s)
        self.look_at(push.device)
        try:
            if after.desire is not None and after.desire != wish:
                await self._ports.store.save_desire(after.desire)
            if after.terms != before:
                await self._ports.store.save_terms(after.terms)
        except NotStored as error:
            # what was counted holds until a restart; the push's own end is in the journal
            pairs = {"id": push.id, "reason": str(error)}
            logger.error("push's aftermath not stored", extra={"fields": pairs})  # noqa: TRY400 - says all

    def _gave_way(self, push: Push) -> None:
        """What left for an accepted model is wanted no more: its row went with the push's last one."""
        gone = push.instead_of if push.state is PushState.ACCEPTED else None
        wish = self._find((push.device, gone.model)) if gone is not None else None
        if wish is not None and wish.wished_at <= push.started_at:
            self.unwish(push.device, wish.model)

    def _await_report(self, push: Push) -> None:
        """What a device accepted is there until its next report says otherwise; what it reported last may be older."""
        view = self._view(push.device)
        slots = view.report.slots if view is not None and view.report is not None else ()
        if push.state is PushState.ACCEPTED and not _shows(slots, push.model, push.version, (SlotState.ACTIVE,)):
            self._accepted[push.device, push.model] = push.version

    def has_accepted(self, plan: Wanted) -> bool:
        """Return whether the device has taken the version for good, and is still to report that it runs it."""
        return self._accepted.get((plan.device, plan.version.model)) == plan.version.number

    def reported(self, device: DeviceId, slots: Sequence[Slot]) -> None:
        """The device says what it holds: that counts from now on, and is compared with what is wanted."""
        for model in self._desires.get(device, {}):
            version = self._accepted.get((device, model))
            if version is not None and not _shows(slots, model, version, _BEFORE_ACCEPTED):
                del self._accepted[device, model]
        self.look_at(device)

    def look_at(self, device: DeviceId) -> None:
        """The device is there: see soon to every wish it does not meet; a pause that runs goes on."""
        for model in self._desires.get(device, {}):
            if (device, model) not in self._due_s:
                self._plan((device, model), self._ports.clock() + _SETTLE_S * self._ports.chance())

    def due(self) -> tuple[Desire, ...]:
        """Return the wishes whose time has come and that can be tried now; each is returned once."""
        found = []
        while self._heap and self._heap[0][0] <= self._ports.clock():
            due_s, device, model = heapq.heappop(self._heap)
            if self._due_s.get((device, model)) != due_s:
                continue
            del self._due_s[device, model]
            desire = self._find((device, model))
            if desire is not None and not self._obstacle(desire):
                found.append(desire)
        return tuple(found)

    def is_planned(self, desire: Desire) -> bool:
        """Return whether it will be looked at again by itself."""
        return (desire.device, desire.model) in self._due_s

    def postpone(self, desire: Desire) -> None:
        """It could not be tried after all: look again after a pause."""
        pause = pause_s(desire.failures + 1, retry=self._retry, jitter=self._ports.chance())
        self._plan((desire.device, desire.model), self._ports.clock() + pause)

    async def settle(self, desire: Desire, why: str) -> None:
        """Try it no more. Raises: NotStored."""
        await self._keep(replace(desire, settled=why))

    async def release(self, device: DeviceId, *, note_of: Note[Wishes] | None = None) -> Terms:
        """Let a quarantined device be pushed to again, and what was given up there be tried anew. Raises: UnknownDevice."""
        self._tracking.device(device)
        desires = tuple(replace(desire, failures=0, settled="") for desire in self.of_device(device))
        for desire in desires:
            await self._keep(desire)
        terms = replace(self.terms(device), failures=0, quarantine="")
        await self._keep_terms(terms, note_of and note_of((terms, desires)))
        self.look_at(device)
        return self.terms(device)

    async def allow_one_slot(self, device: DeviceId, *, allowed: bool, note_of: Note[Wishes] | None = None) -> Terms:
        """Allow (or forbid) pushes to a device with a single slot. Raises: UnknownDevice."""
        self._tracking.device(device)
        terms = replace(self.terms(device), one_slot=allowed)
        await self._keep_terms(terms, note_of and note_of((terms, self.of_device(device))))
        return self.terms(device)

    def _find(self, key: _Key) -> Desire | None:
        return self._desires.get(key[0], {}).get(key[1])

    def _obstacle(self, desire: Desire) -> str:
        if self._accepted.get((desire.device, desire.model)) == desire.version:
            return "the device accepted it, and is to report it"  # which leads here again
        view = self._view(desire.device)
        return obstacle(desire, self.terms(desire.device), view) if view is not None else "no such device"

    def _view(self, device: DeviceId) -> DeviceView | None:
        try:
            return self._tracking.device(device)
        except UnknownDevice:
            return None

    def _plan(self, key: _Key, due_s: float) -> None:
        self._due_s[key] = due_s
        heapq.heappush(self._heap, (due_s, *key))
        if len(self._heap) > 2 * len(self._due_s) + 16:
            self._heap = [(due, *each) for each, due in self._due_s.items()]
            heapq.heapify(self._heap)

    async def _keep(self, desire: Desire) -> None:
        await self._ports.store.save_desire(desire)
        self._remember(desire)

    def _remember(self, desire: Desire) -> None:
        self._desires.setdefault(desire.device, {})[desire.model] = desire
        self._show(desire)

    async def _keep_terms(self, terms: Terms, record: Record | None) -> None:
        await self._ports.store.noting(record).save_terms(terms)
        self._set_terms(terms)

    def _set_terms(self, terms: Terms) -> None:
        before = self.terms(terms.device)
        self._terms[terms.device] = terms
        if terms.quarantine != before.quarantine:
            what = f"quarantined: {terms.quarantine}" if terms.quarantine else "released from quarantine"
            logger.warning("device's quarantine", extra={"fields": {"device": terms.device, "what": what}})
            view = self._view(terms.device)
            self._ports.notify(DeviceChanged(terms.device, view is not None and view.online, what))

    def _show(self, desire: Desire) -> None:
        if self._view(desire.device) is not None:
            self._tracking.want(desire.device, model=desire.model, version=desire.version)


def _shows(slots: Sequence[Slot], model: ModelName, version: int, states: Collection[SlotState]) -> bool:
    return any((slot.model, slot.version) == (model, version) and slot.state in states for slot in slots)
