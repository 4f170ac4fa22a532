import random
from math import inf, isfinite, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.device import LinkKind, LinkQuality
from gatewayd.core.estimate import AGEING_S, Estimate, LinkEstimate, default_link


def after(start: Estimate, values: list[float]) -> Estimate:
    current = start
    for value in values:
        current = current.observed(value)
    return current


def test_a_prior_is_what_it_says() -> None:
    assert Estimate.prior(10.0, relative_sd=0.5) == Estimate(10.0, 25.0, 0.0)


@pytest.mark.parametrize(("mean", "relative_sd"), [(-1.0, 0.5), (nan, 0.5), (inf, 0.5), (1.0, -0.5), (1.0, nan)])
def test_an_impossible_prior_is_refused(mean: float, relative_sd: float) -> None:
    with pytest.raises(ValueError, match="a prior needs a finite mean"):
        Estimate.prior(mean, relative_sd=relative_sd)


def test_the_first_observations_replace_a_prior_that_is_ten_times_off() -> None:
    once = Estimate.prior(0.1).observed(0.01)
    thrice = after(once, [0.01, 0.01])
    assert once.mean == pytest.approx(0.01 + 0.09 / 5)
    assert thrice.mean == pytest.approx(0.01, rel=0.75)
    assert after(thrice, [0.01] * 30).mean == pytest.approx(0.01, rel=0.1)


def test_it_follows_a_change() -> None:
    changed = after(after(Estimate.prior(0.01), [0.01] * 50), [0.1] * 60)
    assert changed.mean == pytest.approx(0.1, rel=0.1)


def test_one_hiccup_does_not_drown_the_rest() -> None:
    calm = after(Estimate.prior(0.01), [0.009, 0.011] * 20)
    assert calm.observed(100.0).mean < 0.015


def test_zeros_do_not_pin_it_to_zero() -> None:
    assert after(after(Estimate.prior(0.0), [0.0] * 30), [5.0] * 60).mean == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize("value", [nan, inf, -inf, -0.001])
def test_impossible_measurements_are_ignored(value: float) -> None:
    estimate = Estimate.prior(1.0).observed(2.0)
    assert estimate.observed(value) is estimate


def test_the_optimistic_bound() -> None:
    assert Estimate(10.0, 4.0, 0.0).optimistic() == 8.0
    assert Estimate(10.0, 4.0, 3.0).optimistic() == 9.0
    assert Estimate(10.0, 4.0, 3.0).optimistic(2.0) == 8.0
    assert Estimate(10.0, 4.0, 3.0).optimistic(0.0) == 10.0
    assert Estimate(1.0, 400.0, 0.0).optimistic() == 0.0
    assert Estimate(10.0, 4.0, 3.0).upper() == 11.0


@given(st.floats(0, 1e9), st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50))
def test_whatever_is_reported_the_estimate_stays_sane(mean: float, values: list[float]) -> None:
    estimate = after(Estimate.prior(mean), values)
    assert isfinite(estimate.mean)
    assert isfinite(estimate.variance)
    assert estimate.mean >= 0.0
    assert estimate.variance >= 0.0
    assert 0.0 <= estimate.optimistic() <= estimate.mean <= estimate.upper()
    assert 0.0 <= estimate.count <= 20.0


@given(st.floats(0.001, 1e6), st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
def test_the_mean_stays_among_what_was_seen(mean: float, values: list[float]) -> None:
    estimate = after(Estimate.prior(mean), values)
    assert min(mean, *values) * (1 - 1e-9) <= estimate.mean <= max(mean, *values) * (1 + 1e-9)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 20), st.floats(0, 20))
def test_the_bound_narrows_with_the_count(mean: float, variance: float, count: float, more: float) -> None:
    assert Estimate(mean, variance, count).optimistic() <= Estimate(mean, variance, count + more).optimistic()


