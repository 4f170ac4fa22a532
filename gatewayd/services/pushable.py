"""Whether a version may be pushed to a device now: every reason against it, before a byte is sent. Reads values only."""

from dataclasses import dataclass

from gatewayd.core.compression import Decoder, decoder_of
from gatewayd.core.device import DeviceView, Report, SlotState
from gatewayd.core.errors import Conflict, Forbidden
from gatewayd.core.fit import Fitter, fit, room_for
from gatewayd.core.model import Variant, Version
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.retry import Terms, newest_version


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be pushed where. `replaces` is the newer version that it takes over from (0: none)."""

    device: DeviceId
    version: Version
    variant: Variant
    decoder: Decoder | None
    replaces: int

    @property
    def key(self) -> tuple[ModelName, int, Digest]:
        """What makes two pushes to a device the same."""
        return self.version.model, self.version.number, self.variant.digest


def wanted(view: DeviceView, version: Version, terms: Terms, *, downgrade: bool, fitter: Fitter = fit) -> Wanted:
    """Choose the variant for the device.

    Raises: Forbidden (not approved), Conflict (quarantined, offline, does not fit, no room, there already, older).
    """
    report = _report(view, terms)
    found = fitter(version, report.capabilities)
    if found.variant is None:
        raise Conflict(f"{version} does not fit on {view.id}: {'; '.join(found.reasons)}")
    if why := room_for(report.slots, version.model, one_slot=terms.one_slot):
        remedy = "; devices.one-slot allows it" if len(report.slots) == 1 and not terms.one_slot else ""
        raise Conflict(f"{version} has no room on {view.id}: {why}{remedy}")
    for slot in report.slots:
        is_same = (slot.model, slot.version, slot.digest) == (version.model, version.number, found.variant.digest)
        if slot.state is SlotState.ACTIVE and is_same:
            raise Conflict(f"{view.id} runs {version} already")
    newest = newest_version(report.slots, version.model)
    if newest > version.number and not downgrade:
        raise Conflict(
            f"{view.id} runs {version.model}@{newest}, which is newer: --allow-downgrade goes back on purpose"
        )
    replaces = newest if newest > version.number else 0
    return Wanted(view.id, version, found.variant, decoder_of(report.capabilities), replaces)


def _report(view: DeviceView, terms: Terms) -> Report:
    if not view.approved:
        raise Forbidden(f"device {view.id} waits for approval: approve it first (devices.approve)")
    if terms.quarantine:
        raise Conflict(f"device {view.id} is in quarantine: {terms.quarantine}; devices.release ends that")
    if not view.online or view.report is None:
        raise Conflict(f"device {view.id} is offline: push again when it is back")
    return view.report
