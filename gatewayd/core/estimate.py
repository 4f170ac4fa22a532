"""What is believed of a quantity that is measured again and again: compute time, energy, a link's round trip and goodput.

Placement predicts with these. Each starts from a prior and follows its measurements; all arithmetic is O(1) per measurement.
"""

from dataclasses import replace
from math import exp, isfinite, sqrt
from typing import Self

from gatewayd.core.device import Bearer, LinkKind, LinkQuality
from gatewayd.core.record import record

# The prior counts as a quarter of an observation: the first one replaces 80 % of it.
_PRIOR_WORTH = 0.25
# About this many observations are remembered; more would follow a change of load too slowly, fewer would chase noise.
_MEMORY = 20.0
# From the third observation on, a value counts at most as 2 means + 10 deviations: one hiccup must not drown the rest, and
# a real change still gets through in a few steps because each clipped value widens the deviation.
_TRUSTED_COUNT = 3.0
_OUTLIER_MEANS = 2.0
_OUTLIER_DEVIATIONS = 10.0
# Keeps squares finite whatever a device reports.
_LARGEST = 1e12
# Drift: a two-sided CUSUM over residuals in standard deviations. Half a deviation is noise, one residual counts at most
# three (a hiccup alone raises no alarm), and seven in sum do: three far values in a row, or five that are two deviations off.
# Source: Page 1954, "Continuous inspection schemes" (slack and limit in deviations as in Montgomery's textbook tables).
_SLACK, _RESIDUAL_LIMIT, _ALARM = 0.5, 3.0, 7.0
# Deviations below a twentieth of the mean are not worth an alarm, however steady the quantity was.
_LEAST_RELATIVE_SD = 0.05
# What was not measured for this long is two thirds on its way back to being as unsure as a prior.
AGEING_S = 3600.0
# What is younger does not age: it would widen by less than 2 %, and decisions have microseconds.
_FRESH_S = 60.0
_PRIOR_RELATIVE_SD = 0.5
# Below this a transfer says more about the round trip than about the goodput.
_TELLING_BYTES = 256
_TELLING_SHARE = 0.1
_SLOWEST_BYTES_PER_S = 1.0


