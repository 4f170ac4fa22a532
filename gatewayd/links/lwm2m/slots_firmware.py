"""The Firmware Update object (/5) as the only slot, where a profile says that it carries a model: there is no way back from it.

The device checks, installs and runs in one step, after which it restarts. Source: OMA LwM2M Core 1.1.1, appendix E.6.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from math import inf

from gatewayd.core.device import PushPhase
from gatewayd.links.lwm2m import slots_transfer as transfer
from gatewayd.links.lwm2m.slot_terms import (
    Action,
    Answered,
    Course,
    Install,
    Look,
    Now,
    Reset,
    Stage,
    StopTransfer,
    Turn,
    asked_again,
    code_text,
    entered,
    failed,
    refused,
    told,
    unheard,
)
from gatewayd.wire.lwm2m.states import Firmware, FirmwareState

_SUCCESS, _FIRST_FAILURE = 1, 2
_OF_THE_WAY = frozenset({3, 4, 7, 9})  # no memory for it, connection lost, address of no use, protocol not supported


class Sight(Enum):
    """What the object looks like. FAILURE: a result that says so and was not there before."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    UPDATING = "updating"
    FAILURE = "failure"


_BY_STATE = (Sight.IDLE, Sight.DOWNLOADING, Sight.DOWNLOADED, Sight.UPDATING)
_Rule = Callable[[Course, Firmware, Now], Turn]


def sight_of(course: Course, values: Firmware) -> Sight:
    """Classify what the object shows."""
    is_failure = values.result >= _FIRST_FAILURE and values.result != course.baseline
    return Sight.FAILURE if is_failure else _BY_STATE[values.state]


def seen(course: Course, values: Firmware, now: Now) -> Turn:
    """Take what the object holds."""
    rule = _TABLE[course.stage, sight_of(course, values)]
    baseline = course.baseline if values.result >= _FIRST_FAILURE else values.result
    return rule(replace(course, seen=values, baseline=baseline), values, now)


def begin(course: Course, now: Now) -> Turn:
    """Begin, as soon as it is known what the object holds."""
    course = replace(course, rung=0)
    return _start(course, course.seen, now) if isinstance(course.seen, Firmware) else _look(course, now)


def activate(course: Course, now: Now) -> Turn:
    """Have what was downloaded take over."""
    if course.stage is not Stage.INSTALLED:
        return Turn(course)
    return Turn(entered(course, Stage.ACTIVATING, now), actions=(Install(course.goal.instance),))


def cancel(course: Course) -> Turn:
    """Drop what was downloaded; what is being installed cannot be stopped."""
    actions: list[Action] = [StopTransfer()] if course.stage is Stage.TRANSFERRING else []
    if course.stage in {Stage.TRANSFERRING, Stage.WRITTEN, Stage.INSTALLED}:
        actions.append(Reset(course.goal.instance))
    return Turn(replace(course, stage=Stage.ENDED, deadline_s=inf), actions=tuple(actions))


def answered(course: Course, heard: Answered, now: Now) -> Turn:
    """Take an answer to an action; success proves nothing."""
    found = transfer.answered(course, heard, now, restarted)
    if found is not None:
        return found
    if course.stage is not Stage.ACTIVATING:
        return Turn(course)
    if heard.code is None:
        return unheard(course)
    return Turn(course) if heard.code[0] == 2 else refused(course, heard.code, now)  # noqa: PLR2004 - success


def late(course: Course, now: Now) -> Turn:
    """Take a deadline that is over."""
    match course.stage:
        case Stage.CLEARING:
            return _look(replace(course, rung=course.rung + 1), now)
        case Stage.TRANSFERRING:
            return transfer.otherwise(course, "nothing of the package came for too long", now, restarted)
    refusal = "" if course.refused is None else f" (it refused with {code_text(course.refused)})"
    return failed(course, f"/5/0 is stuck while {course.stage.value}{refusal}")


def restarted(course: Course, now: Now) -> Turn:
    """Start the transfer over, from an idle object."""
    return _look(replace(course, rung=0, goal=replace(course.goal, is_held=False)), now)


