"""A Software Management instance (/9) as a slot: one row for each stage, one column for what it shows.

A 2.04 proves nothing, only the state does; installed is deactivated until /12 says otherwise; nothing is uninstalled that was not
seen inactive. Source: OMA LwM2M Software Management 1.0.3, section 6.1, and what clients in the field do (docs/lwm2m.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from math import inf

from gatewayd.core.device import PushPhase
from gatewayd.links.lwm2m import slots_transfer as transfer
from gatewayd.links.lwm2m.slot_terms import (
    Action,
    Activate,
    Answered,
    Course,
    Deactivate,
    Install,
    Look,
    Now,
    Reset,
    Stage,
    Turn,
    Uninstall,
    asked_again,
    code_text,
    entered,
    failed,
    refused,
    told,
    unheard,
)
from gatewayd.wire.lwm2m.states import Software, SoftwareResult, SoftwareState


class Sight(Enum):
    """What an instance looks like. FAILURE: a result that says so and was not there before; IN_USE: active, yet not installed."""

    EMPTY = "empty"
    STARTED = "download started"
    DOWNLOADED = "downloaded"
    DELIVERED = "delivered"
    INSTALLED = "installed"
    ACTIVE = "active"
    FAILURE = "failure"
    IN_USE = "in use"


_BY_STATE = (Sight.EMPTY, Sight.STARTED, Sight.DOWNLOADED, Sight.DELIVERED, Sight.INSTALLED)
_Rule = Callable[[Course, Software, Now], Turn]
# The ways of emptying an instance, by what it holds. The last of a fresh download is to write nonetheless: some clients start
# in state 1 and take a package there.
_UNINSTALL, _RESET, _NONETHELESS = "uninstall", "reset", "nonetheless"
_CLEARING: Mapping[Sight, tuple[str, ...]] = {
    Sight.STARTED: (_RESET, _UNINSTALL, _NONETHELESS),
    Sight.DOWNLOADED: (_RESET, _UNINSTALL),
    Sight.DELIVERED: (_UNINSTALL, _RESET),
    Sight.INSTALLED: (_UNINSTALL,),
}


def sight_of(course: Course, values: Software) -> Sight:
    """Classify what an instance shows, in a course that asked for something when its result was `baseline`."""
    if SoftwareResult.is_failure(values.result) and values.result != course.baseline:
        return Sight.FAILURE
    if values.is_active:
        return Sight.ACTIVE if values.state is SoftwareState.INSTALLED else Sight.IN_USE
    return _BY_STATE[values.state]


def seen(course: Course, values: Software, now: Now) -> Turn:
    """Take what the instance holds."""
    sight = sight_of(course, values)
    rule = _TABLE[course.stage, sight]
    baseline = course.baseline if SoftwareResult.is_failure(values.result) else values.result
    course = replace(course, seen=values, baseline=baseline)
    if sight is not Sight.FAILURE and course.stage in _GROWING:
        if values.state < course.peak:
            return _went_back(course, values, now)
        course = replace(course, peak=int(values.state))
    return rule(course, values, now)


def begin(course: Course, now: Now) -> Turn:
    """Begin, as soon as it is known what the instance holds."""
    course = replace(course, rung=0)
    if isinstance(course.seen, Software):
        return _start(course, course.seen, now)
    return _look(course, now)


def activate(course: Course, now: Now) -> Turn:
    """Let the installed package run."""
    if course.stage is not Stage.INSTALLED or not isinstance(course.seen, Software):
        return Turn(course)
    activating = entered(course, Stage.ACTIVATING, now)
    if course.seen.is_active:
        return _active(activating, course.seen, now)
    return Turn(activating, actions=(Activate(course.goal.instance),))


def answered(course: Course, heard: Answered, now: Now) -> Turn:
    """Take an answer to an action. Success proves nothing; a refusal leads on where there is something else to try."""
    found = transfer.answered(course, heard, now, restarted)
    if found is not None:
        return found
    is_execute = course.stage in {Stage.INSTALLING, Stage.ACTIVATING} and isinstance(heard.action, Install | Activate)
    if heard.code is None:
        return unheard(course) if is_execute else Turn(course)
    if heard.code[0] == 2:  # noqa: PLR2004 - the class of success
        return Turn(course)
    if course.stage is Stage.CLEARING and isinstance(heard.action, Uninstall | Reset):
        return _next_rung(course, now)
    return refused(course, heard.code, now) if is_execute else Turn(course)


def late(course: Course, now: Now) -> Turn:
    """Take a deadline that is over."""
    match course.stage:
        case Stage.OFFERED:
            return failed(course, f"/9/{course.goal.instance} does not say its state")
        case Stage.CLEARING:
            return _next_rung(course, now)
        case Stage.TRANSFERRING:
            return transfer.otherwise(course, "nothing of the package came for too long", now, restarted)
        case Stage.ACTIVATING:
            return rollback(course, _not_running(course))
    return failed(course, f"stuck in {_state_text(course)}{_refusal(course)}")


def rollback(course: Course, reason: str) -> Turn:
    """Give up a package that may run already: it is switched off, and the one before it on."""
    actions: list[Action] = [Deactivate(course.goal.instance)]
    if course.goal.old is not None:
        actions.append(Activate(course.goal.old))
    return failed(course, reason, *actions)


def restarted(course: Course, now: Now) -> Turn:
    """Start the transfer over, from an empty instance: what was begun, and what is held, does not count any more."""
    return _look(replace(course, rung=0, goal=replace(course.goal, is_held=False)), now)


def _look(course: Course, now: Now) -> Turn:
    return Turn(entered(course, Stage.OFFERED, now), actions=(Look(course.goal.instance),))


def _start(course: Course, values: Software, now: Now) -> Turn:
    """Go on with what is there when it is this push's, else empty the instance. A result from before says nothing of it."""
    course = replace(course, baseline=values.result)
    is_held = course.goal.is_held and not SoftwareResult.is_failure(values.result) and _other(course, values) is None
    if is_held and values.state is SoftwareState.INSTALLED and values.is_active:
        return _ended_well(course, PushPhase.TESTED, PushPhase.TRIAL, PushPhase.ACCEPTED)
    if is_held and values.state >= SoftwareState.DELIVERED and not values.is_active:
        return seen(entered(replace(course, peak=0), Stage.WRITTEN, now), values, now)
    return _empty_it(course, values, now)


