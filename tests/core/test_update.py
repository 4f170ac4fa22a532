from collections.abc import Mapping
from dataclasses import replace

import pytest

from gatewayd.core.device import PushPhase, SlotState
from gatewayd.core.names import Digest
from gatewayd.core.update import (
    Cancelled,
    Command,
    DeviceBack,
    DeviceGone,
    Event,
    Limits,
    PushState,
    SendCancel,
    SendChunk,
    Step,
    TimePassed,
    TrialFailed,
    TrialPassed,
    awaits,
    resumed_after_restart,
)
from tests.core.pushes import (
    ACCEPT,
    ACTIVATE,
    ENDS,
    LIMITS,
    LIVE,
    OFFER,
    SIZE,
    TRIAL,
    P,
    S,
    cancels,
    held,
    push,
    report,
    started,
    stepped,
)


def test_a_push_from_offer_to_accepted() -> None:
    steps = [started()]
    events: list[Event] = [
        report(P.WANT, 0, 1024),
        report(P.WANT, 1024, 1024),
        report(P.WANT, 2048, 1024),
        report(P.WRITTEN),
        report(P.VERIFIED),
        report(P.TESTED),
        report(P.TRIAL),
        TrialPassed(),
        report(P.ACCEPTED),
    ]
    for event in events:
        steps.append(stepped(steps[-1].push, event))
    assert [each.push.state for each in steps] == [
        S.OFFERED, S.TRANSFERRING, S.TRANSFERRING, S.TRANSFERRING, S.WRITTEN, S.VERIFIED, S.SELF_TESTED, S.TRIAL, S.TRIAL,
        S.ACCEPTED,
    ]  # fmt: skip
    assert [each.commands for each in steps] == [
        OFFER, (SendChunk(0, 1024),), (SendChunk(1024, 1024),), (SendChunk(2048, 452),), (), (), ACTIVATE, TRIAL, ACCEPT, (),
    ]  # fmt: skip
    assert [each.push.offset for each in steps] == [0, 0, 1024, 2048, SIZE, SIZE, SIZE, SIZE, SIZE, SIZE]


CANCEL = "cancel"
WANT_CHUNK = (SendChunk(2048, 452),)

GRID: Mapping[PushState, Mapping[PushPhase, tuple[PushState, tuple[Command, ...] | str]]] = {
    S.OFFERED: {
        P.WANT: (S.TRANSFERRING, WANT_CHUNK), P.WRITTEN: (S.WRITTEN, ()), P.VERIFIED: (S.VERIFIED, ()),
        P.TESTED: (S.SELF_TESTED, ACTIVATE), P.TRIAL: (S.FAILED, CANCEL), P.ACCEPTED: (S.ACCEPTED, ()),
        P.REJECTED: (S.REJECTED, ()), P.FAILED: (S.FAILED, ()),
    },
    S.TRANSFERRING: {
        P.WANT: (S.TRANSFERRING, WANT_CHUNK), P.WRITTEN: (S.WRITTEN, ()), P.VERIFIED: (S.VERIFIED, ()),
        P.TESTED: (S.SELF_TESTED, ACTIVATE), P.TRIAL: (S.FAILED, CANCEL), P.ACCEPTED: (S.FAILED, CANCEL),
        P.REJECTED: (S.REJECTED, ()), P.FAILED: (S.FAILED, ()),
    },
    S.WRITTEN: {
        P.WANT: (S.OFFERED, OFFER), P.WRITTEN: (S.WRITTEN, ()), P.VERIFIED: (S.VERIFIED, ()),
        P.TESTED: (S.SELF_TESTED, ACTIVATE), P.TRIAL: (S.FAILED, CANCEL), P.ACCEPTED: (S.FAILED, CANCEL),
        P.REJECTED: (S.REJECTED, ()), P.FAILED: (S.FAILED, ()),
    },
    S.VERIFIED: {
        P.WANT: (S.OFFERED, OFFER), P.WRITTEN: (S.VERIFIED, ()), P.VERIFIED: (S.VERIFIED, ()),
        P.TESTED: (S.SELF_TESTED, ACTIVATE), P.TRIAL: (S.FAILED, CANCEL), P.ACCEPTED: (S.FAILED, CANCEL),
        P.REJECTED: (S.REJECTED, ()), P.FAILED: (S.FAILED, ()),
    },
    S.SELF_TESTED: {
        P.WANT: (S.OFFERED, OFFER), P.WRITTEN: (S.SELF_TESTED, ()), P.VERIFIED: (S.SELF_TESTED, ()),
        P.TESTED: (S.SELF_TESTED, ACTIVATE), P.TRIAL: (S.TRIAL, TRIAL), P.ACCEPTED: (S.FAILED, CANCEL),
        P.REJECTED: (S.REJECTED, ()), P.FAILED: (S.FAILED, ()),
    },
    S.TRIAL: {
        P.WANT: (S.TRIAL, ()), P.WRITTEN: (S.TRIAL, ()), P.VERIFIED: (S.TRIAL, ()),
        P.TESTED: (S.TRIAL, ()), P.TRIAL: (S.TRIAL, ()), P.ACCEPTED: (S.ACCEPTED, ()),
        P.REJECTED: (S.REJECTED, ()), P.FAILED: (S.ROLLED_BACK, ()),
    },
}  # fmt: skip
CELLS = [(state, phase, after, commands) for state, row in GRID.items() for phase, (after, commands) in row.items()]


