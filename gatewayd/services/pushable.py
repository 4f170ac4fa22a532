"""Whether a version may be pushed to a device now: every reason against it, before a byte is sent. Reads values only."""

from collections.abc import Sequence
from dataclasses import replace

from gatewayd.core.compression import Decoder, decoder_of
from gatewayd.core.device import DeviceView, Report, Slot, SlotState
from gatewayd.core.dropping import held_slot
from gatewayd.core.errors import Conflict, Forbidden
from gatewayd.core.fit import Fitter, fit, room_for
from gatewayd.core.model import Variant, Version
from gatewayd.core.module import Held
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.push import Push, PushState
from gatewayd.core.record import record
from gatewayd.core.retry import Terms, newest_version

# The push that brought a model is looked for among so many of its device; protects the store.
SEARCHED = 100


@record
class Wanted:
    """What is to be pushed where. `replaces` is the newer version that it takes over from (0: none).

    `instead_of` is the other model that gives way when the device accepts it (None: none has to); `is_there` says that the
    device runs exactly this already, so that nothing has to be sent.
    """

    device: DeviceId
    version: Version
    variant: Variant
    decoder: Decoder | None
    replaces: int
    instead_of: Held | None = None
    is_there: bool = False

    @property
    def key(self) -> tuple[ModelName, int, Digest, Held | None]:
        """What makes two pushes to a device the same."""
        return self.version.model, self.version.number, self.variant.digest, self.instead_of


def wanted(
    view: DeviceView,
    version: Version,
    terms: Terms,
    *,
    downgrade: bool,
    instead_of: ModelName | None = None,
    fitter: Fitter = fit,
) -> Wanted:
    """Choose the variant for the device. `instead_of`: a model that gives way to it, if it is there.

    Raises: Forbidden (not approved), Conflict (quarantined, offline, does not fit, no room, older, the device lets no model give
    way, or it runs the version already beside the model that is to give way).
    """
    report = _report(view, terms)
    found = fitter(version, report.capabilities)
    if found.variant is None:
        raise Conflict(f"{version} does not fit on {view.id}: {'; '.join(found.reasons)}")
    leaving = _leaving(view, report, version, instead_of)
    if _runs(report, version, found.variant):
        if leaving is not None:
            raise Conflict(
                f"{view.id} runs {version} already, beside {leaving.model}: devices.drop takes that one away"
            )
        return Wanted(view.id, version, found.variant, None, 0, is_there=True)
    _check_room(view, report, version, terms, leaving)
    newest = newest_version(report.slots, version.model)
    if newest > version.number and not downgrade:
        raise Conflict(
            f"{view.id} runs {version.model}@{newest}, which is newer: --allow-downgrade goes back on purpose"
        )
    replaces = newest if newest > version.number else 0
    return Wanted(view.id, version, found.variant, decoder_of(report.capabilities), replaces, leaving)


def _runs(report: Report, version: Version, variant: Variant) -> bool:
    what = (SlotState.ACTIVE, version.model, version.number, variant.digest)
    return any((slot.state, slot.model, slot.version, slot.digest) == what for slot in report.slots)


def _leaving(view: DeviceView, report: Report, version: Version, model: ModelName | None) -> Held | None:
    """Return the model that gives way, as it is there now; None when none is to, or it is gone already."""
    held = held_slot(report, model) if model is not None else None
    if held is None or held.model is None or held.version is None:
        return None
    if model == version.model:
        raise Conflict(f"{version} replaces another version of {model} by itself: it needs no model to give way")
    if not report.capabilities.drops_models:
        raise Conflict(f"{view.id} lets no model give way to another one: its agent has no drop")
    return Held(held.model, held.version)


def _check_room(view: DeviceView, report: Report, version: Version, terms: Terms, leaving: Held | None) -> None:
    """Raises: Conflict when there is none, with what makes some."""
    kept = tuple(Slot(each.index, SlotState.EMPTY) if _is(each, leaving) else each for each in report.slots)
    if why := room_for(kept, version.model, one_slot=terms.one_slot and leaving is None):
        remedies = {
            "; devices.one-slot allows it": len(report.slots) == 1 and not terms.one_slot,
            "; push it instead of one of them (--instead-of), or drop one (devices.drop)": (
                report.capabilities.drops_models and len(report.slots) > 1
            ),
        }
        remedy = next((each for each, helps in remedies.items() if helps), "")
        raise Conflict(f"{version} has no room on {view.id}: {why}{remedy}")


def _is(slot: Slot, held: Held | None) -> bool:
    return held is not None and (slot.model, slot.version) == (held.model, held.version)


def _report(view: DeviceView, terms: Terms) -> Report:
    if not view.approved:
        raise Forbidden(f"device {view.id} waits for approval: approve it first (devices.approve)")
    if terms.quarantine:
        raise Conflict(f"device {view.id} is in quarantine: {terms.quarantine}; devices.release ends that")
    if not view.online or view.report is None:
        raise Conflict(f"device {view.id} is offline: push again when it is back")
    return view.report


def push_behind(plan: Wanted, newest_first: Sequence[Push]) -> Push:
    """Return the push that brought what is there already; one with the number 0 when none is known (firmware came with it)."""
    for push in newest_first:
        is_same = (push.model, push.version, push.digest) == (
            plan.version.model,
            plan.version.number,
            plan.variant.digest,
        )
        if push.state is PushState.ACCEPTED and is_same:
            return replace(push, joined=True)
    return Push(
        id=PushId(0),
        device=plan.device,
        model=plan.version.model,
        version=plan.version.number,
        variant=plan.variant.name,
        digest=plan.variant.digest,
        size_bytes=plan.variant.size_bytes,
        state=PushState.ACCEPTED,
        deadline_s=0.0,
        offset=plan.variant.size_bytes,
        joined=True,
    )
