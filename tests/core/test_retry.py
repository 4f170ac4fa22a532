from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.device import DeviceView, Slot, SlotState
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.push import Push, PushState
from gatewayd.core.retry import Aftermath, Desire, Retry, Terms, after_end, is_met, newest_version, obstacle, pause_s
from tests.api_values import DEVICE as VIEW
from tests.core.pushes import DEVICE, DIGEST, ENDS, MODEL, push

RETRY = Retry(tries=3, first_s=10.0, most_s=60.0, quarantine_after=4)
DESIRE = Desire(DEVICE, MODEL, 2, "ann", 1.7e9)
TERMS = Terms(DEVICE)
FAILURES = (PushState.FAILED, PushState.ROLLED_BACK)


def ended(state: PushState, *, version: int = 2) -> Push:
    return replace(push(state), version=version, reason="digest differs")


def after(state: PushState, desire: Desire | None = DESIRE, terms: Terms = TERMS, jitter: float = 1.0) -> Aftermath:
    return after_end(ended(state), desire, terms, retry=RETRY, jitter=jitter)


def test_an_accepted_push_clears_the_counts() -> None:
    taken = after(PushState.ACCEPTED, replace(DESIRE, failures=2, settled="given up"), replace(TERMS, failures=3))
    assert taken == Aftermath(DESIRE, TERMS)


@pytest.mark.parametrize("state", FAILURES)
def test_a_failure_is_tried_again_after_a_pause_that_doubles_until_the_tries_are_over(state: PushState) -> None:
    first = after(state)
    assert (first.again_in_s, first.terms.failures) == (10.0, 1)
    second = after(state, first.desire, first.terms)
    assert second.again_in_s == 20.0
    third = after(state, second.desire, second.terms)
    assert third.again_in_s is None
    assert third.desire is not None
    assert third.desire.settled == "given up after 3 tries: digest differs"


@pytest.mark.parametrize("state", FAILURES)
def test_a_device_that_always_fails_is_quarantined(state: PushState) -> None:
    taken = after(state, DESIRE, replace(TERMS, failures=3))
    assert taken.terms.quarantine == "4 pushes in a row failed; the last one: digest differs"
    assert taken.again_in_s is None


def test_what_the_device_rejects_is_not_asked_again() -> None:
    taken = after(PushState.REJECTED)
    assert taken.desire is not None
    assert taken.desire.settled == "the device rejected it: digest differs"
    assert (taken.terms, taken.again_in_s) == (TERMS, None)


def test_a_cancelled_push_changes_nothing_here() -> None:
    assert after(PushState.CANCELLED) == Aftermath(DESIRE, TERMS)


def test_a_failure_of_what_nobody_wants_any_more_counts_for_the_device_only() -> None:
    other = replace(DESIRE, version=3)
    assert after(PushState.FAILED, other) == Aftermath(other, replace(TERMS, failures=1))
    assert after(PushState.FAILED, None) == Aftermath(None, replace(TERMS, failures=1))


@given(st.sampled_from(ENDS), st.integers(0, 10), st.integers(0, 10), st.floats(0, 1))
def test_every_end_comes_to_rest(state: PushState, desired: int, in_a_row: int, jitter: float) -> None:
    """However often a push fails, a pause follows fewer times than the tries."""
    desire: Desire | None = replace(DESIRE, failures=desired)
    terms, pauses = replace(TERMS, failures=in_a_row), 0
    for _ in range(10):
        taken = after_end(ended(state), desire, terms, retry=RETRY, jitter=jitter)
        desire, terms = taken.desire, taken.terms
        pauses += taken.again_in_s is not None
    assert pauses < RETRY.tries


@given(st.integers(1, 10_000), st.floats(allow_nan=False))
def test_a_pause_is_bounded_whatever_chance_says(failures: int, jitter: float) -> None:
    assert RETRY.first_s / 2 <= pause_s(failures, retry=RETRY, jitter=jitter) <= RETRY.most_s


def view(*slots: Slot, online: bool = True, approved: bool = True) -> DeviceView:
    assert VIEW.report is not None
    return replace(VIEW, online=online, approved=approved, report=replace(VIEW.report, slots=slots))


def active(version: int) -> Slot:
    return Slot(0, SlotState.ACTIVE, MODEL, version, DIGEST)


@pytest.mark.parametrize(
    ("desire", "terms", "seen", "why"),
    [
        (DESIRE, TERMS, view(), ""),
        (DESIRE, TERMS, view(active(1)), ""),
        (DESIRE, TERMS, view(active(2)), "the device has it"),
        (DESIRE, TERMS, view(active(3)), "the device runs version 3, which is newer"),
        (replace(DESIRE, downgrade=True), TERMS, view(active(3)), ""),
        (replace(DESIRE, settled="given up"), TERMS, view(), "given up"),
        (DESIRE, replace(TERMS, quarantine="bad flash"), view(), "bad flash"),
        (DESIRE, TERMS, view(online=False), "the device is not there"),
        (DESIRE, TERMS, view(approved=False), "the device is not there"),
    ],
)
def test_obstacles(desire: Desire, terms: Terms, seen: DeviceView, why: str) -> None:
    assert obstacle(desire, terms, seen) == why


def test_only_what_runs_counts() -> None:
    staging = Slot(1, SlotState.STAGING, MODEL, 2, DIGEST)
    other = Slot(2, SlotState.ACTIVE, ModelName("other"), 9, Digest("cd" * 32))
    assert not is_met(DESIRE, (staging, other))
    assert newest_version((staging, other), MODEL) == 0
    assert newest_version((active(1), staging, other), MODEL) == 1
    assert not is_met(replace(DESIRE, device=DeviceId("x"), version=3), (active(2),))