def test_the_grid_is_complete() -> None:
    assert {(state, phase) for state, phase, _, _ in CELLS} == {(state, phase) for state in LIVE for phase in PushPhase}


@pytest.mark.parametrize(("state", "phase", "after", "commands"), CELLS)
def test_each_report_in_each_state(
    state: PushState, phase: PushPhase, after: PushState, commands: tuple[Command, ...] | str
) -> None:
    reaction = stepped(push(state), report(phase, 2048, 1024))
    assert reaction.push.state is after
    if commands == CANCEL:
        assert cancels(reaction.commands)
        assert phase.value in reaction.push.reason
    else:
        assert reaction.commands == commands


@pytest.mark.parametrize(
    ("state", "allowed_s"),
    [
        (S.OFFERED, LIMITS.offer_s),
        (S.TRANSFERRING, LIMITS.stall_s),
        (S.WRITTEN, LIMITS.verify_s),
        (S.VERIFIED, LIMITS.self_test_s),
        (S.SELF_TESTED, LIMITS.trial_s),
        (S.TRIAL, LIMITS.trial_s),
    ],
)
def test_every_live_state_is_entered_with_its_own_deadline(state: PushState, allowed_s: float) -> None:
    reports = [report(P.WANT, 0, 9), report(P.WRITTEN), report(P.VERIFIED), report(P.TESTED), report(P.TRIAL)]
    current = started().push
    for now_s, event in enumerate(reports[: LIVE.index(state)], start=1):
        current = stepped(current, event, now_s=now_s).push
    assert current.state is state
    assert current.deadline_s == LIVE.index(state) + allowed_s


def test_only_a_want_further_on_re_arms_the_stall_timer() -> None:
    first = stepped(started().push, report(P.WANT, 0, 1024), now_s=1.0).push
    further = stepped(first, report(P.WANT, 1024, 1024), now_s=4.0).push
    repeated = stepped(further, report(P.WANT, 1024, 1024), now_s=9.0)
    backwards = stepped(further, report(P.WANT, 512, 1024), now_s=9.0)
    assert (first.deadline_s, further.deadline_s) == (1.0 + LIMITS.stall_s, 4.0 + LIMITS.stall_s)
    assert repeated == Step(further, (SendChunk(1024, 1024),))
    assert backwards == Step(further, (SendChunk(512, 1024),))


