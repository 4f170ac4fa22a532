"""How often something is asked, from the gaps between the times it was asked. Pure, O(1), six numbers per rate.

Requests come in bursts, as often as not; what is counted is when a burst opened, and how many requests bursts have. Requests
that come one by one are bursts of one. What others of its kind do is a prior (`gatewayd.core.fleet`). Rent-or-buy predicts with
it what a push will save; see `gatewayd.core.renting`.
"""

from math import exp, inf, isinf, sqrt
from typing import Self

from gatewayd.core.record import record

# About so many gaps are remembered: a rate that halves is noticed within a few dozen requests.
_MEMORY = 50.0
# How long a fleet remembers (see `gatewayd.core.fleet`): two of the usual horizons, so that what is predicted for a day is judged
# by the last two.
FLEET_MEMORY_S = 2 * 86_400.0
# A request continues a burst when its gap is shorter than this share of the mean pause between bursts. Of independent requests a
# tenth do, which costs them a tenth of their weight; the rate is the same either way.
_SHORT = 0.1
# Nor is a gap short, whatever others say, from this share of one's own mean pause on: a device that is asked regularly while all
# others are silent is no burst.
_SHORT_OF_OWN = 0.3
# How many bursts the size of the others' bursts is worth.
_SIZE_WORTH = 1.0
_SHORTEST_GAP_S, _LONGEST_GAP_S = 1e-6, 1e9  # keep sums and rates finite, whatever a clock says


@record
class Prior:
    """What others of its kind say of a rate: `bursts` that opened in `device_s` seconds of a device, of `size` requests each."""

    bursts: float = 0.0
    device_s: float = 0.0
    size: float = 1.0


ALONE = Prior()
"""There are no others."""


@record
class Rate:
    """Exponentially weighted gaps: how many (`count`), their sum in seconds, the bursts they opened; when the last gap ended.

    `last_s` None: nobody looked yet. A rate with `count` inf is known (a standing order's), not estimated. `shared` are the
    bursts of it that the fleet remembered at `last_s`.
    """

    count: float = 0.0
    gaps_s: float = 0.0
    bursts: float = 0.0
    last_s: float | None = None
    shared: float = 0.0

    @classmethod
    def known(cls, per_s: float) -> Self:
        """Return the rate of something that comes `per_s` times a second for certain."""
        return cls(inf, 1.0 / per_s if per_s > 0.0 else inf)

    def since(self, start_s: float) -> Self:
        """Return the rate of what could be asked from `start_s` on: the silence before the first request is a gap, too.

        Without it the first burst of many looks as if it would go on for ever.
        """
        return type(self)(self.count, self.gaps_s, self.bursts, start_s, self.shared)

    def opens(self, now_s: float, prior: Prior = ALONE) -> bool:
        """Return whether a request at `now_s` opens a burst; else it continues one."""
        if isinf(self.count) or self.last_s is None or self.bursts <= 0.0:
            return True
        own_s = self.gaps_s / self.bursts
        all_s = (self.gaps_s + prior.device_s) / (self.bursts + prior.bursts)
        return now_s - self.last_s >= min(_SHORT * all_s, _SHORT_OF_OWN * own_s)

    def asked(self, now_s: float, prior: Prior = ALONE) -> Self:
        """Return the rate after it was asked at `now_s`."""
        if isinf(self.count):
            return type(self)(self.count, self.gaps_s, self.bursts, now_s)
        if self.last_s is None:
            return type(self)(self.count, self.gaps_s, self.bursts, now_s, self.shared)
        opened = float(self.opens(now_s, prior))
        shared = self.shared_at(now_s) + opened
        gap_s = max(_SHORTEST_GAP_S, min(now_s - self.last_s, _LONGEST_GAP_S))
        kept = 1.0 - 1.0 / _MEMORY
        return type(self)(
            self.count * kept + 1.0, self.gaps_s * kept + gap_s, self.bursts * kept + opened, now_s, shared
        )

    def shared_at(self, now_s: float) -> float:
        """Return its bursts as far as the fleet remembers them at `now_s`."""
        if self.last_s is None or now_s <= self.last_s:
            return self.shared
        return self.shared * exp((self.last_s - now_s) / FLEET_MEMORY_S)

    def watched_s(self, now_s: float) -> float:
        """Return the seconds that its gaps took, with what the silence now lasts beyond a mean gap."""
        if self.count <= 0.0 or self.last_s is None:
            return self.gaps_s
        return self.gaps_s + max(0.0, now_s - self.last_s - self.gaps_s / self.count)

    def per_s(self, now_s: float, prior: Prior = ALONE) -> float:
        """Return the requests per second; silence longer than the mean gap lowers it."""
        if isinf(self.count):
            return 1.0 / self.gaps_s
        watched_s = self.watched_s(now_s) + prior.device_s
        if watched_s <= 0.0:
            return 0.0
        if prior.device_s <= 0.0:
            return self.count / watched_s
        size = (self.count + _SIZE_WORTH * prior.size) / (self.bursts + _SIZE_WORTH)
        return (self.bursts + prior.bursts) / watched_s * size

    def bounds(self, now_s: float, *, z: float = 1.0, prior: Prior = ALONE) -> tuple[float, float]:
        """Return the confidence bounds of `per_s`; with nothing seen, 0 and inf.

        Bursts that open independently make their rate gamma-distributed: their number is its shape, the seconds watched its
        rate, and the prior adds to both. All requests together count for one burst at least.
        Source: Wilson, Hilferty 1931 (cube-root approximation).
        """
        rate = self.per_s(now_s, prior)
        if isinf(self.count):
            return rate, rate
        shape = max(min(1.0, self.count), self.bursts) + prior.bursts
        if shape <= 0.0:
            return 0.0, inf
        middle, side = 1.0 - 1.0 / (9.0 * shape), z / (3.0 * sqrt(shape))
        return rate * max(0.0, middle - side) ** 3, rate * max(0.0, middle + side) ** 3


NEVER_ASKED = Rate()