@record
class Estimate:
    """Recency-weighted mean and variance of a quantity that is never negative.

    `count` is how many observations the mean is worth now: 0 for a prior, never above 20, because old ones are forgotten.
    `rise` and `fall` are the evidence that it has drifted (standard deviations, 0..7); when either is enough, what was seen
    before counts as a prior again. `at_s` is when it was measured last (None: nobody said; then it does not age).
    Source of the update: West 1979, "Updating mean and variance estimates" (incremental, exponentially weighted form).
    """

    mean: float
    variance: float
    count: float
    rise: float = 0.0
    fall: float = 0.0
    at_s: float | None = None

    @classmethod
    def prior(cls, mean: float, *, relative_sd: float = _PRIOR_RELATIVE_SD) -> Self:
        """Return what is believed before anything was measured.

        Raises: ValueError when `mean` or `relative_sd` is negative or not finite.
        """
        if not (isfinite(mean) and isfinite(relative_sd) and mean >= 0.0 and relative_sd >= 0.0):
            message = f"a prior needs a finite mean and deviation from 0 up, got {mean} and {relative_sd}"
            raise ValueError(message)
        return cls(mean, (mean * relative_sd) ** 2, 0.0)

    def observed(self, value: float, *, at_s: float | None = None) -> Self:
        """Return the estimate after a measurement at `at_s` (seconds of any steady clock).

        Values that are negative or not finite are ignored, outliers clipped. When the values have drifted away, the old ones
        are forgotten at once: this one then counts four fifths, and those after it shape the estimate as first ones do.
        """
        if not isfinite(value) or value < 0.0:
            return self
        if at_s is not None and (aged := self.aged(at_s)) is not self:
            return aged.observed(value, at_s=at_s)
        rise, fall = self._evidence(value)
        has_drifted = max(rise, fall) >= _ALARM
        value = min(value, self._ceiling())
        if has_drifted:
            return self._moved(value, count=0.0, at_s=at_s)
        return self._moved(value, count=self.count, rise=rise, fall=fall, at_s=at_s)

    def aged(self, now_s: float) -> Self:
        """Return what is believed at `now_s`: the longer nothing was measured, the wider the bounds and the less it is worth.

        The mean stays. So an option that was given up comes up for another try, sooner the closer it was.
        """
        if self.at_s is None or now_s - self.at_s < _FRESH_S:
            return self
        share = 1.0 - exp((self.at_s - now_s) / AGEING_S)
        wide = max(self.variance, (_PRIOR_RELATIVE_SD * self.mean) ** 2)
        return replace(
            self, variance=self.variance + share * (wide - self.variance), count=self.count * (1.0 - share), at_s=now_s
        )

    def _evidence(self, value: float) -> tuple[float, float]:
        if self.count < _TRUSTED_COUNT:
            return 0.0, 0.0
        scale = max(sqrt(self.variance), _LEAST_RELATIVE_SD * self.mean, 1e-12)
        residual = max(-_RESIDUAL_LIMIT, min(_RESIDUAL_LIMIT, (value - self.mean) / scale))
        return max(0.0, self.rise + residual - _SLACK), max(0.0, self.fall - residual - _SLACK)

    def optimistic(self, z: float = 1.0) -> float:
        """Return the lower confidence bound, `z` standard errors below the mean, never below 0 (z = 0: the mean)."""
        if z == 0.0:
            return self.mean
        return max(0.0, self.mean - z * sqrt(self.variance / (self.count + 1.0)))

    def upper(self, z: float = 1.0) -> float:
        """Return the upper confidence bound: the optimistic side of a quantity that is better when larger, like goodput."""
        return self.mean + z * sqrt(self.variance / (self.count + 1.0))

    def _ceiling(self) -> float:
        limit = _OUTLIER_MEANS * self.mean + _OUTLIER_DEVIATIONS * sqrt(self.variance)
        return min(limit, _LARGEST) if self.count >= _TRUSTED_COUNT and limit > 0.0 else _LARGEST

    def _moved(
        self, value: float, *, count: float, rise: float = 0.0, fall: float = 0.0, at_s: float | None = None
    ) -> Self:
        weight = 1.0 / (count + 1.0 + _PRIOR_WORTH)
        delta = value - self.mean
        variance = (1.0 - weight) * (self.variance + weight * delta * delta)
        return type(self)(self.mean + weight * delta, variance, min(count + 1.0, _MEMORY), rise, fall, at_s)

    def tallied(self, happened: bool) -> Self:  # noqa: FBT001 - the one thing this is about is a yes or no
        """Return the estimate of a probability after one more case; a 1 among many 0s is rare, not an outlier."""
        return self._moved(1.0 if happened else 0.0, count=self.count)


@record
class LinkEstimate:
    """What is believed of the way to a device: seconds for a small message and its answer, bytes/s, P(a message is lost)."""

    rtt: Estimate
    goodput: Estimate
    failures: Estimate

    def after_ping(self, rtt_s: float, *, at_s: float | None = None) -> Self:
        """Return the estimate after a measured round trip. Whether it was answered at all goes to `after_outcome`."""
        return replace(self, rtt=self.rtt.observed(rtt_s, at_s=at_s))

    def aged(self, now_s: float) -> Self:
        """Return what is believed of the link at `now_s`, see `Estimate.aged`."""
        return replace(self, rtt=self.rtt.aged(now_s), goodput=self.goodput.aged(now_s))

    def after_transfer(self, byte_count: int, elapsed_s: float, *, at_s: float | None = None) -> Self:
        """Return the estimate after `byte_count` bytes and their answer took `elapsed_s`.

        Goodput is bytes / (elapsed - round trip). Under 256 bytes nothing can be told. What is left within what is unsure of the
        round trip bounds the goodput from below only: it counts where more was not believed yet.
        """
        left_s = elapsed_s - self.rtt.mean
        unsure_s = sqrt(self.rtt.variance / (self.rtt.count + 1.0))
        floor_s = max(_TELLING_SHARE * self.rtt.mean, unsure_s, 1e-9)
        if byte_count < _TELLING_BYTES or not isfinite(left_s):
            return self
        rate = byte_count / max(left_s, floor_s)
        if left_s <= floor_s and rate <= self.goodput.mean:
            return self
        return replace(self, goodput=_after_pace(self.goodput, 1.0 / rate, at_s=at_s))

    def after_outcome(self, ok: bool) -> Self:  # noqa: FBT001 - the one thing this is about is a yes or no
        """Return the estimate after an exchange that was answered (or was not)."""
        return replace(self, failures=self.failures.tallied(not ok))

    def transfer_s(self, byte_count: float, *, z: float = 0.0) -> float:
        """Return the seconds a small message and an answer of `byte_count` bytes (or the reverse) take.

        `z` > 0 takes round trip and goodput at their optimistic bounds.
        """
        rate = self.goodput.upper(z) if z else self.goodput.mean
        return self.rtt.optimistic(z) + byte_count / max(rate, _SLOWEST_BYTES_PER_S)

    def quality(self) -> LinkQuality:
        """Return the means, as a device's view shows them."""
        return LinkQuality(self.rtt.mean, self.goodput.mean, self.failures.mean)