def _empty_it(course: Course, values: Software, now: Now) -> Turn:
    """Transfer into an empty instance, else try to empty it. Only what was seen inactive just now is uninstalled, and is ours."""
    if values.is_active:
        return _in_use(course, values, now)
    sight = _BY_STATE[values.state]
    if not course.goal.may_clear and sight not in {Sight.EMPTY, Sight.STARTED}:
        return failed(course, not_ours(values))
    rungs = _CLEARING.get(sight, ()) if course.goal.may_clear else (_RESET, _NONETHELESS)
    if sight is not Sight.EMPTY and course.rung >= len(rungs):
        return failed(course, f"it could not be emptied, it stays in {_state_text(course)}")
    step = _NONETHELESS if sight is Sight.EMPTY else rungs[course.rung]
    if step == _NONETHELESS:
        return transfer.begin(course, now, after_s=transfer.pause_s(course, now))
    action = Uninstall(course.goal.instance) if step == _UNINSTALL else Reset(course.goal.instance)
    return Turn(entered(course, Stage.CLEARING, now), actions=(action,))


def not_ours(values: Software) -> str:
    """Return why an instance is left alone, and what to do about it."""
    what = f"{values.name[:60]!r} {values.version[:60]!r}" if values.name or values.version else "something"
    return (
        f"/9/{values.instance} holds {what}, which gatewayd did not put there: uninstall it, or name the instance under "
        "`instances` of the board's profile if it is for models"
    )


def _next_rung(course: Course, now: Now) -> Turn:
    """Try the next way of emptying it, after another look: what was seen may be of long ago."""
    return _look(replace(course, rung=course.rung + 1), now)


def _wait(course: Course, _: Software, __: Now) -> Turn:
    return Turn(course)


def _repeat(course: Course, _: Software, __: Now) -> Turn:
    """Nothing happened yet; what was not answered may not have been heard."""
    execute = Install if course.stage is Stage.INSTALLING else Activate
    return asked_again(course, execute(course.goal.instance))


def _in_use(course: Course, _: Software, __: Now) -> Turn:
    return failed(course, f"/9/{course.goal.instance} is active, and what is active is not taken away")


def _not_cleared(course: Course, _: Software, now: Now) -> Turn:
    return _next_rung(course, now)


def _transfer_failed(course: Course, values: Software, now: Now) -> Turn:
    """Some failures are of the way (an address it cannot use, a connection it lost), others of the package."""
    if values.result in _OF_THE_WAY:
        return transfer.otherwise(course, _result_text(values), now, restarted)
    return failed(course, _result_text(values))


def _downloaded(course: Course, _: Software, now: Now) -> Turn:
    if course.stage is Stage.TRANSFERRING:
        course = entered(course, Stage.WRITTEN, now)
    return told(course, PushPhase.WRITTEN)


def _delivered(course: Course, values: Software, now: Now) -> Turn:
    """Whole and checked by the device. What it says of name and version may still be of the package before."""
    turn = told(course, PushPhase.WRITTEN, PushPhase.VERIFIED)
    installing = entered(turn.course, Stage.INSTALLING, now, baseline=values.result)
    return replace(turn, course=installing, actions=(Install(course.goal.instance),))


