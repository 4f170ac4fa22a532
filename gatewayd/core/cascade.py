"""Second opinions: when is the device's answer not sure enough, so that the node's bigger model is asked?

The device's confidence in its answer (its highest score, 0..1) falls into one of a few bins. A bin's answers are accepted once
the errors that they may hold cost less than asking, for certain; asking is the only way to learn whether they were right, so
too little knowledge asks.
Source: Moothedath, Champati, Gross 2023 ("Getting the best out of both worlds: algorithms for hierarchical inference at the
edge"), and HI-LCB 2025 (confidence bounds of the accuracy per confidence level, feedback only when offloaded, observations
shared among levels because accuracy does not fall with confidence). The bound is Garivier and Cappé's (KL-UCB, 2011): for
shares near 0 it needs a tenth of the answers that UCB1's takes. Pure, O(bins) per answer.
"""

from dataclasses import field, replace
from math import inf, isfinite, log
from typing import Self

from gatewayd.core.record import record

BINS = 16
"""Confidence levels. More tell finer, and each must be learned by itself: the regret's bound grows with their number."""


@record
class Prices:
    """What the operator weighs, in J (see `core.cost.Weights`): a wrong answer, and asking the node (time, energy, bytes)."""

    wrong: float
    asking: float

    @property
    def acceptable(self) -> float:
        """The share of wrong answers up to which accepting is cheaper than asking, 0..1 or above."""
        return self.asking / self.wrong if self.wrong > 0.0 else inf


@record
class Level:
    """What is known of one bin: how often the node was asked, and how often it then disagreed."""

    asked: float = 0.0
    wrong: float = 0.0


_UNKNOWN = (Level(),) * BINS


@record
class Cascade:
    """What was learned of one (small model, big model) pair. `answers` is how many the device gave so far."""

    levels: tuple[Level, ...] = field(default=_UNKNOWN)
    answers: int = 0

    def wants_second(self, confidence: float, prices: Prices) -> bool:
        """Return whether to ask the node about an answer of that confidence (0..1; anything else counts as 0).

        A bin is trusted when its share of wrong answers is low enough for certain. As a surer answer is not wrong more often,
        so is a bin above one that is.
        """
        if prices.acceptable >= 1.0:
            return False
        return not any(self._is_trusted(level, prices) for level in self.levels[: level_of(confidence) + 1])

    def answered(self) -> Self:
        """Return it after an answer of the device, asked about or not."""
        return replace(self, answers=self.answers + 1)

    def learned(self, confidence: float, *, was_wrong: bool) -> Self:
        """Return it after the node's opinion on an answer of that confidence."""
        at = level_of(confidence)
        old = self.levels[at]
        new = Level(old.asked + 1.0, old.wrong + float(was_wrong))
        return replace(self, levels=(*self.levels[:at], new, *self.levels[at + 1 :]))

    def threshold(self, prices: Prices) -> float:
        """Return the lowest confidence at which answers are accepted now; 1 when none are."""
        accepted = (index for index in range(BINS) if not self.wants_second((index + 0.5) / BINS, prices))
        return next(accepted, BINS) / BINS

    def _is_trusted(self, level: Level, prices: Prices) -> bool:
        """Return whether the share of wrong answers is below what is acceptable, by the bound at which n·kl reaches ln t."""
        if level.asked <= 0.0 or level.wrong >= level.asked * prices.acceptable:
            return False
        return level.asked * _divergence(level.wrong / level.asked, prices.acceptable) >= log(max(self.answers, 2))


def _divergence(seen: float, bound: float) -> float:
    """Return kl(seen, bound) of two Bernoulli shares, 0 <= seen < bound < 1."""
    unseen = (1.0 - seen) * log((1.0 - seen) / (1.0 - bound))
    return unseen + (seen * log(seen / bound) if seen > 0.0 else 0.0)


def level_of(confidence: float) -> int:
    """Return the bin of a confidence."""
    if not isfinite(confidence) or confidence <= 0.0:
        return 0
    return min(BINS - 1, int(confidence * BINS))
