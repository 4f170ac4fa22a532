"""The push state machine: one pure transition table from what a device reports to what the gateway does next.

Vocabulary after PSA Firmware Update. Every live state has a deadline; silence is failure; a report that has no place in a
state is ignored when it repeats the past (a redelivered message) and fails the push when it contradicts it. What the device
holds is the truth: an end that was called without it is corrected when it says that it kept the model.

An offer is also the question "where do you stand?": after any cut the gateway offers again, and the device's answer leads on.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never

from gatewayd.core.device import PushPhase, PushReport, Slot, SlotState
from gatewayd.core.ended import after_the_end, held_state, short
from gatewayd.core.module import Held
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.push import (
    Cancelled,
    Command,
    DeviceBack,
    DeviceGone,
    Event,
    Limits,
    Push,
    PushState,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendChunk,
    SendOffer,
    Step,
    TimePassed,
    TrialFailed,
    TrialPassed,
)
from gatewayd.core.record import record

# The machine and what it speaks come from one place, whoever drives it.
__all__ = [
    "Cancelled",
    "Command",
    "DeviceBack",
    "DeviceGone",
    "Event",
    "Limits",
    "Push",
    "PushState",
    "RunTrial",
    "SendAccept",
    "SendActivate",
    "SendCancel",
    "SendChunk",
    "SendOffer",
    "Step",
    "TimePassed",
    "TrialFailed",
    "TrialPassed",
    "awaits",
    "new_push",
    "resumed_after_restart",
    "step",
]


def new_push(
    *,
    id: PushId,  # noqa: A002 - the arguments are the push's fields, by their names
    device: DeviceId,
    model: ModelName,
    version: int,
    variant: str,
    digest: Digest,
    size_bytes: int,
    now_s: float,
    limits: Limits,
    stream: Digest | None = None,
    signed: bytes = b"",
    who: str = "",
    started_at: float = 0.0,
    replaces: int = 0,
    instead_of: Held | None = None,
) -> Step:
    """Start a push: the model is offered. `stream` None: the artifact goes over the link as it is."""
    push = Push(
        id=id,
        device=device,
        model=model,
        version=version,
        variant=variant,
        digest=digest,
        size_bytes=size_bytes,
        state=PushState.OFFERED,
        deadline_s=now_s + limits.offer_s,
        stream=stream or digest,
        signed=signed,
        who=who,
        started_at=started_at,
        replaces=replaces,
        instead_of=instead_of,
    )
    return Step(push, (SendOffer(),))


def resumed_after_restart(push: Push, *, now_s: float, limits: Limits) -> Step:
    """Take up a push from the journal: the old deadline means nothing on the new clock, and where the device is is not known.

    Nothing is sent: what the device says when it is heard leads on, and a thousand offers at once would be lost.
    """
    if push.state.is_end:
        return Step(push)
    turn = _Turn(now_s, limits)
    away = replace(push, present=False, reason="the gateway restarted; waiting to hear from the device")
    return Step(_resumed(away, turn, wait_s=limits.absence_s).push)


def step(push: Push, event: Event, *, now_s: float, limits: Limits) -> Step:
    """Return what `event` leads to. Never raises; an end stays as it is, unless the device says that it kept the model."""
    if isinstance(event, PushReport) and event.push != push.id:
        return Step(push)
    if push.state.is_end:
        return after_the_end(push, event)
    return _reaction(push, event, _Turn(now_s, limits))


def awaits(push: Push) -> str:
    """Return in plain words what happens next, or how it ended."""
    if push.state.is_end:
        return f"{push.state.value}: {push.reason}" if push.reason else push.state.value
    if not push.present:
        return "waiting for the device to come back"
    if push.confirmed:
        return "waiting for the device to keep the new model"
    return f"waiting for {_AWAITED[push.state]}"


@record
class _Turn:
    """When an event happened, under which limits."""

    now_s: float
    limits: Limits


_Rule = Callable[[Push, PushReport, _Turn], Step]

_AWAITED = {
    PushState.OFFERED: "the device's answer to the offer",
    PushState.TRANSFERRING: "the device to ask for the next bytes",
    PushState.WRITTEN: "the device to check the digest",
    PushState.VERIFIED: "the device's self-test",
    PushState.SELF_TESTED: "the device to start the trial",
    PushState.TRIAL: "the trial's outcome",
}
# Before the new model may run, a device's answer to a repeated offer says where it stands, so these start anew.
_BEFORE_ACTIVATION = frozenset({PushState.OFFERED, PushState.TRANSFERRING, PushState.WRITTEN, PushState.VERIFIED})
_OFFER = SendOffer()


def _reaction(push: Push, event: Event, turn: _Turn) -> Step:
    """Reports go by the table; what happens on this side means the same in every live state."""
    reaction = Step(push)
    match event:
        case PushReport():
            reaction = _heard(_TABLE[push.state, event.phase](push, event, turn))
        case DeviceGone(reason):
            reaction = _gone(push, reason, turn)
        case DeviceBack(slots):
            reaction = _back(push, slots, turn)
        case TimePassed():
            reaction = _late(push, turn)
        case Cancelled(reason):
            reaction = _cancelled(push, reason)
        case TrialPassed():
            reaction = _trial_passed(push, turn)
        case TrialFailed(reason):
            reaction = _trial_failed(push, reason)
        case _:
            assert_never(event)
    return reaction


def _heard(reaction: Step) -> Step:
    """Who reports is there, whatever was heard of it before."""
    push = reaction.push
    if push.present:
        return reaction
    return Step(replace(push, present=True, reason=push.reason if push.state.is_end else ""), reaction.commands)


def _start(push: Push, report: PushReport, turn: _Turn) -> Step:
    """Begin, or begin again: what it says it has got counts, be it less than before."""
    until_s = turn.now_s + turn.limits.transfer_s
    return _feed(replace(push, offset=0, transfer_until_s=until_s), report, turn, is_start=True)


def _feed(push: Push, report: PushReport, turn: _Turn, *, is_start: bool = False) -> Step:
    """Send what is wanted, within the artifact; only a request further on than any before it buys time."""
    if not 0 <= report.offset < push.size_bytes or report.length <= 0:
        return _failed(push, f"it wants {report.length} bytes from {report.offset} of {push.size_bytes}")
    if not is_start and report.offset == 0 < push.offset and push.resumed < turn.limits.resumes:
        # It kept nothing of what it had: a client whose transfer broke and that has no memory of it begins anew.
        return _start(replace(push, resumed=push.resumed + 1), report, turn)
    length = min(report.length, turn.limits.chunk_bytes, push.size_bytes - report.offset)
    is_further = is_start or report.offset > push.offset
    moved = _entered(replace(push, offset=report.offset), PushState.TRANSFERRING, turn) if is_further else push
    return Step(moved, (SendChunk(report.offset, length),))


def _ask(push: Push, _: PushReport, turn: _Turn) -> Step:
    """It wants bytes it said it had: an old message, or it lost them. An offer makes it say which."""
    return _resumed(replace(push, state=PushState.OFFERED), turn)


def _written(push: Push, _: PushReport, turn: _Turn) -> Step:
    return Step(_entered(replace(push, offset=push.size_bytes), PushState.WRITTEN, turn))


def _verified(push: Push, _: PushReport, turn: _Turn) -> Step:
    return Step(_entered(replace(push, offset=push.size_bytes), PushState.VERIFIED, turn))


def _tested(push: Push, _: PushReport, turn: _Turn) -> Step:
    tested = _entered(replace(push, offset=push.size_bytes), PushState.SELF_TESTED, turn)
    return Step(tested, (SendActivate(),))


def _activate_again(push: Push, _: PushReport, __: _Turn) -> Step:
    return Step(push, (SendActivate(),))


def _on_trial(push: Push, _: PushReport, turn: _Turn) -> Step:
    return Step(_entered(push, PushState.TRIAL, turn), (RunTrial(),))


def _try_again(push: Push, _: PushReport, __: _Turn) -> Step:
    """It is still on trial: the accept was lost, or the trial's outcome when one of the two sides was away."""
    if push.confirmed:
        return Step(push, (SendAccept(),))
    return Step(push) if push.present else Step(push, (RunTrial(),))