def pinged(link: LinkEstimate, rtt_s: float, *, times: int = 20) -> LinkEstimate:
    for _ in range(times):
        link = link.after_ping(rtt_s)
    return link


def test_goodput_is_what_is_left_after_the_round_trip() -> None:
    link = pinged(default_link(LinkKind.MQTT), 0.020)
    for _ in range(20):
        link = link.after_transfer(1024, 0.020 + 1024 / 20_000)
    assert link.rtt.mean == pytest.approx(0.020, rel=0.02)
    assert link.goodput.mean == pytest.approx(20_000, rel=0.03)
    assert link.transfer_s(2000) == pytest.approx(0.020 + 0.1, rel=0.03)


@pytest.mark.parametrize(("byte_count", "elapsed_s"), [(255, 1.0), (1024, nan), (1024, inf)])
def test_transfers_too_small_to_tell_are_ignored(byte_count: int, elapsed_s: float) -> None:
    link = pinged(default_link(LinkKind.MQTT), 0.020)
    assert link.after_transfer(byte_count, elapsed_s) is link


def test_optimism_takes_the_link_at_its_best() -> None:
    link = LinkEstimate(Estimate(0.1, 0.0001, 0), Estimate(1000.0, 10_000.0, 0), Estimate(0.0, 0.0, 0))
    assert link.transfer_s(100) == pytest.approx(0.2)
    assert link.transfer_s(100, z=1.0) == pytest.approx(0.09 + 100 / 1100)


def test_a_link_that_carries_nothing_still_has_a_finite_transfer_time() -> None:
    link = LinkEstimate(Estimate.prior(0.0), Estimate.prior(0.0), Estimate.prior(0.0))
    assert link.transfer_s(100) == 100.0


def test_one_early_loss_does_not_condemn_a_link_but_many_do() -> None:
    once = default_link(LinkKind.MQTT).after_outcome(ok=False)
    assert 0.05 < once.failures.mean < 0.15
    for _ in range(60):
        once = once.after_outcome(ok=False)
    assert once.failures.mean > 0.9
    assert once.failures.mean <= 1.0


def test_rare_losses_are_counted_in_full() -> None:
    link = default_link(LinkKind.MQTT)
    for turn in range(400):
        link = link.after_outcome(ok=turn % 10 != 0)
    assert link.failures.mean == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("kind", LinkKind)
def test_every_kind_of_link_has_a_prior(kind: LinkKind) -> None:
    link = default_link(kind)
    quality = link.quality()
    assert quality == LinkQuality(link.rtt.mean, link.goodput.mean, link.failures.mean)
    assert 0.0 < quality.rtt_s < 1.0
    assert 2_500 <= quality.goodput_bytes_per_s <= 87_500
    assert 0.0 < quality.loss < 0.1


def test_a_link_faster_than_its_prior_is_found_out_although_only_bounded_from_below() -> None:
    link = default_link(LinkKind.MQTT)
    for _ in range(10):
        link = link.after_ping(0.010).after_transfer(700, 0.0115)
    assert link.transfer_s(700) == pytest.approx(0.0115, rel=0.2)


def noisy(mean: float, *, seed: int, count: int, spread: float = 0.1) -> list[float]:
    chance = random.Random(seed)  # noqa: S311 - repeatable noise
    return [max(0.0, chance.gauss(mean, spread * mean)) for _ in range(count)]


