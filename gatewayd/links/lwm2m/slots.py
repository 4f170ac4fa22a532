"""From resource values to update events: the pure tables, one for each kind of client, behind one function.

`step` is told what is heard (values seen, answers, the engine's wishes, the time) and says what the engine is told and what the
device is asked next. It knows no sockets, no clock and no bytes. While a course is not over its driver

- reads the whole instance on `Look`, whenever a notification came, after each action's answer, and every few seconds (states
  are not always notified), and tells it as `Seen`;
- runs the transfer of `WritePackage` and `WriteUri`: asks the engine for bytes with WANT, tells `Progressed` and `TransferEnded`;
- tells `TimePassed` when `deadline_s` is over.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from math import inf
from typing import Protocol, assert_never

from gatewayd.core.device import SlotState
from gatewayd.core.names import Digest
from gatewayd.links.lwm2m import slots_firmware, slots_ours, slots_software, slots_transfer
from gatewayd.links.lwm2m.slot_terms import (
    AcceptWanted,
    Action,
    ActivateWanted,
    Answered,
    AskAgain,
    BegunAnew,
    CancelWanted,
    Course,
    Heard,
    Now,
    Offered,
    Progressed,
    Seen,
    Stage,
    StopTransfer,
    TimePassed,
    TransferEnded,
    Turn,
)
from gatewayd.wire.lwm2m.states import Firmware, ModelSlot, Software, SoftwareState


class Kind(Enum):
    """What carries a model on a device: our two objects beside /9, /9 alone, or /5."""

    ML_MODEL = "ml-model"
    SOFTWARE = "software"
    FIRMWARE = "firmware"


def step(kind: Kind, course: Course, heard: Heard, now: Now) -> Turn:
    """Return what was heard leads to. Never raises; an end stays one."""
    turn = Turn(course)
    match heard:
        case Seen(values):
            turn = _seen(kind, course, values, now)
        case Answered():
            turn = _TABLES[kind].answered(course, heard, now)
        case TransferEnded() | Progressed() | BegunAnew():
            turn = slots_transfer.heard(course, heard, now, _TABLES[kind].restarted)
        case Offered():
            turn = _offered(kind, course, now)
        case ActivateWanted():
            turn = _TABLES[kind].activate(course, now)
        case AcceptWanted():
            turn = slots_ours.accept(course, now) if kind is Kind.ML_MODEL else turn
        case CancelWanted():
            turn = _cancelled(kind, course)
        case TimePassed():
            turn = _TABLES[kind].late(course, now) if now.s >= course.deadline_s and not course.is_over else turn
        case _:
            assert_never(heard)
    return turn if kind is not Kind.ML_MODEL or course.is_over else slots_ours.with_cancel(turn, heard)


def choose_software(
    instances: Sequence[Software],
    allowed: Sequence[int] | None,
    *,
    ours: Collection[int] = (),
    holds: int | None = None,
) -> int | None:
    """Return the /9 instance that a push goes to, None when there is none: never one that is active.

    `allowed` are those that are for models; None: nobody said, so that only empty ones may be taken, and those that hold what the
    gateway wrote there (`ours`): standby software of somebody else is not to be had back. `holds` is the instance that was given
    this very package already. Empty ones first, then those with leftovers.
    """
    known = [each for each in instances if may_clear(each, allowed, ours) or (allowed is None and is_vacant(each))]
    if holds is not None and any(each.instance == holds for each in known):
        return holds
    free = [each for each in known if not each.is_active]
    free.sort(key=lambda each: (each.state is not SoftwareState.INITIAL, each.state, each.instance))
    return free[0].instance if free else None


def may_clear(software: Software, allowed: Sequence[int] | None, ours: Collection[int]) -> bool:
    """Return whether what an instance holds is the gateway's to take away (once it is not active)."""
    return software.instance in (ours if allowed is None else allowed)


def is_vacant(software: Software) -> bool:
    """Return whether nothing would be lost with an instance: it is empty, or in state 1 from boot on, as some clients are."""
    if software.is_active:
        return False
    is_fresh = software.state is SoftwareState.DOWNLOAD_STARTED and not (software.name or software.version)
    return software.state is SoftwareState.INITIAL or is_fresh


def choose_model(slots: Sequence[ModelSlot], digest: Digest, model: str = "") -> int | None:
    """Return the /26242 instance that a push goes to: one that holds it, else the one that is staging, else the first empty one.

    That is where the agent stages. The same bytes under another name than `model` are another model. A device with a single
    slot decides itself whether it gives that up. None: all run a model.
    """
    order = {SlotState.STAGING: 0, SlotState.EMPTY: 1}
    held = [each for each in slots if each.digest == digest and each.state is not SlotState.EMPTY]
    held = [each for each in held if model in {"", each.model}]
    free = sorted((each for each in slots if each.state in order), key=lambda each: (order[each.state], each.instance))
    chosen = next(iter([*held, *free]), None) or (slots[0] if len(slots) == 1 else None)
    return None if chosen is None else chosen.instance


class _Table(Protocol):
    def begin(self, course: Course, now: Now) -> Turn: ...

    def activate(self, course: Course, now: Now) -> Turn: ...

    def answered(self, course: Course, heard: Answered, now: Now) -> Turn: ...

    def late(self, course: Course, now: Now) -> Turn: ...

    def restarted(self, course: Course, now: Now) -> Turn: ...


_TABLES: Mapping[Kind, _Table] = {
    Kind.ML_MODEL: slots_ours,
    Kind.SOFTWARE: slots_software,
    Kind.FIRMWARE: slots_firmware,
}


def _seen(kind: Kind, course: Course, values: Software | Firmware | ModelSlot, now: Now) -> Turn:
    """Values of another object or instance are somebody else's."""
    instance = 0 if isinstance(values, Firmware) else values.instance
    if instance != course.goal.instance:
        return Turn(course)
    if kind is Kind.SOFTWARE and isinstance(values, Software):
        turn = slots_software.seen(course, values, now)
    elif kind is Kind.ML_MODEL and isinstance(values, ModelSlot):
        turn = slots_ours.seen(course, values, now)
    elif kind is Kind.FIRMWARE and isinstance(values, Firmware):
        turn = slots_firmware.seen(course, values, now)
    else:
        turn = Turn(course)
    if course.stage is Stage.NEW:
        turn = Turn(replace(course, seen=values))
    return turn


def _offered(kind: Kind, course: Course, now: Now) -> Turn:
    """A first offer begins; a later one asks where the device stands, and is answered with what was said last."""
    if course.stage is Stage.NEW or (kind is Kind.ML_MODEL and not course.is_over):
        return _TABLES[kind].begin(course, now)
    if course.stage is Stage.TRANSFERRING:
        return Turn(course, actions=(AskAgain(),))
    return Turn(course, () if course.said is None else (course.said,))


def _cancelled(kind: Kind, course: Course) -> Turn:
    if kind is Kind.ML_MODEL:
        return slots_ours.cancel(course)
    if kind is Kind.FIRMWARE:
        return slots_firmware.cancel(course)
    if course.stage is Stage.ACTIVATING:
        return replace(slots_software.rollback(course, "cancelled"), events=())
    actions: tuple[Action, ...] = (StopTransfer(),) if course.stage is Stage.TRANSFERRING else ()
    return Turn(replace(course, stage=Stage.ENDED, deadline_s=inf), actions=actions)