def test_a_device_that_kept_nothing_begins_anew_within_its_budget() -> None:
    # A stock client whose block-wise transfer broke: it takes the package from the start or not at all.
    further = stepped(push(S.TRANSFERRING, offset=512), report(P.WANT, 1024, 1024), now_s=4.0).push
    anew = stepped(further, report(P.WANT, 0, 1024), now_s=9.0)
    assert anew.commands == (SendChunk(0, 1024),)
    assert (anew.push.offset, anew.push.resumed, anew.push.deadline_s) == (0, 1, 9.0 + LIMITS.stall_s)
    spent = replace(further, resumed=LIMITS.resumes)
    assert stepped(spent, report(P.WANT, 0, 1024), now_s=9.0) == Step(spent, (SendChunk(0, 1024),))


@pytest.mark.parametrize("state", [S.OFFERED, S.TRANSFERRING])
@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE + 1, 10), (-1, 10), (0, 0), (0, -5), (2**40, 2**40)])
def test_a_want_outside_the_artifact_fails_the_push(state: PushState, offset: int, length: int) -> None:
    reaction = stepped(push(state), report(P.WANT, offset, length))
    assert reaction.push.state is S.FAILED
    assert reaction.push.reason == f"it wants {length} bytes from {offset} of {SIZE}"
    assert cancels(reaction.commands)


def test_a_want_over_the_largest_chunk_is_cut() -> None:
    limits = Limits(chunk_bytes=100)
    reaction = stepped(push(S.OFFERED), report(P.WANT, 0, 2**31), limits=limits)
    assert reaction.commands == (SendChunk(0, 100),)


def test_a_report_of_another_push_changes_nothing() -> None:
    assert stepped(push(S.TRANSFERRING), report(P.FAILED, push_id=8)) == Step(push(S.TRANSFERRING))


def test_a_devices_reason_is_kept_but_not_at_any_length() -> None:
    assert stepped(push(S.OFFERED), report(P.REJECTED, reason="arena 9 > 8")).push.reason == "arena 9 > 8"
    assert len(stepped(push(S.OFFERED), report(P.REJECTED, reason="x" * 5000)).push.reason) == 200
    assert stepped(push(S.OFFERED), report(P.FAILED)).push.reason == "the device gave no reason"


@pytest.mark.parametrize("state", LIVE)
def test_silence_ends_every_live_state_and_tells_the_device(state: PushState) -> None:
    late = stepped(push(state), TimePassed(), now_s=10.0)
    assert late.push.state is (S.ROLLED_BACK if state is S.TRIAL else S.FAILED)
    assert late.push.reason == f"timed out {awaits(push(state))}"
    assert late.commands == (SendCancel(late.push.reason),)


@pytest.mark.parametrize("state", LIVE)
def test_before_the_deadline_time_changes_nothing(state: PushState) -> None:
    assert stepped(push(state), TimePassed(), now_s=9.999) == Step(push(state))


@pytest.mark.parametrize("state", LIVE)
def test_cancel_works_in_every_live_state(state: PushState) -> None:
    reaction = stepped(push(state), Cancelled("superseded"))
    assert reaction.push.state is S.CANCELLED
    assert reaction.commands == (SendCancel("superseded"),)


def test_after_the_accept_was_sent_it_is_too_late_to_cancel_or_to_fail_the_trial() -> None:
    confirmed = stepped(push(S.TRIAL), TrialPassed()).push
    assert confirmed.confirmed
    for event in (Cancelled("no"), TrialFailed("no"), TrialPassed()):
        assert stepped(confirmed, event) == Step(confirmed)
    assert stepped(confirmed, report(P.TRIAL)).commands == ACCEPT
    late = stepped(confirmed, TimePassed(), now_s=1000.0).push
    assert (late.state, late.reason) == (S.ROLLED_BACK, "timed out waiting for the device to keep the new model")


