import pytest

from gatewayd.core.device import Bearer, LinkKind
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


def test_what_a_device_says_of_its_link_is_a_guess_until_it_is_measured() -> None:
    estimates, device = Estimates(), DeviceId("cam-7")
    before = estimates.link(device).rtt.mean
    estimates.reached_by(device, LinkKind.LWM2M, Bearer.NB_IOT)
    assert estimates.link(device).rtt.mean > 10 * before
    for _ in range(20):
        estimates.saw_ping(device, 0.2)
    measured = estimates.link(device)
    estimates.reached_by(device, LinkKind.LWM2M, Bearer.NB_IOT)
    estimates.reached_by(device, LinkKind.LWM2M, None)
    assert estimates.link(device) == measured
    estimates.reached_by(device, LinkKind.LWM2M, Bearer.WLAN)
    assert estimates.link(device) == measured  # what it said before nobody knows: what was measured counts
    estimates.reached_by(device, LinkKind.LWM2M, Bearer.NB_IOT)
    assert estimates.link(device).rtt.mean == 1.5  # another radio: nothing of it was measured
    estimates.forget_device(device)
    assert estimates.link(device).rtt.mean == before