@pytest.mark.parametrize("factor", [0.3, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_drift_is_followed_within_a_few_measurements(factor: float, seed: int) -> None:
    calm = after(Estimate.prior(1.0), noisy(1.0, seed=seed, count=100))
    moved = after(calm, noisy(factor, seed=seed + 100, count=8))
    assert moved.mean == pytest.approx(factor, rel=0.15)


def test_a_drift_makes_it_unsure_again() -> None:
    calm = after(Estimate.prior(1.0), noisy(1.0, seed=1, count=100))
    moved = after(calm, [3.0] * 3)
    assert calm.count == 20.0
    assert moved.count < 3.0
    assert moved.optimistic() < 3.0 < moved.upper(2.0)


def test_noise_is_rarely_taken_for_a_drift() -> None:
    estimate, forgotten = after(Estimate.prior(1.0), noisy(1.0, seed=7, count=50)), 0
    for value in noisy(1.0, seed=8, count=5000):
        estimate = estimate.observed(value)
        forgotten += estimate.count < 2.0
    assert forgotten <= 5


def test_a_single_hiccup_is_no_drift() -> None:
    calm = after(Estimate.prior(1.0), noisy(1.0, seed=3, count=100))
    assert calm.observed(1000.0).count == 20.0


def test_an_old_estimate_is_as_unsure_as_a_prior() -> None:
    fresh = Estimate.prior(1.0)
    for turn in range(30):
        fresh = fresh.observed(1.0, at_s=100.0 + turn)
    old = fresh.aged(129.0 + 20 * AGEING_S)
    assert fresh.aged(129.0) is fresh
    assert fresh.aged(0.0) is fresh
    assert old.mean == fresh.mean
    assert old.count == pytest.approx(0.0, abs=1e-6)
    assert old.optimistic() == pytest.approx(Estimate.prior(1.0).optimistic(), rel=1e-3)


def test_without_a_time_it_does_not_age() -> None:
    estimate = Estimate.prior(1.0).observed(2.0)
    assert estimate.aged(1e9) is estimate


@given(st.floats(0.001, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_bounds_only_widen_with_age(mean: float, soon_s: float, later_s: float) -> None:
    estimate = after(Estimate.prior(mean), [mean, mean * 1.1, mean * 0.9]).observed(mean, at_s=0.0)
    sooner, later = estimate.aged(soon_s), estimate.aged(soon_s + later_s)
    assert later.optimistic() <= sooner.optimistic() * (1 + 1e-9)
    assert later.upper() >= sooner.upper() * (1 - 1e-9)


def test_an_old_estimate_takes_the_first_new_value_more_seriously() -> None:
    estimate = Estimate.prior(1.0)
    for turn in range(30):
        estimate = estimate.observed(1.0, at_s=float(turn))
    assert estimate.observed(2.0, at_s=20 * AGEING_S).mean > estimate.observed(2.0, at_s=30.0).mean + 0.3


def test_a_link_ages_as_its_parts_do() -> None:
    link = default_link(LinkKind.MQTT)
    for turn in range(10):
        link = link.after_ping(0.02, at_s=float(turn)).after_transfer(5000, 0.12, at_s=float(turn))
    aged = link.aged(1e6)
    assert aged.transfer_s(1000) == link.transfer_s(1000)
    assert aged.transfer_s(1000, z=1.0) < link.transfer_s(1000, z=1.0)


def test_a_link_far_slower_than_believed_is_known_after_one_transfer() -> None:
    """Seconds are averaged: of a prior of 50,000 B/s a fifth of its 10 ms is left, not a fifth of its rate."""
    link = default_link(LinkKind.MQTT).after_ping(0.9)
    slow = link.after_transfer(500, link.rtt.mean + 500 / 690)
    assert slow.transfer_s(500) - slow.rtt.mean == pytest.approx(0.8 * 500 / 690 + 0.2 * 0.010, rel=1e-6)
    assert 690 <= slow.goodput.mean < 900


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**30), st.floats(0, 1e6)), max_size=30))
def test_whatever_transfers_take_the_goodput_stays_a_number(transfers: list[tuple[int, float]]) -> None:
    link = default_link(LinkKind.LWM2M)
    for turn, (byte_count, elapsed_s) in enumerate(transfers):
        link = link.after_transfer(byte_count, elapsed_s, at_s=turn * 1000.0)
        assert 0.0 < link.goodput.mean <= 1e12
        assert 0.0 <= link.goodput.variance < inf
        assert link.transfer_s(100, z=1.0) <= link.transfer_s(100)