@pytest.mark.parametrize("state", [state for state in LIVE if state is not S.TRIAL])
def test_a_trials_outcome_means_nothing_before_the_trial(state: PushState) -> None:
    assert stepped(push(state), TrialPassed()) == Step(push(state))
    assert stepped(push(state), TrialFailed("late")) == Step(push(state))


def test_a_failed_trial_is_rolled_back() -> None:
    reaction = stepped(push(S.TRIAL), TrialFailed("no answer"))
    assert reaction.push.state is S.ROLLED_BACK
    assert reaction.commands == (SendCancel("the trial failed: no answer"),)


@pytest.mark.parametrize("state", LIVE)
def test_a_device_that_goes_away_has_the_absence_limit_once(state: PushState) -> None:
    away = stepped(push(state), DeviceGone("last will"), now_s=5.0).push
    assert (away.state, away.present, away.deadline_s) == (state, False, 5.0 + LIMITS.absence_s)
    assert away.reason == "the device is away: last will"
    assert stepped(away, DeviceGone("again"), now_s=30.0) == Step(away)
    late = stepped(away, TimePassed(), now_s=away.deadline_s).push
    assert late.state is (S.ROLLED_BACK if state is S.TRIAL else S.FAILED)
    assert late.reason == "the device stayed away for 60 s"


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (S.OFFERED, S.OFFERED), (S.TRANSFERRING, S.OFFERED), (S.WRITTEN, S.OFFERED), (S.VERIFIED, S.OFFERED),
        (S.SELF_TESTED, S.SELF_TESTED), (S.TRIAL, S.TRIAL),
    ],
)  # fmt: skip
def test_a_device_that_comes_back_is_offered_again(state: PushState, after: PushState) -> None:
    reaction = stepped(push(state, present=False), held(SlotState.STAGING), now_s=50.0)
    assert (reaction.push.state, reaction.push.present, reaction.push.resumed) == (after, True, 1)
    assert 50.0 < reaction.push.deadline_s <= 80.0
    assert reaction.commands == OFFER


def test_after_coming_back_the_device_goes_on_where_it_is_even_if_that_is_less() -> None:
    back = stepped(push(S.TRANSFERRING, offset=2048, present=False), held(SlotState.STAGING)).push
    assert back.offset == 2048
    reaction = stepped(back, report(P.WANT, 1024, 1024), now_s=9.0)
    assert (reaction.push.state, reaction.push.offset) == (S.TRANSFERRING, 1024)
    assert reaction.push.deadline_s == 9.0 + LIMITS.stall_s
    assert reaction.commands == (SendChunk(1024, 1024),)


def test_a_report_that_shows_the_transfer_under_way_costs_nothing() -> None:
    assert stepped(push(S.TRANSFERRING), held(SlotState.STAGING)) == Step(push(S.TRANSFERRING))


def test_a_status_change_of_a_present_device_costs_an_offer_but_no_state_and_no_time() -> None:
    assert stepped(push(S.TRANSFERRING), held(SlotState.EMPTY)) == Step(push(S.TRANSFERRING), OFFER)


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize("present", [True, False])
def test_a_device_that_holds_the_version_active_settles_the_push(state: PushState, present: bool) -> None:  # noqa: FBT001 - a table column
    reaction = stepped(push(state, present=present), held(SlotState.ACTIVE))
    assert (reaction.push.state, reaction.push.reason, reaction.commands) == (S.ACCEPTED, "", ())


@pytest.mark.parametrize(
    "other", [held(SlotState.ACTIVE, version=1), held(SlotState.ACTIVE, digest=Digest("cd" * 32)), DeviceBack(())]
)
def test_another_version_or_content_in_a_slot_settles_nothing(other: DeviceBack) -> None:
    assert stepped(push(S.TRANSFERRING), other).push.state is S.TRANSFERRING


