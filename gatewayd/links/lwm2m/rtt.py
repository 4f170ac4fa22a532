"""How long to wait before a question is repeated: learned from the link. Pure: the caller measures.

The estimator is RFC 6298's (mean plus four deviations); an answer that came after a repetition says less, so it moves the mean
less. Sources: RFC 6298; draft-ietf-core-cocoa (strong and weak samples); RFC 7252, section 4.8 (where nothing is known).
"""

from dataclasses import dataclass, replace

from gatewayd.links.lwm2m.coap import STANDARD, Timing

_SPAN_S = 45.0  # how long repetitions go on, as with RFC 7252's own figures (MAX_TRANSMIT_SPAN)
# The most protects the air: a fast link that went away is not asked for ever. The least is for a slow link that loses a tenth
# each way: one block in 20,000 stays unanswered there, with one repetition less one in 4,000; a large package has 650 and more.
_LEAST_REPEATS, _MOST_REPEATS = 5, 9
# Waits double up to this many times the first, or up to so long: loss is by chance on a radio, it does not mean a queue that has
# to empty; five repetitions on NB-IoT would else take minutes.
_LONGEST, _LONGEST_S = 4, 8.0
# What an answer after a repetition counts, beside one at once. At 10 % loss each way a quarter, as in CoCoA, makes a push take
# 1.6 to 2.9 times as long (`make bench-push`): loss is taken for a slow link. Nothing at all would never learn a slower link.
_WEAK = 0.05


@dataclass(slots=True)
class RoundTrips:
    """What is known of a device's round trips, in seconds; `mean_s` None: nothing yet."""

    least_s: float
    first_s: float
    most_s: float
    mean_s: float | None = None
    deviation_s: float = 0.0
    _backed_s: float = 0.0

    def timing(self) -> Timing:
        """Return the timing of the next question; RFC 7252's own while nothing is known."""
        wait_s = max(self._wait_s(), self._backed_s)
        if self.mean_s is None:
            return replace(STANDARD, ack_timeout_s=round(wait_s, 3))
        longest_s = max(_LONGEST_S, _LONGEST * wait_s)
        repeats, next_s, span_s = 0, wait_s, wait_s
        while repeats < _LEAST_REPEATS or (repeats < _MOST_REPEATS and span_s < _SPAN_S):
            next_s = min(longest_s, 2 * next_s)
            repeats, span_s = repeats + 1, span_s + next_s
        return Timing(round(wait_s, 3), repeats, round(longest_s, 3))

    @property
    def usual_s(self) -> float:
        """How long a question that is not lost takes, nearly always."""
        return self.first_s if self.mean_s is None else self.mean_s + 4 * self.deviation_s

    def took(self, elapsed_s: float, timing: Timing) -> None:
        """Learn from an answer; one that came after the first repetition may have been for any of them."""
        is_strong = elapsed_s <= timing.ack_timeout_s
        sample_s = elapsed_s if is_strong else min(elapsed_s, self.most_s)
        share = 1.0 if is_strong else _WEAK
        self._backed_s = 0.0
        if self.mean_s is None:
            self.mean_s, self.deviation_s = sample_s, sample_s / 2
            return
        self.deviation_s += share * 0.25 * (abs(sample_s - self.mean_s) - self.deviation_s)
        self.mean_s += share * 0.125 * (sample_s - self.mean_s)

    def lost(self) -> None:
        """Nothing came back at all: wait longer next time."""
        self._backed_s = min(self.most_s, 2 * max(self._wait_s(), self._backed_s))

    def _wait_s(self) -> float:
        if self.mean_s is None:
            return self.first_s
        return min(self.most_s, max(self.least_s, self.usual_s))
