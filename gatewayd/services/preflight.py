"""Whether a version runs on a device, answered before a byte is sent, and better with every device that shows what it can.

Reads the catalog and the devices; what it learns is in memory only: devices show it again within minutes of a restart.
"""

import re
from collections.abc import Sequence

from gatewayd.core.arena_need import Beliefs, RuntimeKind
from gatewayd.core.device import Born, Capabilities, DeviceEvent, Inferred, Lost, PushPhase, PushReport, SlotState
from gatewayd.core.errors import UnknownDevice, UnknownModel
from gatewayd.core.fit import Finding, Fit, findings, fit, preprocessing_remark, room_for
from gatewayd.core.model import Variant, Version
from gatewayd.core.names import DeviceId, ModelRef
from gatewayd.core.record import record
from gatewayd.core.update import Push
from gatewayd.services.catalog import Catalog, variant_of
from gatewayd.services.tracking import Tracking

# The words of a runtime, or of an agent, that could not place a model in its arena.
_ARENA = re.compile(r"arena|allocat|tail memory|temp memory|resize buffer|out of memory", re.IGNORECASE)
# Bounds memory, at about 0.5 KB each.
MAX_FITS = 4096
_RAN = {PushPhase.TESTED, PushPhase.TRIAL, PushPhase.ACCEPTED}
_REFUSED = {PushPhase.REJECTED, PushPhase.FAILED}


@record
class Check:
    """One device against one version. `room` says why no slot is free ("": one is); `remark` is no obstacle.

    `findings` is empty when the device never reported; `approved` and `online` say whether it could be pushed to now.
    """

    device: DeviceId
    approved: bool
    online: bool
    findings: tuple[Finding, ...]
    chosen: Variant | None
    room: str
    remark: str

    @property
    def runs(self) -> bool:
        """Whether a variant would run there and has room."""
        return self.chosen is not None and not self.room


class Fits:
    """What was found with the same beliefs before: a request by reference asks twice, and versions and reports do not change."""

    def __init__(self, beliefs: Beliefs) -> None:
        self.beliefs = beliefs
        # By identity, which costs a tenth of comparing; the values keep what the keys name alive.
        self._found: dict[tuple[int, int], tuple[Version, Capabilities, Fit]] = {}

    def fit(self, version: Version, capabilities: Capabilities) -> Fit:
        """Return what was found before, or find out."""
        key = id(version), id(capabilities)
        known = self._found.get(key)
        if known is None:
            if len(self._found) >= MAX_FITS:
                self._found.clear()
            known = self._found[key] = version, capabilities, fit(version, capabilities, self.beliefs)
        return known[2]


class Preflight:
    """The answers, and the lessons behind them."""

    def __init__(self, *, catalog: Catalog, tracking: Tracking) -> None:
        self._catalog = catalog
        self._tracking = tracking
        self._beliefs = Beliefs()
        self._fits = Fits(self._beliefs)

    def fit(self, version: Version, capabilities: Capabilities) -> Fit:
        """Choose the variant that suits the device best, with everything learned so far."""
        if self._fits.beliefs is not self._beliefs:
            self._fits = Fits(self._beliefs)
        return self._fits.fit(version, capabilities)

    def check(self, ref: ModelRef, device: DeviceId | None) -> tuple[Version, tuple[Check, ...]]:
        """Hold the version against one device, or (None) against every device. Raises: UnknownModel, UnknownDevice."""
        version = self._catalog.resolve(ref)
        views = self._tracking.devices() if device is None else (self._tracking.device(device),)
        checks = []
        for view in views:
            if view.report is None:
                checks.append(Check(view.id, view.approved, view.online, (), None, "", "has not reported yet"))
                continue
            told = view.report.capabilities
            checks.append(
                Check(
                    view.id,
                    view.approved,
                    view.online,
                    findings(version, told, self._beliefs),
                    self.fit(version, told).variant,
                    room_for(view.report.slots, version.model),
                    preprocessing_remark(version, told),
                )
            )
        return version, tuple(checks)

    def handle(self, event: DeviceEvent, live: Sequence[Push]) -> None:
        """Learn from what a link saw; `live` are the pushes that run. Never raises: a device may say anything."""
        match event:
            case Born():
                self._saw_slots(event)
            case PushReport() if event.phase in _RAN | _REFUSED:
                push = next((each for each in live if each.id == event.push and each.device == event.device), None)
                if push is not None:
                    self._saw_push(event, push)
            case Lost() | PushReport() | Inferred():
                pass

    def _saw_slots(self, event: Born) -> None:
        told = event.report.capabilities
        for slot in event.report.slots:
            if slot.state is SlotState.ACTIVE and slot.digest is not None:
                self._beliefs = self._beliefs.ran(RuntimeKind.of(told), slot.digest, arena_bytes=told.arena_bytes)

    def _saw_push(self, event: PushReport, push: Push) -> None:
        try:
            report = self._tracking.device(event.device).report
            variant = variant_of(self._catalog.resolve(ModelRef(push.model, version=push.version)), push.digest)
        except (UnknownDevice, UnknownModel):
            return
        if report is None:
            return
        told = report.capabilities
        kind = RuntimeKind.of(told)
        if event.phase in _RAN:
            self._beliefs = self._beliefs.ran(kind, variant.digest, arena_bytes=told.arena_bytes)
        elif _ARENA.search(event.reason):
            self._beliefs = self._beliefs.refused(kind, variant, arena_bytes=told.arena_bytes)
