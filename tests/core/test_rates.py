import random
from itertools import pairwise
from math import inf, isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.rates import NEVER_ASKED, Rate


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
    steady, bursts, now_s = NEVER_ASKED, NEVER_ASKED, 0.0
    for turn in range(60):
        steady = steady.after_gap(chance.expovariate(1.0))
        bursts = bursts.after_gap(0.01 if turn % 10 else 10.0)
    low, _ = steady.bounds(now_s)
    burst_low, _ = bursts.bounds(now_s)
    assert burst_low / bursts.per_s(now_s) < low / steady.per_s(now_s) - 0.1


def test_the_bounds_hold_as_often_as_they_say() -> None:
    chance = random.Random(2)  # noqa: S311 - repeatable arrivals
    below = 0
    for _ in range(500):
        rate = NEVER_ASKED
        for _ in range(10):
            rate = rate.after_gap(chance.expovariate(3.0))
        low, high = rate.bounds(0.0)
        below += low <= 3.0 <= high
    assert 0.6 < below / 500 < 0.76  # one deviation to each side: 68 %


def test_what_others_do_is_worth_two_gaps() -> None:
    pool = asked_at([float(turn) for turn in range(60)])
    rate = Rate.believed(pool)
    assert rate.count == 2.0
    assert rate.per_s(0.0) == pytest.approx(1.0)
    assert asked_at([100.0 * turn for turn in range(20)], rate).per_s(1900.0) == pytest.approx(0.01, rel=0.2)
    assert Rate.believed(NEVER_ASKED) == NEVER_ASKED
    assert Rate.believed(Rate.known(1.0)) == NEVER_ASKED


def test_a_known_rate_is_certain() -> None:
    assert Rate.known(0.25).asked(7.0).bounds(1e6) == (0.25, 0.25)
    assert Rate.known(0.0).per_s(1.0) == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), max_size=40), st.floats(-1e12, 1e12))
def test_whatever_the_clock_says_it_stays_sane(times: list[float], now_s: float) -> None:
    rate = asked_at(times)
    low, high = rate.bounds(now_s)
    assert isfinite(rate.per_s(now_s))
    assert 0.0 <= low <= high
    assert all(isfinite(each) for each in (rate.count, rate.gaps_s, rate.squares))


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=60, unique=True).map(sorted))
def test_the_rate_lies_among_the_gaps(times: list[float]) -> None:
    gaps = [max(1e-6, later - sooner) for sooner, later in pairwise(times)]
    rate = asked_at(times).per_s(times[-1])
    assert 1 / max(gaps) * (1 - 1e-6) <= rate <= 1 / min(gaps) * (1 + 1e-6)
