import random
from itertools import pairwise
from math import inf, isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.rates import NEVER_ASKED, Prior, Rate


def asked_at(times: list[float], start: Rate = NEVER_ASKED) -> Rate:
    for now_s in times:
        start = start.asked(now_s)
    return start


def test_the_first_request_says_nothing_yet() -> None:
    assert asked_at([5.0]).per_s(6.0) == 0.0
    assert asked_at([5.0]).bounds(6.0) == (0.0, inf)


def test_a_steady_rate() -> None:
    rate = asked_at([float(turn) * 2 for turn in range(100)])
    assert rate.per_s(198.0) == pytest.approx(0.5)
    low, high = rate.bounds(198.0)
    assert 0.4 < low < 0.5 < high < 0.6


def test_it_follows_a_change() -> None:
    times = [float(turn) for turn in range(200)] + [200.0 + 10 * turn for turn in range(200)]
    assert asked_at(times).per_s(times[-1]) == pytest.approx(0.1, rel=0.1)


def test_silence_lowers_it() -> None:
    rate = asked_at([float(turn) for turn in range(100)])
    assert rate.per_s(100.0) == pytest.approx(1.0, rel=0.02)
    assert rate.per_s(100_000.0) < 0.001


def test_bursts_are_less_sure_than_independent_requests() -> None:
    chance = random.Random(1)  # noqa: S311 - repeatable arrivals
    steady_s, bursts_s = [0.0], [0.0]
    for turn in range(60):
        steady_s.append(steady_s[-1] + chance.expovariate(1.0))
        bursts_s.append(bursts_s[-1] + (0.01 if turn % 10 else 10.0))
    steady, bursts = asked_at(steady_s), asked_at(bursts_s)
    low, _ = steady.bounds(steady_s[-1])
    burst_low, _ = bursts.bounds(bursts_s[-1])
    assert burst_low / bursts.per_s(bursts_s[-1]) < low / steady.per_s(steady_s[-1]) - 0.1


def test_the_bounds_hold_as_often_as_they_say() -> None:
    chance = random.Random(2)  # noqa: S311 - repeatable arrivals
    below = 0
    for _ in range(500):
        times = [0.0]
        for _ in range(10):
            times.append(times[-1] + chance.expovariate(3.0))
        low, high = asked_at(times[1:], NEVER_ASKED.since(0.0)).bounds(times[-1])
        below += low <= 3.0 <= high
    assert 0.6 < below / 500 < 0.78  # one deviation to each side: 68 %; short gaps make the bounds a little wider


def test_requests_that_follow_at_once_are_one_burst() -> None:
    rate = asked_at([100.0, 101.0, 102.0, 103.0], NEVER_ASKED.since(0.0))
    assert (round(rate.bursts), round(rate.count)) == (1, 4)
    assert rate.opens(140.0)
    assert not rate.opens(105.0)


def test_what_is_regular_is_no_burst_however_silent_all_others_are() -> None:
    silent = Prior(0.0, 1e6, 1.0)
    rate = NEVER_ASKED.since(0.0)
    for turn in range(1, 6):
        assert rate.opens(100.0 * turn, silent)
        rate = rate.asked(100.0 * turn, silent)


def test_what_others_do_is_outvoted() -> None:
    """A prior of two bursts in 20 s, and a device that is asked every 100 s."""
    prior = Prior(2.0, 20.0, 1.0)
    assert NEVER_ASKED.per_s(0.0, prior) == pytest.approx(0.1)
    low, high = NEVER_ASKED.bounds(0.0, prior=prior)
    assert 0.0 < low < 0.1 < high
    rate = NEVER_ASKED.since(0.0)
    for turn in range(1, 21):
        rate = rate.asked(100.0 * turn, prior)
    assert rate.per_s(2000.0, prior) == pytest.approx(0.01, rel=0.2)


def test_a_burst_that_has_begun_is_expected_to_be_as_long_as_others() -> None:
    rate = asked_at([100.0], NEVER_ASKED.since(0.0))
    assert rate.per_s(100.0, Prior(5.0, 500.0, 10.0)) > 4 * rate.per_s(100.0, Prior(5.0, 500.0, 1.0))


def test_an_ordered_rate_is_certain() -> None:
    assert NEVER_ASKED.with_order(0.25).asked(7.0).bounds(1e6) == (0.25, 0.25)
    assert NEVER_ASKED.with_order(0.0).per_s(1.0) == 0.0


def test_what_comes_beside_an_order_is_learned() -> None:
    rate = asked_at([float(each) for each in range(100)], NEVER_ASKED.with_order(0.01))
    assert rate.per_s(99.0) == pytest.approx(1.0, rel=0.1)
    assert rate.per_s(1e6) == 0.01
    assert rate.with_order(0.0).per_s(1e6) < 0.01


def test_a_long_burst_does_not_make_the_pause_before_it_forgotten() -> None:
    rate = asked_at([1000.0 * turn + 0.1 * each for turn in range(1, 4) for each in range(200)], NEVER_ASKED.since(0.0))
    assert rate.per_s(3020.0) == pytest.approx(600 / 3020.0, rel=0.25)


@settings(deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), max_size=40), st.floats(-1e12, 1e12))
def test_whatever_the_clock_says_it_stays_sane(times: list[float], now_s: float) -> None:
    rate = asked_at(times)
    low, high = rate.bounds(now_s)
    assert isfinite(rate.per_s(now_s))
    assert 0.0 <= low <= high
    assert all(isfinite(each) for each in (rate.count, rate.gaps_s, rate.bursts, rate.shared))


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=60, unique=True).map(sorted))
def test_the_rate_lies_among_the_gaps(times: list[float]) -> None:
    gaps = [max(1e-6, later - sooner) for sooner, later in pairwise(times)]
    rate = asked_at(times).per_s(times[-1])
    assert 1 / max(gaps) * (1 - 1e-6) <= rate <= 1 / min(gaps) * (1 + 1e-6)
