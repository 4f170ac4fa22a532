import random
from math import isfinite
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.fleet import Fleet
from gatewayd.core.rates import ALONE, FLEET_MEMORY_S, NEVER_ASKED, Prior, Rate

DAY_S = 86_400.0


class Play:
    """A fleet and the rates of those of its devices that are asked; all of them are there from 0 on."""

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self.fleet = Fleet()
        self.rates: dict[int, Rate] = {}

    def asked(self, device: int, now_s: float) -> None:
        self.fleet = self.fleet.at(now_s, devices=self.devices, since_s=0.0)
        before = self.rates.get(device, NEVER_ASKED.since(0.0))
        prior = self.fleet.prior(before, now_s)
        self.fleet = self.fleet.asked(before, now_s, is_opening=before.opens(now_s, prior))
        self.rates[device] = before.asked(now_s, prior)

    def prior(self, device: int, now_s: float) -> Prior:
        return self.fleet.at(now_s, devices=self.devices).prior(self.rates.get(device, NEVER_ASKED.since(0.0)), now_s)

    def low(self, device: int, now_s: float) -> float:
        low, _ = self.rates[device].bounds(now_s, prior=self.prior(device, now_s))
        return low

    def per_s(self, device: int, now_s: float) -> float:
        return self.rates[device].per_s(now_s, self.prior(device, now_s))


def arrivals(chance: random.Random, per_s: list[float], until_s: float, *, burst: int = 1) -> list[tuple[float, int]]:
    found = []
    for device, rate in enumerate(per_s):
        now_s = chance.expovariate(rate / burst)
        while now_s < until_s:
            found += [(now_s + turn, device) for turn in range(burst)]
            now_s += burst + chance.expovariate(rate / burst)
    return sorted(found)


def played(devices: int, requests: list[tuple[float, int]]) -> Play:
    play = Play(devices)
    for now_s, device in requests:
        play.asked(device, now_s)
    return play


@settings(deadline=None)
@given(st.floats(1.0, 1e5), st.integers(1, 500), st.integers(1, 500))
def test_silent_siblings_lower_what_is_predicted(first_s: float, some: int, more: int) -> None:
    """The first of many to be asked is no sign that all are busy."""
    few, many = played(some, [(first_s, 0)]), played(some + more, [(first_s, 0)])
    alone = played(1, [(first_s, 0)])
    assert many.per_s(0, first_s) < few.per_s(0, first_s) * (1 + 1e-9)
    assert many.per_s(0, first_s) < alone.per_s(0, first_s)
    assert many.low(0, first_s) < alone.low(0, first_s)


def test_a_device_alone_has_no_prior() -> None:
    assert played(1, [(10.0, 0), (20.0, 0)]).prior(0, 20.0) == ALONE


def test_the_fleet_tells_of_a_device_before_it_is_asked_often() -> None:
    """Twelve devices with one rate: at a device's first request the others know it already."""
    chance, per_s = random.Random(3), 20.0 / DAY_S  # noqa: S311 - repeatable arrivals
    play = Play(12)
    first: list[float] = []
    for now_s, device in arrivals(chance, [per_s] * 12, DAY_S):
        is_first = device not in play.rates
        play.asked(device, now_s)
        if is_first and len(first) < 12:
            first.append(play.per_s(device, now_s) / per_s)
    assert len(first) == 12
    assert 0.5 < median(first) < 2.0
    assert 0.5 < play.per_s(0, DAY_S) / per_s < 1.5
    assert play.fleet.alike() > 8.0


@pytest.mark.parametrize("busy", [1, 5])
def test_few_that_are_asked_among_a_thousand_are_not_starved(busy: int) -> None:
    """After three requests what is predicted is about what their own gaps say, whatever all the others do not."""
    found = []
    for seed in range(9):
        chance = random.Random(seed)  # noqa: S311 - repeatable arrivals
        play, seen = Play(1000), dict.fromkeys(range(busy), 0)
        for now_s, device in arrivals(chance, [10.0 / DAY_S] * busy, DAY_S):
            play.asked(device, now_s)
            seen[device] += 1
            if seen[device] == 3:
                found.append(play.per_s(device, now_s) / play.rates[device].per_s(now_s))
    assert median(found) > 0.5


def test_bursts_count_once() -> None:
    """Thirty requests at once are no sign that this device is another than the rest, nor of a rate thirty times as high."""
    play = played(12, [(5000.0 + turn, 0) for turn in range(30)])
    assert play.fleet.bursts == pytest.approx(1.0, abs=0.01)
    assert play.fleet.pairs == 0.0
    assert play.prior(1, 5030.0).size > 10.0


def test_how_alike_devices_are_is_learned() -> None:
    chance = random.Random(5)  # noqa: S311 - repeatable arrivals
    same = played(12, arrivals(chance, [30.0 / DAY_S] * 12, DAY_S))
    apart = played(12, arrivals(chance, [180.0 / DAY_S] * 2 + [0.1 / DAY_S] * 10, DAY_S))
    assert same.fleet.alike() > 10.0
    assert apart.fleet.alike() < 1.0
    assert same.prior(0, DAY_S).bursts > 5.0 > apart.prior(0, DAY_S).bursts


def test_what_was_long_ago_fades() -> None:
    play = played(4, [(100.0 * turn, turn % 4) for turn in range(1, 200)])
    later = play.fleet.at(20_000.0 + 10 * FLEET_MEMORY_S, devices=4)
    assert later.bursts < 0.01
    assert later.device_s == pytest.approx(4 * FLEET_MEMORY_S, rel=0.01)


def test_devices_that_come_count_from_then_on() -> None:
    fleet = Fleet().at(1000.0, devices=2, since_s=0.0)
    assert fleet.device_s == pytest.approx(2000.0, rel=0.01)
    assert fleet.at(2000.0, devices=10).device_s == pytest.approx(4000.0, rel=0.02)
    assert fleet.at(2000.0, devices=10).at(3000.0, devices=10).device_s == pytest.approx(14_000.0, rel=0.03)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e12, 1e12), st.integers(0, 3), st.integers(0, 2000)), max_size=30),
    st.floats(-1e12, 1e12),
)
def test_whatever_the_clock_says_it_stays_sane(asked: list[tuple[float, int, int]], now_s: float) -> None:
    play = Play(4)
    for at_s, device, devices in asked:
        play.devices = devices
        play.asked(device, at_s)
    for device, rate in play.rates.items():
        prior = play.prior(device, now_s)
        low, high = rate.bounds(now_s, prior=prior)
        assert 0.0 <= low <= high
        assert isfinite(rate.per_s(now_s, prior))
        assert min(prior.bursts, prior.device_s) >= 0.0
        assert prior.size >= 1.0
    assert all(
        isfinite(each) for each in (play.fleet.device_s, play.fleet.bursts, play.fleet.pairs, play.fleet.requests)
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(0, 2**30), st.sampled_from([1, 5, 20]))
def test_the_prior_is_never_worth_more_than_there_was(devices: int, seed: int, burst: int) -> None:
    requests = arrivals(random.Random(seed), [8.0 / DAY_S] * devices, DAY_S, burst=burst)  # noqa: S311 - repeatable arrivals
    play, now_s = played(devices, requests), 2 * DAY_S
    fleet = play.fleet.at(now_s, devices=devices)
    for device in play.rates:
        prior = play.prior(device, now_s)
        assert prior.bursts <= min(fleet.bursts, fleet.alike()) + 1e-9
        assert prior.device_s <= fleet.device_s + 1e-9
