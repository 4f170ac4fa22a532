"""What a model's devices do together, as a prior for each of them: bursts of requests over the time in which they could come.

Pure, O(1): whatever the number of devices, a fleet is seven numbers. Devices that were never asked count, and so does the silence
that has not ended yet: the first of a thousand to be asked is no sign of a thousand busy devices.

How much the others count depends on how alike they are, which is learned (empirical Bayes): with rates that are gamma-distributed
with shape k around the fleet's, the others' bursts are worth k at most. A fleet in which few are asked, and those often, soon
counts for nothing beside a device's own gaps.
Source: Robbins 1956, "An empirical Bayes approach to statistics"; k by the method of moments (pairs of bursts on the same
device, over as many as there were if all were alike).
"""

from math import exp, log
from typing import Self

from gatewayd.core.rates import ALONE, FLEET_MEMORY_S, Prior, Rate
from gatewayd.core.record import record

# Before anything was seen devices of one model are taken to be so much alike (the k above: rates that differ by a third or so),
# which so many pairs of bursts that could be on one device outvote.
_ALIKE, _EVIDENCE = 8.0, 6.0
# The size of bursts begins as one burst of one request.
_SIZE_WORTH = 1.0


@record
class Fleet:
    """All devices that could be asked for a model; sums that fade with `FLEET_MEMORY_S`, as of `at_s`.

    `device_s` are the seconds in which they could be asked, of all together; `requests` and `bursts` came in these. `pairs` are
    the (ordered) pairs of bursts on the same device; they fade twice as fast. `at_s` None: nobody was asked yet.
    """

    devices: int = 0
    device_s: float = 0.0
    requests: float = 0.0
    bursts: float = 0.0
    pairs: float = 0.0
    at_s: float | None = None

    def at(self, now_s: float, *, devices: int, since_s: float | None = None) -> Self:
        """Return it at `now_s`, with so many devices from now on; those there were have been there until now.

        `since_s` is from when on the first ones could be asked, if that is known (None: from now on).
        """
        if self.at_s == now_s and self.devices == devices:
            return self
        start_s = (now_s if since_s is None else since_s) if self.at_s is None else self.at_s
        there = devices if self.at_s is None else self.devices
        kept = exp(-max(0.0, now_s - start_s) / FLEET_MEMORY_S)
        return type(self)(
            max(1, devices),
            self.device_s * kept + there * FLEET_MEMORY_S * (1.0 - kept),
            self.requests * kept,
            self.bursts * kept,
            self.pairs * kept * kept,
            now_s,
        )

    def asked(self, before: Rate, now_s: float, *, is_opening: bool) -> Self:
        """Return it after the device whose rate was `before` was asked, now (see `at`)."""
        opened = float(is_opening)
        pairs = self.pairs + 2.0 * opened * before.shared_at(now_s)
        return type(self)(self.devices, self.device_s, self.requests + 1.0, self.bursts + opened, pairs, self.at_s)

    def prior(self, rate: Rate, now_s: float) -> Prior:
        """Return what the others say of one of them, now (see `at`): of one with a standing order nothing."""
        if rate.ordered:
            return ALONE
        others_s = self.device_s * (self.devices - 1) / max(1, self.devices)
        if others_s <= 0.0:
            return ALONE
        bursts = max(0.0, self.bursts - rate.shared_at(now_s))
        # What the others would have shown if they were like this one: silence of many must not outweigh likeness, either.
        expected = (rate.bursts + bursts) / (rate.watched_s(now_s) + others_s) * others_s
        alike = self.alike()
        weight = self._usual(rate, now_s) * alike / (alike + expected)
        size = (self.requests + _SIZE_WORTH) / (self.bursts + _SIZE_WORTH)
        return Prior(weight * bursts, weight * others_s, max(1.0, size))

    def _usual(self, rate: Rate, now_s: float) -> float:
        """Return how usual it is, 0..1, that the busiest of so many like devices opens as many bursts as this one did.

        Far too many of them say that it is not like the others, and then they say nothing of it.
        Source: Chernoff's bound of a Poisson variable's tail, summed over the devices.
        """
        due = self.bursts / self.device_s * rate.watched_s(now_s)
        if rate.bursts <= due or due <= 0.0:
            return 1.0
        surprise = rate.bursts * log(rate.bursts / due) - (rate.bursts - due)
        return min(1.0, self.devices * exp(-surprise))

    def alike(self) -> float:
        """Return how alike the devices are: the shape of the gamma distribution of their rates, from 0 on."""
        expected = max(0.0, self.bursts * (self.bursts - 1.0)) / max(1, self.devices)
        excess = max(0.0, self.pairs - expected)
        return (expected + _EVIDENCE) / (excess + _EVIDENCE / _ALIKE)