def test_a_device_that_comes_back_on_trial() -> None:
    after_activate = stepped(push(S.SELF_TESTED), held(SlotState.TRIAL))
    assert (after_activate.push.state, after_activate.commands) == (S.TRIAL, TRIAL)
    assert stepped(push(S.TRIAL), held(SlotState.TRIAL)) == Step(push(S.TRIAL))
    returned = stepped(push(S.TRIAL, present=False), held(SlotState.TRIAL))
    assert (returned.push.resumed, returned.commands) == (1, TRIAL)
    told = stepped(push(S.TRIAL, present=False, confirmed=True), held(SlotState.TRIAL))
    assert told.commands == ACCEPT
    untold = stepped(push(S.WRITTEN), held(SlotState.TRIAL))
    assert untold.push.state is S.FAILED
    assert cancels(untold.commands)


def test_a_trial_is_run_again_only_when_its_outcome_was_lost() -> None:
    away = stepped(push(S.TRIAL), DeviceGone("last will")).push
    assert stepped(away, TrialFailed("unreachable")) == Step(away)
    heard = stepped(away, report(P.TRIAL))
    assert (heard.push.present, heard.push.reason, heard.commands) == (True, "", TRIAL)
    assert stepped(heard.push, report(P.TRIAL)).commands == ()


def test_a_push_is_taken_up_again_a_bounded_number_of_times() -> None:
    current = push(S.TRANSFERRING)
    for count in range(LIMITS.resumes + 1):
        assert (current.state.is_end, current.resumed) == (False, count)
        current = stepped(stepped(current, DeviceGone("gone")).push, held(SlotState.STAGING)).push
    assert (current.state, current.reason) == (S.FAILED, "taken up again 20 times without coming to an end")


@pytest.mark.parametrize("state", LIVE)
def test_after_a_restart_of_the_gateway_the_device_is_asked(state: PushState) -> None:
    journal = replace(push(state), deadline_s=1e9)
    resumed = resumed_after_restart(journal, now_s=3.0, limits=LIMITS)
    assert (resumed.push.present, resumed.push.resumed, resumed.push.deadline_s) == (False, 1, 3.0 + LIMITS.absence_s)
    assert resumed.push.state is (state if state in {S.SELF_TESTED, S.TRIAL} else S.OFFERED)
    assert resumed.commands == ()


@pytest.mark.parametrize("state", ENDS)
def test_after_a_restart_an_ended_push_stays_as_it_is(state: PushState) -> None:
    assert resumed_after_restart(push(state), now_s=3.0, limits=LIMITS) == Step(push(state))


@pytest.mark.parametrize("state", [state for state in ENDS if state is not S.ACCEPTED])
@pytest.mark.parametrize("event", [report(P.WANT, 0, 9), report(P.TESTED), report(P.TRIAL), held(SlotState.TRIAL)])
def test_a_device_that_does_not_know_of_the_end_is_told(state: PushState, event: Event) -> None:
    ended = replace(push(state), reason="why")
    assert stepped(ended, event) == Step(ended, (SendCancel("why"),))


@pytest.mark.parametrize("event", [report(phase) for phase in PushPhase] + [held(SlotState.TRIAL)])
def test_an_accepted_push_is_never_taken_back(event: Event) -> None:
    assert stepped(push(S.ACCEPTED), event) == Step(push(S.ACCEPTED))


def test_what_it_waits_for_in_words() -> None:
    assert {awaits(push(state)) for state in LIVE} == {
        "waiting for the device's answer to the offer",
        "waiting for the device to ask for the next bytes",
        "waiting for the device to check the digest",
        "waiting for the device's self-test",
        "waiting for the device to start the trial",
        "waiting for the trial's outcome",
    }
    assert awaits(push(S.TRIAL, present=False)) == "waiting for the device to come back"
    assert awaits(push(S.TRIAL, confirmed=True)) == "waiting for the device to keep the new model"
    assert awaits(replace(push(S.FAILED), reason="digest differs")) == "failed: digest differs"
    assert awaits(push(S.ACCEPTED)) == "accepted"
