"""How often something is asked, from the gaps between the times it was asked. Pure, O(1), six numbers per rate.

Requests come in bursts, as often as not; what is counted is when a burst opened, and how many requests bursts have. Requests
that come one by one are bursts of one. What others of its kind do is a prior (`gatewayd.core.fleet`). Rent-or-buy predicts with
it what a push will save; see `gatewayd.core.renting`.
"""

from dataclasses import replace
from math import exp, inf, sqrt
from typing import Self

from gatewayd.core.record import record

# About so many bursts, and the gaps between and in them, are remembered: what comes one by one and half as often from now on is
# noticed within some dozen requests, and a long burst does not make the pause before it forgotten.
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

    `last_s` None: nobody looked yet. `shared` are the bursts of it that the fleet remembered at `last_s`. `ordered` is what a
    standing order asks for, per second: so much comes for certain, whatever comes beside it.
    """

    count: float = 0.0
    gaps_s: float = 0.0
    bursts: float = 0.0
    last_s: float | None = None
    shared: float = 0.0
    ordered: float = 0.0

    def with_order(self, per_s: float) -> Self:
        """Return it with a standing order for so many a second (0: without)."""
        return replace(self, ordered=max(0.0, per_s))

    def since(self, start_s: float) -> Self:
        """Return the rate of what could be asked from `start_s` on: the silence before the first request is a gap, too.

        Without it the first burst of many looks as if it would go on for ever.
        """
        return type(self)(self.count, self.gaps_s, self.bursts, start_s, self.shared, self.ordered)

    def opens(self, now_s: float, prior: Prior = ALONE) -> bool:
        """Return whether a request at `now_s` opens a burst; else it continues one."""
        if self.last_s is None or self.bursts <= 0.0:
            return True
        own_s = self.gaps_s / self.bursts
        all_s = (self.gaps_s + prior.device_s) / (self.bursts + prior.bursts)
        return now_s - self.last_s >= min(_SHORT * all_s, _SHORT_OF_OWN * own_s)

    def asked(self, now_s: float, prior: Prior = ALONE) -> Self:
        """Return the rate after it was asked at `now_s`."""
        if self.last_s is None:
            return self.since(now_s)
        opened = float(self.opens(now_s, prior))
        shared = self.shared_at(now_s) + opened
        gap_s = max(_SHORTEST_GAP_S, min(now_s - self.last_s, _LONGEST_GAP_S))
        kept = 1.0 - opened / _MEMORY
        count, gaps_s, bursts = self.count * kept + 1.0, self.gaps_s * kept + gap_s, self.bursts * kept + opened
        return type(self)(count, gaps_s, bursts, now_s, shared, self.ordered)

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
        return max(self.ordered, self._learned(now_s, prior))

    def _learned(self, now_s: float, prior: Prior) -> float:
        watched_s = self.watched_s(now_s) + prior.device_s
        if watched_s <= 0.0:
            return 0.0
        if prior.device_s <= 0.0:
            return self.count / watched_s
        size = (self.count + _SIZE_WORTH * prior.size) / (self.bursts + _SIZE_WORTH)
        return (self.bursts + prior.bursts) / watched_s * size

    def bounds(self, now_s: float, *, z: float = 1.0, prior: Prior = ALONE) -> tuple[float, float]:
        """Return the confidence bounds of `per_s`; with nothing seen, 0 and inf, or what is ordered.

        Bursts that open independently make their rate gamma-distributed: their number is its shape, the seconds watched its
        rate, and the prior adds to both. All requests together count for one burst at least.
        Source: Wilson, Hilferty 1931 (cube-root approximation).
        """
        shape = max(min(1.0, self.count), self.bursts) + prior.bursts
        if shape <= 0.0:
            return (self.ordered, self.ordered) if self.ordered else (0.0, inf)
        rate, middle, side = self._learned(now_s, prior), 1.0 - 1.0 / (9.0 * shape), z / (3.0 * sqrt(shape))
        low, high = rate * max(0.0, middle - side) ** 3, rate * max(0.0, middle + side) ** 3
        return max(self.ordered, low), max(self.ordered, high)


NEVER_ASKED = Rate()