def _installed(course: Course, values: Software, now: Now) -> Turn:
    """Installed, by us or by itself; never switched on when it is something else than what was sent."""
    if (other := _other(course, values)) is not None:
        return rollback(course, other) if values.is_active else failed(course, other)
    before = () if course.stage is Stage.INSTALLING else (PushPhase.WRITTEN, PushPhase.VERIFIED)
    return told(entered(course, Stage.INSTALLED, now, baseline=values.result), *before, PushPhase.TESTED)


def _active(course: Course, values: Software, _: Now) -> Turn:
    """Running: the end of it, when the result says installed and the version is the one that was sent."""
    if (other := _other(course, values)) is not None:
        return rollback(course, other)
    if values.result != SoftwareResult.INSTALLED:
        return Turn(course)
    return _ended_well(course, PushPhase.TRIAL, PushPhase.ACCEPTED)


def _ended_well(course: Course, *phases: PushPhase) -> Turn:
    """End; what it replaces is switched off now, and stays there until its instance is needed."""
    turn = told(course, *phases)
    actions = () if course.goal.old is None else (Deactivate(course.goal.old),)
    return replace(turn, course=replace(turn.course, stage=Stage.ENDED, deadline_s=inf), actions=actions)


def _went_back(course: Course, _: Software, __: Now) -> Turn:
    reason = f"it went back to {_state_text(course)}"
    return rollback(course, reason) if course.stage is Stage.ACTIVATING else failed(course, reason)


def _failure(course: Course, values: Software, _: Now) -> Turn:
    return failed(course, _result_text(values))


def _failure_running(course: Course, values: Software, _: Now) -> Turn:
    return rollback(course, _result_text(values))


def _other(course: Course, values: Software) -> str | None:
    """Return in words that the instance holds something else than what was sent, None where it does not."""
    goal = course.goal
    told_name, told_version = values.name or goal.model, values.version or str(goal.version)
    if (told_name, told_version) != (goal.model, str(goal.version)):
        return f"it holds {values.name[:60]!r} {values.version[:60]!r}, not {goal.model} {goal.version}"
    is_silent = not (values.name and values.version)
    if is_silent and goal.tells_version and values.state is SoftwareState.INSTALLED:
        return f"it does not say what it installed; {goal.model} {goal.version} was sent"
    return None


def _state_text(course: Course) -> str:
    values = course.seen
    return f"state {int(values.state)}" if isinstance(values, Software) else "an unknown state"


def _not_running(course: Course) -> str:
    if isinstance(course.seen, Software) and course.seen.is_active:
        return f"it runs, but its result is {course.seen.result}, not {int(SoftwareResult.INSTALLED)} (installed)"
    return f"it does not run{_refusal(course)}"


def _refusal(course: Course) -> str:
    return "" if course.refused is None else f" (it refused with {code_text(course.refused)})"


def _result_text(values: Software) -> str:
    known = {each.value: each.name.lower().replace("_", " ") for each in SoftwareResult}
    return f"the device reports result {values.result} ({known.get(values.result, 'unknown')})"


_OF_THE_WAY = frozenset({SoftwareResult.NO_MEMORY, SoftwareResult.CONNECTION_LOST, SoftwareResult.INVALID_URI})
_GROWING = frozenset({Stage.WRITTEN, Stage.INSTALLING, Stage.INSTALLED})
"""Stages in which a state lower than one before means that the device gave the package up."""
_COLUMNS = tuple(Sight)
_ROWS: Mapping[Stage, tuple[_Rule, ...]] = {
    #                     empty       started     downloaded   delivered   installed   active      failure           in use
    Stage.NEW:          (_wait,      _wait,      _wait,       _wait,      _wait,      _wait,      _wait,            _wait),
    Stage.OFFERED:      (_start,     _start,     _start,      _start,     _start,     _start,     _start,           _in_use),
    Stage.CLEARING:     (_empty_it,  _wait,      _wait,       _wait,      _wait,      _in_use,    _not_cleared,     _in_use),
    Stage.TRANSFERRING: (_wait,      _wait,      _downloaded, _delivered, _installed, _installed, _transfer_failed, _wait),
    Stage.WRITTEN:      (_wait,      _wait,      _downloaded, _delivered, _installed, _installed, _failure,         _wait),
    Stage.INSTALLING:   (_went_back, _went_back, _went_back,  _repeat,    _installed, _installed, _failure,         _wait),
    Stage.INSTALLED:    (_went_back, _went_back, _went_back,  _went_back, _wait,      _wait,      _failure,         _wait),
    Stage.ACTIVATING:   (_went_back, _went_back, _went_back,  _went_back, _repeat,    _active,    _failure_running, _wait),
    Stage.ENDED:        (_wait,      _wait,      _wait,       _wait,      _wait,      _wait,      _wait,            _wait),
}  # fmt: skip
_TABLE: Mapping[tuple[Stage, Sight], _Rule] = {
    (stage, sight): rule for stage, row in _ROWS.items() for sight, rule in zip(_COLUMNS, row, strict=True)
}