def _kept(push: Push, _: PushReport, __: _Turn) -> Step:
    return _ended(replace(push, offset=push.size_bytes), PushState.ACCEPTED, "")


def _rejected(push: Push, report: PushReport, _: _Turn) -> Step:
    return _ended(push, PushState.REJECTED, report.reason or "the device gave no reason")


def _gave_up(push: Push, report: PushReport, _: _Turn) -> Step:
    return _failed(push, report.reason or "the device gave no reason", tell=False)


def _clash(push: Push, report: PushReport, _: _Turn) -> Step:
    return _failed(push, f"the device reports {report.phase.value!r}, but the push is only {push.state.value}")


def _past(push: Push, _: PushReport, __: _Turn) -> Step:
    return Step(push)


_COLUMNS = tuple(PushPhase)
_ROWS: Mapping[PushState, tuple[_Rule, ...]] = {
    #                        want    written   verified   tested           trial       accepted  rejected   failed
    PushState.OFFERED:      (_start, _written, _verified, _tested,         _clash,     _kept,    _rejected, _gave_up),
    PushState.TRANSFERRING: (_feed,  _written, _verified, _tested,         _clash,     _clash,   _rejected, _gave_up),
    PushState.WRITTEN:      (_ask,   _past,    _verified, _tested,         _clash,     _clash,   _rejected, _gave_up),
    PushState.VERIFIED:     (_ask,   _past,    _past,     _tested,         _clash,     _clash,   _rejected, _gave_up),
    PushState.SELF_TESTED:  (_ask,   _past,    _past,     _activate_again, _on_trial,  _clash,   _rejected, _gave_up),
    PushState.TRIAL:        (_past,  _past,    _past,     _past,           _try_again, _kept,    _rejected, _gave_up),
}  # fmt: skip
_TABLE: Mapping[tuple[PushState, PushPhase], _Rule] = {
    (state, phase): rule for state, row in _ROWS.items() for phase, rule in zip(_COLUMNS, row, strict=True)
}


