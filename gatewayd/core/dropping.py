"""Having a device let go a model: what is asked, when it may be asked, and what the device's own word makes of it. Pure.

A drop is journalled before it is asked for, and ends by the device's answer. Where no answer came, its next report decides.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from gatewayd.core.device import RUNNING, Report, Slot, SlotState
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.record import record


class DropState(Enum):
    """Where a drop stands. ASKED: nothing was heard yet; the others are ends.

    A FAILED one has no moment of its end while the device has not said what it holds: it may have carried it out.
    """

    ASKED = "asked"
    DROPPED = "dropped"
    REFUSED = "refused"
    FAILED = "failed"


@record
class Drop:
    """One model that a device is to let go, named by all it is known by, so that no other one is meant.

    `is_last` allows it to be the only one that runs there. `reason` says how it ended; times are in seconds since 1970.
    """

    device: DeviceId
    slot: int
    model: ModelName
    version: int
    digest: Digest
    is_last: bool
    who: str
    why: str
    asked_at: float
    id: int = 0
    state: DropState = DropState.ASKED
    reason: str = ""
    ended_at: float | None = None

    def ended(self, state: DropState, reason: str, *, at: float | None) -> "Drop":
        """Return it at its end; `at` None: what it came to is not known for sure."""
        return replace(self, state=state, reason=reason, ended_at=at)


def is_held(drop: Drop, slots: Sequence[Slot]) -> bool:
    """Return whether the device still shows the model."""
    named = (drop.model, drop.version, drop.digest)
    return any(slot.state in RUNNING and (slot.model, slot.version, slot.digest) == named for slot in slots)


def held_slot(report: Report, model: ModelName) -> Slot | None:
    """Return the slot where the model runs for good; a trial is a push's."""
    return next((slot for slot in report.slots if slot.state is SlotState.ACTIVE and slot.model == model), None)


def is_only(report: Report, model: ModelName) -> bool:
    """Return whether no other model runs there for good."""
    return not any(slot.state is SlotState.ACTIVE and slot.model not in {None, model} for slot in report.slots)
