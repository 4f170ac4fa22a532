import pytest

from gatewayd.core.device import Profile
from gatewayd.core.priors import compute_prior, energy_prior

PROFILE = Profile("b", "m4", 100, 1, 1, "tflm", macs_per_s=50e6, energy_nj_per_mac=0.8, invoke_s=0.001, source="test")


def test_the_profile_tells_time_and_energy() -> None:
    assert compute_prior(5_000_000, clock_mhz=100, profile=PROFILE).mean == pytest.approx(0.101)
    assert energy_prior(5_000_000, profile=PROFILE).mean == pytest.approx(4000.0)


def test_without_a_profile_the_clock_tells() -> None:
    assert compute_prior(5_000_000, clock_mhz=100, profile=None).mean == pytest.approx(0.1)
    assert energy_prior(5_000_000, profile=None).mean == pytest.approx(2000.0)


def test_nothing_takes_no_time_at_all() -> None:
    assert compute_prior(0, clock_mhz=100, profile=None).mean > 0.0
