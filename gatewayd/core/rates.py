"""How often something is asked, from the gaps between the times it was asked. Pure, O(1), four numbers per rate.

Rent-or-buy predicts with it what a push will save; see `gatewayd.core.renting`.
"""

from dataclasses import dataclass
from math import inf, isinf, sqrt
from typing import Self

# About so many gaps are remembered: a rate that halves is noticed within a few dozen requests.
_MEMORY = 50.0
_MOST_PRIOR_WORTH = 2.0  # gaps that a prior may stand for: the pair's own gaps outvote it at once
_SHORTEST_GAP_S, _LONGEST_GAP_S = 1e-6, 1e9  # keep squares and rates finite, whatever a clock says


@dataclass(frozen=True, slots=True)
class Rate:
    """Exponentially weighted gaps: how many (`count`), their sum and the sum of their squares in seconds; when the last ended.

    `last_s` None: nobody looked yet. A rate with `count` inf is known (a standing order's), not estimated.
    """

    count: float = 0.0
    gaps_s: float = 0.0
    squares: float = 0.0
    last_s: float | None = None

    @classmethod
    def known(cls, per_s: float) -> Self:
        """Return the rate of something that comes `per_s` times a second for certain."""
        return cls(inf, 1.0 / per_s if per_s > 0.0 else inf)

    @classmethod
    def believed(cls, like: Self) -> Self:
        """Return a prior: what others of its kind do, worth at most two gaps."""
        worth = min(_MOST_PRIOR_WORTH, like.count)
        if worth <= 0.0 or isinf(like.count):
            return cls()
        return cls(worth, like.gaps_s * worth / like.count, like.squares * worth / like.count)

    def since(self, start_s: float) -> Self:
        """Return the rate of what could be asked from `start_s` on: the silence before the first request is a gap, too.

        Without it the first burst of many looks as if it would go on for ever.
        """
        return type(self)(self.count, self.gaps_s, self.squares, start_s)

    def asked(self, now_s: float) -> Self:
        """Return the rate after it was asked at `now_s`."""
        if isinf(self.count) or self.last_s is None:
            return type(self)(self.count, self.gaps_s, self.squares, now_s)
        return self.after_gap(now_s - self.last_s, now_s=now_s)

    def after_gap(self, gap_s: float, *, now_s: float | None = None) -> Self:
        """Return the rate after a gap of that length (also of another one of its kind, to pool them)."""
        gap_s = max(_SHORTEST_GAP_S, min(gap_s, _LONGEST_GAP_S))
        kept = 1.0 - 1.0 / _MEMORY
        return type(self)(
            self.count * kept + 1.0, self.gaps_s * kept + gap_s, self.squares * kept + gap_s * gap_s, now_s
        )

    def per_s(self, now_s: float) -> float:
        """Return the requests per second; silence longer than the mean gap lowers it."""
        if isinf(self.count):
            return 1.0 / self.gaps_s
        if self.count <= 0.0:
            return 0.0
        mean_s = self.gaps_s / self.count
        silence_s = max(0.0, now_s - self.last_s - mean_s) if self.last_s is not None else 0.0
        return self.count / (self.gaps_s + silence_s)

    def bounds(self, now_s: float, *, z: float = 1.0) -> tuple[float, float]:
        """Return the confidence bounds of `per_s`; with no gap seen, 0 and inf.

        Gaps of independent requests make the rate gamma-distributed; gaps that vary more (bursts) count for fewer, but all
        together for one at least.
        Source: Wilson, Hilferty 1931 (cube-root approximation).
        """
        rate = self.per_s(now_s)
        if isinf(self.count):
            return rate, rate
        if self.count <= 0.0:
            return 0.0, inf
        mean_s = self.gaps_s / self.count
        spread = (self.squares / self.count) / (mean_s * mean_s) - 1.0
        worth = max(min(1.0, self.count), self.count / max(1.0, spread))
        middle, side = 1.0 - 1.0 / (9.0 * worth), z / (3.0 * sqrt(worth))
        return rate * max(0.0, middle - side) ** 3, rate * (middle + side) ** 3


NEVER_ASKED = Rate()
