"""How long to wait before a question is repeated: learned from the link. Pure: the caller measures.

The estimator is RFC 6298's (mean plus four deviations); an answer that came after a repetition says less, so it moves the mean
less. Sources: RFC 6298; draft-ietf-core-cocoa (strong and weak samples); RFC 7252, section 4.8 (where nothing is known).
"""

from dataclasses import dataclass

from gatewayd.links.lwm2m.coap import Timing

_SPAN_S = 45.0  # how long repetitions go on, as with RFC 7252's own figures (MAX_TRANSMIT_SPAN)
_MOST_REPEATS = 8  # protects the air: a fast link that went away is not asked for ever
_JITTER = 1.5  # ACK_RANDOM_FACTOR
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
        """Return the timing of the next question."""
        wait_s = max(self._wait_s(), self._backed_s)
        repeats, span_s = 0, wait_s
        while span_s < _SPAN_S and repeats < _MOST_REPEATS:
            repeats, span_s = repeats + 1, span_s + wait_s * 2 ** (repeats + 1)
        return Timing(round(wait_s, 3), max(2, repeats))

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
        return min(self.most_s, max(self.least_s, (self.mean_s + 4 * self.deviation_s)))
