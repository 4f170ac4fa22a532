"""An ML Model instance (/26242), with the /9 instance of the same number, as a slot.

The device speaks the engine's language, so what it says is passed on; the table decides what it is to be asked next.
Source: docs/lwm2m/26242.xml, docs/lwm2m.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from math import inf

from gatewayd.core.device import PushPhase
from gatewayd.links.lwm2m import slots_transfer as transfer
from gatewayd.links.lwm2m.slot_terms import (
    Accept,
    Action,
    Activate,
    Answered,
    Cancel,
    Course,
    Heard,
    Install,
    Now,
    Seen,
    Stage,
    StopTransfer,
    Turn,
    WriteOffer,
    also,
    asked_again,
    code_text,
    entered,
    failed,
    refused,
    told,
    unheard,
)
from gatewayd.wire.lwm2m.states import ModelSlot, Phase


class Sight(Enum):
    """What the device says of this push; GONE: nothing, or it speaks of another push (it restarted, or was told another)."""

    GONE = "gone"
    WANT = "want"
    WRITTEN = "written"
    VERIFIED = "verified"
    TESTED = "tested"
    TRIAL = "trial"
    ACCEPTED = "accepted"
    REFUSED = "refused"


_BUSY = (5, 3)
_ITS_ENDS = frozenset({Phase.REJECTED, Phase.FAILED})
_Rule = Callable[[Course, ModelSlot, Now], Turn]
_SIGHTS = {
    Phase.NONE: Sight.GONE, Phase.WANT: Sight.WANT, Phase.WRITTEN: Sight.WRITTEN, Phase.VERIFIED: Sight.VERIFIED,
    Phase.TESTED: Sight.TESTED, Phase.TRIAL: Sight.TRIAL, Phase.ACCEPTED: Sight.ACCEPTED, Phase.REJECTED: Sight.REFUSED,
    Phase.FAILED: Sight.REFUSED,
}  # fmt: skip


def sight_of(course: Course, values: ModelSlot) -> Sight:
    """Classify what an instance says."""
    return _SIGHTS[values.phase] if values.push == course.goal.push else Sight.GONE


def seen(course: Course, values: ModelSlot, now: Now) -> Turn:
    """Take what the instance says."""
    rule = _TABLE[course.stage, sight_of(course, values)]
    return rule(replace(course, seen=values), values, now)


def begin(course: Course, now: Now) -> Turn:
    """Offer; an offer may be repeated and means "where do you stand?", so all that was told before may be told again."""
    actions: list[Action] = [StopTransfer()] if course.stage is Stage.TRANSFERRING else []
    asked = replace(entered(course, Stage.OFFERED, now), said=None)
    return Turn(asked, actions=(*actions, WriteOffer(course.goal.instance)))


def activate(course: Course, now: Now) -> Turn:
    """Begin the trial."""
    if course.stage is not Stage.INSTALLED:
        return Turn(course)
    return Turn(entered(course, Stage.ACTIVATING, now), actions=(Activate(course.goal.instance),))


def accept(course: Course, now: Now) -> Turn:
    """End the trial well; may be repeated."""
    if course.stage is not Stage.TRIAL:
        return Turn(course)
    return Turn(entered(course, Stage.TRIAL, now), actions=(Accept(course.goal.instance),))


def cancel(course: Course) -> Turn:
    """Drop the push; said also to a device that does not know yet that it is over."""
    actions: list[Action] = [StopTransfer()] if course.stage is Stage.TRANSFERRING else []
    ended = replace(course, stage=Stage.ENDED, deadline_s=inf)
    return Turn(ended, actions=(*actions, Cancel(course.goal.instance)))


def answered(course: Course, heard: Answered, now: Now) -> Turn:
    """Take an answer to an action; what the device does is seen, not believed."""
    found = transfer.answered(course, heard, now, restarted)
    if found is not None:
        return found
    is_offer = course.stage is Stage.OFFERED and isinstance(heard.action, WriteOffer)
    is_execute = course.stage in {Stage.INSTALLING, Stage.ACTIVATING} and isinstance(heard.action, Install | Activate)
    if is_offer and heard.code in {None, _BUSY}:
        return Turn(replace(course, is_unheard=True))
    if heard.code is None:
        return unheard(course) if is_execute else Turn(course)
    if heard.code[0] == 2:  # noqa: PLR2004 - the class of success
        return Turn(course)
    if is_offer:
        return failed(course, f"the offer was refused with {code_text(heard.code)}")
    return refused(course, heard.code, now) if is_execute else Turn(course)


def late(course: Course, now: Now) -> Turn:
    """Take a deadline that is over."""
    if course.stage is Stage.TRANSFERRING:
        return transfer.otherwise(course, "nothing of the package came for too long", now, restarted)
    if course.stage is Stage.WRITTEN:
        return _again(course, "the device did not get all of it", now)
    refusal = "" if course.refused is None else f" (it refused with {code_text(course.refused)})"
    return failed(course, f"no answer while {course.stage.value}{refusal}")


def with_cancel(turn: Turn, heard: Heard) -> Turn:
    """Tell the device of an end that it did not call itself; otherwise it would wait for the rest until it restarts."""
    is_its_own = isinstance(heard, Seen) and isinstance(heard.values, ModelSlot) and heard.values.phase in _ITS_ENDS
    is_failed = any(each.phase is PushPhase.FAILED for each in turn.events)
    if is_its_own or not is_failed or any(isinstance(each, Cancel) for each in turn.actions):
        return turn
    return also(turn, Cancel(turn.course.goal.instance))


def restarted(course: Course, now: Now) -> Turn:
    """Ask where the device stands; it says from which byte on."""
    return begin(course, now)


def _wait(course: Course, _: ModelSlot, __: Now) -> Turn:
    return Turn(course)


def _reoffer(course: Course, _: ModelSlot, __: Now) -> Turn:
    return asked_again(course, WriteOffer(course.goal.instance))


def _repeat(course: Course, values: ModelSlot, now: Now) -> Turn:
    """Nothing happened yet; what was not answered may not have been heard."""
    turn = _tell(course, values, now) if course.stage is Stage.INSTALLING else Turn(course)
    execute = Install if course.stage is Stage.INSTALLING else Activate
    return replace(asked_again(turn.course, execute(course.goal.instance)), events=turn.events)


def _transfer(course: Course, values: ModelSlot, now: Now) -> Turn:
    """From the first byte it has not got, on either way: boards of ours take a write that begins there."""
    return transfer.begin(course, now, offset=values.offset, after_s=transfer.pause_s(course, now))


def _forgotten(course: Course, _: ModelSlot, now: Now) -> Turn:
    return _again(course, "the device forgot the push", now)


def _lost(course: Course, _: ModelSlot, now: Now) -> Turn:
    return _again(course, "the device lost bytes that it had", now)


def _again(course: Course, reason: str, now: Now) -> Turn:
    return transfer.again(course, reason, now, restarted)


def _install(course: Course, values: ModelSlot, now: Now) -> Turn:
    turn = told(course, PushPhase(values.phase.name.lower()))
    return replace(turn, course=entered(turn.course, Stage.INSTALLING, now), actions=(Install(course.goal.instance),))


def _tell(course: Course, values: ModelSlot, _: Now) -> Turn:
    return told(course, PushPhase(values.phase.name.lower()))


def _tested(course: Course, values: ModelSlot, now: Now) -> Turn:
    return _tell(entered(course, Stage.INSTALLED, now), values, now)


def _trial(course: Course, values: ModelSlot, now: Now) -> Turn:
    return _tell(entered(course, Stage.TRIAL, now), values, now)


def _accepted(course: Course, _: ModelSlot, __: Now) -> Turn:
    return told(replace(course, stage=Stage.ENDED, deadline_s=inf), PushPhase.ACCEPTED)


def _refused(course: Course, values: ModelSlot, _: Now) -> Turn:
    phase = PushPhase.REJECTED if values.phase is Phase.REJECTED else PushPhase.FAILED
    return told(replace(course, stage=Stage.ENDED, deadline_s=inf), phase, reason=values.reason)


_COLUMNS = tuple(Sight)
_ROWS: Mapping[Stage, tuple[_Rule, ...]] = {
    #                     gone         want       written    verified   tested    trial    accepted    refused
    Stage.NEW:          (_wait,      _wait,     _wait,     _wait,     _wait,    _wait,   _wait,      _wait),
    Stage.OFFERED:      (_reoffer,   _transfer, _install,  _install,  _tested,  _trial,  _accepted,  _refused),
    Stage.TRANSFERRING: (_forgotten, _wait,     _install,  _install,  _tested,  _trial,  _accepted,  _refused),
    Stage.WRITTEN:      (_forgotten, _wait,     _install,  _install,  _tested,  _trial,  _accepted,  _refused),
    Stage.INSTALLING:   (_forgotten, _lost,     _repeat,   _repeat,   _tested,  _trial,  _accepted,  _refused),
    Stage.INSTALLED:    (_forgotten, _lost,     _wait,     _wait,     _wait,    _trial,  _accepted,  _refused),
    Stage.ACTIVATING:   (_forgotten, _lost,     _wait,     _wait,     _repeat,  _trial,  _accepted,  _refused),
    Stage.TRIAL:        (_forgotten, _wait,     _wait,     _wait,     _wait,    _wait,   _accepted,  _refused),
    Stage.ENDED:        (_wait,      _wait,     _wait,     _wait,     _wait,    _wait,   _wait,      _wait),
}  # fmt: skip
_TABLE: Mapping[tuple[Stage, Sight], _Rule] = {
    (stage, sight): rule for stage, row in _ROWS.items() for sight, rule in zip(_COLUMNS, row, strict=True)
}
