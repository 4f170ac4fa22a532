"""What is the same for every object that takes a package: how its transfer begins, breaks, changes its way and starts again.

Pure. A refusal that means "not this way" (4.05, 5.00 on a block, 4.13 ...) leads to the other way; one that means "lost the
thread" (4.08, 5.03, a reset, silence) to another start after a pause; both within bounds.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from gatewayd.links.lwm2m.slot_terms import (
    Action,
    Answered,
    BegunAnew,
    Code,
    Course,
    Look,
    Now,
    Progressed,
    Stage,
    TransferEnded,
    Turn,
    Way,
    WritePackage,
    WriteUri,
    code_text,
    entered,
    failed,
)

_SUCCESS = 2
_LOST_THE_THREAD: frozenset[Code | None] = frozenset({(4, 8), (5, 3), None})
Restart = Callable[[Course, Now], Turn]
"""How an object starts a transfer over: what was begun may have to be cleared away first."""


def begin(course: Course, now: Now, *, offset: int = 0, after_s: float = 0.0) -> Turn:
    """Start the transfer on the way whose turn it is."""
    ways, instance = course.goal.ways, course.goal.instance
    if course.way >= len(ways):
        return failed(course, "no way is left to bring the package there")
    way = ways[course.way]
    kind = WritePackage if way is Way.PUSH else WriteUri
    # From here on what it holds is what this push wrote.
    goal = replace(course.goal, may_clear=True)
    started = entered(replace(course, goal=goal, peak=0), Stage.TRANSFERRING, now)
    if way is Way.PULL and course.way + 1 < len(ways):
        started = replace(started, deadline_s=now.s + now.patience.fetch_s)
    started = replace(started, deadline_s=started.deadline_s + after_s)
    action: Action = kind(instance, offset, after_s)
    return Turn(started, actions=(action,))


def heard(course: Course, heard: TransferEnded | Progressed | BegunAnew, now: Now, restart: Restart) -> Turn:
    """Take what is heard of the transfer under way."""
    if course.stage is not Stage.TRANSFERRING:
        return Turn(course)
    match heard:
        case TransferEnded():
            return _ended(course, heard, now, restart)
        case Progressed():
            return Turn(entered(course, course.stage, now))
        case BegunAnew():
            return _begun_anew(course, now, restart)
        case _:
            assert_never(heard)


def _ended(course: Course, heard: TransferEnded, now: Now, restart: Restart) -> Turn:
    """All there, to be tried again, to be tried otherwise, or given up."""
    if heard.code is not None and heard.code[0] == _SUCCESS:
        return Turn(entered(course, Stage.WRITTEN, now), actions=(Look(course.goal.instance),))
    if heard.code in _LOST_THE_THREAD:
        return again(course, f"the transfer broke ({code_text(heard.code)})", now, restart)
    return otherwise(course, f"the package was refused with {code_text(heard.code)}", now, restart)


def again(course: Course, reason: str, now: Now, restart: Restart) -> Turn:
    """Start over on the same way within the budget, then on the other."""
    if course.restarts < now.patience.restarts:
        return restart(replace(course, restarts=course.restarts + 1), now)
    return otherwise(course, f"{reason} {course.restarts + 1} times", now, restart)


def _begun_anew(course: Course, now: Now, restart: Restart) -> Turn:
    """Another attempt, with its own time, within the same budget."""
    if course.restarts < now.patience.restarts:
        return Turn(entered(replace(course, restarts=course.restarts + 1), course.stage, now))
    return otherwise(course, f"the device began to fetch {course.restarts + 2} times", now, restart)


def otherwise(course: Course, reason: str, now: Now, restart: Restart) -> Turn:
    """Start over on the other way; without one, give up."""
    if course.way + 1 >= len(course.goal.ways):
        return failed(course, reason)
    return restart(replace(course, way=course.way + 1, restarts=0), now)


def answered(course: Course, heard: Answered, now: Now, restart: Restart) -> Turn | None:
    """Take the answer to an address written; None when it was another action's."""
    if not isinstance(heard.action, WriteUri | WritePackage):
        return None
    if course.stage is not Stage.TRANSFERRING or heard.code is None or heard.code[0] == _SUCCESS:
        return Turn(course)
    return otherwise(course, f"the package was refused with {code_text(heard.code)}", now, restart)


def pause_s(course: Course, now: Now) -> float:
    """Return how long to wait before this start: nothing before the first."""
    return now.patience.restart_pause_s * 2 ** (course.restarts - 1) if course.restarts else 0.0
