"""What is believed before anything was measured: seconds and µJ of one inference on a board, from its profile and the MACs."""

from gatewayd.core.device import Profile
from gatewayd.core.estimate import Estimate

# A Cortex-M without a profile: int8 multiply-accumulates per clock cycle and nJ per MAC.
# Source: median of the CMSIS-NN boards in MLPerf Tiny v1.0-v1.3 (KWS, 2.66 M MACs).
MACS_PER_CYCLE = 0.5
ENERGY_NJ_PER_MAC = 0.4

_MIN_COMPUTE_S = 1e-6


def compute_prior(macs: int, *, clock_mhz: float, profile: Profile | None) -> Estimate:
    """Return the seconds of one inference of so many MACs on a board of that profile, or of that clock without one."""
    if profile is not None:
        seconds = macs / profile.macs_per_s + profile.invoke_s
    else:
        seconds = macs / (clock_mhz * 1e6 * MACS_PER_CYCLE)
    return Estimate.prior(max(seconds, _MIN_COMPUTE_S))


def energy_prior(macs: int, *, profile: Profile | None) -> Estimate:
    """Return the µJ of one inference of so many MACs."""
    per_mac_nj = profile.energy_nj_per_mac if profile is not None else ENERGY_NJ_PER_MAC
    return Estimate.prior(macs * per_mac_nj / 1000)