def _look(course: Course, now: Now) -> Turn:
    return Turn(entered(course, Stage.OFFERED, now), actions=(Look(course.goal.instance),))


def _start(course: Course, values: Firmware, now: Now) -> Turn:
    course = replace(course, baseline=values.result)
    if course.goal.is_held and values.state is FirmwareState.IDLE and _other(course, values) is None:
        return _ended_well(course, PushPhase.TESTED, PushPhase.TRIAL, PushPhase.ACCEPTED)
    if values.state is FirmwareState.IDLE:
        return transfer.begin(course, now, after_s=transfer.pause_s(course, now))
    if course.rung or values.state is FirmwareState.UPDATING:
        return failed(course, f"/5/0 is not free, it stays in state {int(values.state)}")
    return Turn(entered(course, Stage.CLEARING, now), actions=(Reset(course.goal.instance),))


def _wait(course: Course, _: Firmware, __: Now) -> Turn:
    return Turn(course)


def _repeat(course: Course, _: Firmware, __: Now) -> Turn:
    return asked_again(course, Install(course.goal.instance))


def _cleared(course: Course, values: Firmware, now: Now) -> Turn:
    """A reset may be told as a result of its own."""
    return _start(course, values, now) if values.state is FirmwareState.IDLE else Turn(course)


def _downloaded(course: Course, _: Firmware, now: Now) -> Turn:
    phases = (PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED)
    return told(entered(course, Stage.INSTALLED, now), *phases)


def _idle_again(course: Course, values: Firmware, now: Now) -> Turn:
    """It is through: with success when it says so, or (its result forgotten in the restart) when it runs what was sent."""
    other = _other(course, values)
    if values.result == _SUCCESS or (other is None and values.version):
        return failed(course, other) if other else _ended_well(course, PushPhase.TRIAL, PushPhase.ACCEPTED)
    return _wait(course, values, now)


def _gave_up(course: Course, values: Firmware, _: Now) -> Turn:
    return failed(course, f"/5/0 went back to state {int(values.state)}")


def _transfer_failed(course: Course, values: Firmware, now: Now) -> Turn:
    if values.result in _OF_THE_WAY:
        return transfer.otherwise(course, f"the device reports result {values.result}", now, restarted)
    return _failure(course, values, now)


def _failure(course: Course, values: Firmware, _: Now) -> Turn:
    return failed(course, f"the device reports result {values.result}")


def _ended_well(course: Course, *phases: PushPhase) -> Turn:
    return told(replace(course, stage=Stage.ENDED, deadline_s=inf), *phases)


def _other(course: Course, values: Firmware) -> str | None:
    goal = course.goal
    if not values.version:
        return "it does not say its version" if goal.tells_version else None
    is_other = values.version != str(goal.version) or (values.name not in {"", goal.model})
    return f"it runs {values.name[:60]!r} {values.version[:60]!r}" if is_other else None


_COLUMNS = tuple(Sight)
_ROWS: Mapping[Stage, tuple[_Rule, ...]] = {
    #                     idle          downloading  downloaded   updating  failure
    Stage.NEW:          (_wait,        _wait,       _wait,       _wait,    _wait),
    Stage.OFFERED:      (_start,       _start,      _start,      _start,   _start),
    Stage.CLEARING:     (_start,       _wait,       _wait,       _wait,    _cleared),
    Stage.TRANSFERRING: (_wait,        _wait,       _downloaded, _wait,    _transfer_failed),
    Stage.WRITTEN:      (_wait,        _wait,       _downloaded, _wait,    _failure),
    Stage.INSTALLED:    (_gave_up,     _gave_up,    _wait,       _wait,    _failure),
    Stage.ACTIVATING:   (_idle_again,  _wait,       _repeat,     _wait,    _failure),
    Stage.ENDED:        (_wait,        _wait,       _wait,       _wait,    _wait),
}  # fmt: skip
_TABLE: Mapping[tuple[Stage, Sight], _Rule] = {
    (stage, sight): rule for stage, row in _ROWS.items() for sight, rule in zip(_COLUMNS, row, strict=True)
}