def _gone(push: Push, reason: str, turn: _Turn) -> Step:
    if not push.present:
        return Step(push)
    deadline_s = turn.now_s + turn.limits.absence_s
    why = "the device is away" if reason in {"", "offline"} else f"the device is away: {reason}"
    return Step(replace(push, present=False, deadline_s=deadline_s, reason=short(why)))


def _back(push: Push, slots: tuple[Slot, ...], turn: _Turn) -> Step:
    """What the device holds is the truth; where that settles nothing, an offer asks."""
    held = held_state(push, slots)
    if held is SlotState.ACTIVE:
        return _ended(replace(push, offset=push.size_bytes, present=True), PushState.ACCEPTED, "")
    if held is SlotState.TRIAL:
        return _back_on_trial(push, turn)
    if push.present:
        # A report that shows the transfer under way changes nothing: another offer would cost a chunk sent twice.
        return Step(push) if held is SlotState.STAGING else Step(push, (SendOffer(),))
    return _resumed(replace(push, present=True, reason=""), turn)


def _back_on_trial(push: Push, turn: _Turn) -> Step:
    if push.state in _BEFORE_ACTIVATION:
        return _failed(push, "the device put the model on trial without being told to")
    command = SendAccept() if push.confirmed else RunTrial()
    on_trial = replace(push, state=PushState.TRIAL, present=True, reason="")
    if not push.present:
        return _resumed(on_trial, turn, command=command)
    return Step(push) if push.state is PushState.TRIAL else Step(_entered(on_trial, PushState.TRIAL, turn), (command,))


def _trial_passed(push: Push, turn: _Turn) -> Step:
    if push.state is not PushState.TRIAL or push.confirmed:
        return Step(push)
    return Step(_entered(replace(push, confirmed=True), PushState.TRIAL, turn), (SendAccept(),))


def _trial_failed(push: Push, reason: str) -> Step:
    """Nothing can be said while the device is away (the trial is run again), nor taken back once it was told to accept."""
    if push.state is not PushState.TRIAL or push.confirmed or not push.present:
        return Step(push)
    return _failed(push, f"the trial failed: {reason}")


def _cancelled(push: Push, reason: str) -> Step:
    """Too late once the device was told to accept: it does that before it reads the cancel."""
    return Step(push) if push.confirmed else _ended(push, PushState.CANCELLED, reason, tell=True)


def _late(push: Push, turn: _Turn) -> Step:
    if turn.now_s < push.deadline_s:
        return Step(push)
    if not push.present:
        return _failed(push, f"the device stayed away for {turn.limits.absence_s:g} s")
    if push.state is PushState.TRANSFERRING and turn.now_s >= push.transfer_until_s:
        took = f"{push.offset} of {push.size_bytes} bytes in {turn.limits.transfer_s:g} s"
        return _failed(push, f"the transfer is too slow: {took}")
    return _failed(push, f"timed out {awaits(push)}")


def _resumed(push: Push, turn: _Turn, *, wait_s: float | None = None, command: Command = _OFFER) -> Step:
    """Ask where the device stands. Until it has activated the model only its answer counts, so the push starts at the offer."""
    if push.resumed >= turn.limits.resumes:
        return _failed(push, f"taken up again {push.resumed} times without coming to an end")
    state = PushState.OFFERED if push.state in _BEFORE_ACTIVATION else push.state
    deadline_s = turn.now_s + (_allowed_s(state, turn.limits) if wait_s is None else wait_s)
    return Step(replace(push, state=state, deadline_s=deadline_s, resumed=push.resumed + 1), (command,))


def _entered(push: Push, state: PushState, turn: _Turn) -> Push:
    deadline_s = turn.now_s + _allowed_s(state, turn.limits)
    if state is PushState.TRANSFERRING:
        # progress buys time, but not for ever: a device that trickles would hold its place for days
        deadline_s = min(deadline_s, push.transfer_until_s)
    return replace(push, state=state, deadline_s=deadline_s)


def _allowed_s(state: PushState, limits: Limits) -> float:
    """Return how long a live state may last without progress; a tested device starts its trial as fast as it runs one."""
    allowed_s = {
        PushState.OFFERED: limits.offer_s,
        PushState.TRANSFERRING: limits.stall_s,
        PushState.WRITTEN: limits.verify_s,
        PushState.VERIFIED: limits.self_test_s,
    }
    return allowed_s.get(state, limits.trial_s)


def _failed(push: Push, reason: str, *, tell: bool = True) -> Step:
    """End badly; a trial that fails is rolled back by the device."""
    end = PushState.ROLLED_BACK if push.state is PushState.TRIAL else PushState.FAILED
    return _ended(push, end, reason, tell=tell)


def _ended(push: Push, end: PushState, reason: str, *, tell: bool = False) -> Step:
    ended = replace(push, state=end, reason=short(reason))
    return Step(ended, (SendCancel(ended.reason),) if tell else ())
