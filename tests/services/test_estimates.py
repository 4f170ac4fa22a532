import pytest

from gatewayd.core.estimate import AGEING_S
from gatewayd.core.names import DeviceId
from gatewayd.services.estimates import Estimates
from tests.services.world import ManualClock

DEVICE = DeviceId("d")


def pinged(estimates: Estimates, clock: ManualClock) -> None:
    for _ in range(20):
        clock.now_s += 1.0
        estimates.saw_ping(DEVICE, 0.02)


def test_what_was_not_measured_for_long_is_unsure_again() -> None:
    clock = ManualClock()
    estimates = Estimates(clock)
    pinged(estimates, clock)
    fresh = estimates.link(DEVICE).rtt
    clock.now_s += 20 * AGEING_S
    old = estimates.link(DEVICE).rtt
    assert old.mean == fresh.mean
    assert old.optimistic() < 0.6 * fresh.optimistic()
    estimates.saw_ping(DEVICE, 0.08)
    assert estimates.link(DEVICE).rtt.mean == pytest.approx(0.068, rel=0.01)


def test_without_a_clock_nothing_ages() -> None:
    clock = ManualClock()
    estimates = Estimates()
    pinged(estimates, clock)
    assert estimates.link(DEVICE) is estimates.link(DEVICE)
