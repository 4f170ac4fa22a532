"""A push that has ended, and the device's last word on it: pure.

What the device holds is the truth: an end that was called without it is corrected when the device says that it kept the model.
"""

from dataclasses import replace

from gatewayd.core.device import PushPhase, PushReport, Slot, SlotState
from gatewayd.core.push import DeviceBack, Event, Push, PushState, SendCancel, Step

# What a device can still drop or roll back when it says so after the push has ended here.
IN_PROGRESS = frozenset({PushPhase.WANT, PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED, PushPhase.TRIAL})
# A reason from a device ends up in the journal and on dashboards.
_MAX_REASON = 200


def after_the_end(push: Push, event: Event) -> Step:
    """Believe a device that kept the model; repeat the cancel to one that does not know yet.

    A device keeps a model only when it was told to. Its word may have been lost, or come after its time was over here.
    """
    if push.state is PushState.ACCEPTED:
        return Step(push)
    is_kept = isinstance(event, PushReport) and event.phase is PushPhase.ACCEPTED
    if is_kept or (isinstance(event, DeviceBack) and held_state(push, event.slots) is SlotState.ACTIVE):
        return Step(_corrected(push))
    is_reported = isinstance(event, PushReport) and event.phase in IN_PROGRESS
    is_held = isinstance(event, DeviceBack) and held_state(push, event.slots) is SlotState.TRIAL
    return Step(push, (SendCancel(push.reason),) if is_reported or is_held else ())


def _corrected(push: Push) -> Push:
    reason = f"the device reports that it kept the model; without its word this was {push.state.value}: {push.reason}"
    return replace(push, state=PushState.ACCEPTED, offset=push.size_bytes, reason=short(reason))


def held_state(push: Push, slots: tuple[Slot, ...]) -> SlotState | None:
    """Return what the slots say of the pushed version, the furthest of it; None: nothing."""
    wanted = (push.model, push.version, push.digest)
    states = {each.state for each in slots if (each.model, each.version, each.digest) == wanted}
    return next((state for state in (SlotState.ACTIVE, SlotState.TRIAL, SlotState.STAGING) if state in states), None)


def short(reason: str) -> str:
    """Return a reason cut to what a journal takes."""
    return reason if len(reason) <= _MAX_REASON else reason[: _MAX_REASON - 1] + "…"