def _after_pace(goodput: Estimate, s_per_byte: float, *, at_s: float | None) -> Estimate:
    """Return the goodput after a transfer at that pace.

    Seconds per byte are averaged, not bytes per second: costs are sums of seconds. The mean of 50,000 and 500 B/s is 25,000, and
    a link that takes two seconds for 1,000 bytes would be thought to take 40 ms until many transfers have said otherwise.
    """
    rate = max(goodput.mean, _SLOWEST_BYTES_PER_S)
    pace = Estimate(1.0 / rate, goodput.variance / rate**4, goodput.count, goodput.fall, goodput.rise, goodput.at_s)
    pace = pace.observed(s_per_byte, at_s=at_s)
    rate = 1.0 / max(pace.mean, 1.0 / _LARGEST)
    return Estimate(rate, pace.variance * rate**4, pace.count, pace.fall, pace.rise, pace.at_s)


# Source: nominal usable rates, BLE 100-700 kb/s and 802.15.4 20-60 kb/s; their middles stand for the boards that speak
# MQTT and LwM2M. Round trips are assumed (30 ms: a hop and a broker; 100 ms: a mesh hop with 64-byte blocks) and wide on
# purpose: the first pings replace them.
_RATES_BYTES_PER_S = {LinkKind.MQTT: 50_000.0, LinkKind.LWM2M: 5_000.0}
_ROUND_TRIPS_S = {LinkKind.MQTT: 0.030, LinkKind.LWM2M: 0.100}
# 2 % lost, believed as firmly as 10 observations: one early loss must not condemn a device.
_LOSS, _LOSS_COUNT = 0.02, 10.0


# What a device says of its last hop is a better guess than how it speaks: round trip in seconds, bytes per second. Source: orders
# of magnitude of what applications see; NB-IoT 20 kb/s of the 26 to 66 that Release 13 has at most, and over a second to get a
# channel (3GPP TR 45.820 asks for at most 10 s); 802.15.4 and BLE as above, LTE Cat 1 or M1, WLAN with a small TCP stack.
_BEARERS = {
    Bearer.WIRED: (0.002, 1_000_000.0),
    Bearer.WLAN: (0.010, 500_000.0),
    Bearer.BLUETOOTH: (0.045, 37_500.0),
    Bearer.IEEE_802_15_4: (0.050, 5_000.0),
    Bearer.LTE: (0.080, 100_000.0),
    Bearer.CELLULAR: (0.500, 10_000.0),
    Bearer.NB_IOT: (1.5, 2_500.0),
}


def default_link(kind: LinkKind, bearer: Bearer | None = None) -> LinkEstimate:
    """Return what is believed before anything was measured of a link of that kind, over that bearer where the device says it."""
    failures = Estimate(_LOSS, _LOSS * (1.0 - _LOSS), _LOSS_COUNT)
    rtt_s, rate = _BEARERS[bearer] if bearer else (_ROUND_TRIPS_S[kind], _RATES_BYTES_PER_S[kind])
    return LinkEstimate(Estimate.prior(rtt_s), Estimate.prior(rate), failures)
