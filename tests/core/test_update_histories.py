"""Whatever devices, people and clocks do: properties of every history of a push."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import PushPhase, PushReport, SlotState
from gatewayd.core.update import (
    Cancelled,
    Command,
    DeviceBack,
    DeviceGone,
    Event,
    Push,
    PushState,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendChunk,
    Step,
    TimePassed,
    TrialFailed,
    TrialPassed,
    resumed_after_restart,
    step,
)
from tests.core.pushes import ACCEPT, ENDS, LIMITS, SIZE, P, held, push, report, started

RESTART = "restart"
History = Sequence[tuple[Event | str, float]]
offsets = st.sampled_from([0, 1024, 2048]) | st.integers(-10, SIZE + 10)
reports = st.builds(
    report,
    st.sampled_from(PushPhase),
    offsets,
    st.sampled_from([1024, 1]) | st.integers(-1, 2**31),
    push_id=st.sampled_from([7, 7, 7, 8]),
)
births = st.builds(held, st.sampled_from(SlotState), version=st.sampled_from([1, 2]))
events: st.SearchStrategy[Event] = (
    reports
    | births
    | st.sampled_from([DeviceGone("x"), DeviceBack(()), TimePassed(), Cancelled("x"), TrialPassed(), TrialFailed("x")])
)
# Mostly what a sane device would say, so that the later states are reached, with anything else in between.
sane = st.sampled_from(
    [report(P.WANT, 0, 1024), report(P.TESTED), report(P.TRIAL), TrialPassed(), DeviceGone("x"), held(SlotState.TRIAL)]
)
histories = st.lists(st.tuples(sane | events | st.just(RESTART), st.floats(0.0, 20.0)), max_size=25)
starts = st.builds(
    push, st.sampled_from(PushState), offset=st.integers(0, SIZE), present=st.booleans(), confirmed=st.just(value=False)
)
LONGEST_S = max(LIMITS.absence_s, LIMITS.trial_s, LIMITS.self_test_s)


def told(first: Step, history: History) -> tuple[list[tuple[Event | str, Step]], float]:
    """Play a history; return each event with what it led to, and the time at its end."""
    steps, now_s, current = [], 0.0, first.push
    for event, wait_s in history:
        now_s += wait_s
        if isinstance(event, str):
            taken = resumed_after_restart(current, now_s=now_s, limits=LIMITS)
        else:
            taken = step(current, event, now_s=now_s, limits=LIMITS)
        steps.append((event, taken))
        assert taken.push.state.is_end or taken.push.deadline_s <= max(now_s + LONGEST_S, current.deadline_s)
        current = taken.push
    return steps, now_s


@given(starts, histories)
@settings(max_examples=300, deadline=None)
def test_from_every_state_whatever_happens_time_brings_an_end(start: Push, history: History) -> None:
    steps, now_s = told(Step(start), history)
    last = steps[-1][1].push if steps else start
    assert step(last, TimePassed(), now_s=now_s + LONGEST_S, limits=LIMITS).push.state.is_end


@given(st.sampled_from(ENDS), histories)
@settings(max_examples=100, deadline=None)
def test_only_a_device_that_kept_the_model_changes_an_end(end: PushState, history: History) -> None:
    steps, _ = told(Step(push(end)), history)
    for _, taken in steps:
        assert taken.push == push(end) or (taken.push.state, taken.push.offset) == (PushState.ACCEPTED, SIZE)
    assert all(taken.push == push(end) for _, taken in steps) or end is not PushState.ACCEPTED
    assert all(isinstance(command, SendCancel) for _, taken in steps for command in taken.commands)


@given(starts, histories)
@settings(max_examples=300, deadline=None)
def test_nothing_ever_leaves_the_artifact(start: Push, history: History) -> None:
    steps, _ = told(Step(start), history)
    for _, taken in steps:
        assert 0 <= taken.push.offset <= SIZE
        assert taken.push.resumed <= LIMITS.resumes
        for command in taken.commands:
            if isinstance(command, SendChunk):
                assert 0 <= command.offset < command.offset + command.length <= SIZE
                assert command.length <= LIMITS.chunk_bytes


@given(histories)
@settings(max_examples=500, deadline=None)
def test_no_accept_without_self_test_and_trial(history: History) -> None:
    steps, _ = told(started(), history)
    sent: list[Command] = []
    passed = False
    for event, taken in steps:
        passed = passed or (isinstance(event, TrialPassed) and RunTrial() in sent)
        for command in taken.commands:
            if isinstance(command, SendAccept):
                assert passed
            if isinstance(command, RunTrial):
                assert SendActivate() in sent
            if isinstance(command, SendActivate):
                assert isinstance(event, PushReport)
                assert event.phase is P.TESTED
            sent.append(command)


def test_the_histories_reach_an_accept() -> None:
    """Guards the property above against checking nothing."""
    history: History = [
        (report(P.TESTED), 1.0), (held(SlotState.TRIAL), 1.0), (RESTART, 1.0), (report(P.TRIAL), 1.0), (TrialPassed(), 1.0),
    ]  # fmt: skip
    steps, _ = told(started(), history)
    assert steps[-1][1].commands == ACCEPT
