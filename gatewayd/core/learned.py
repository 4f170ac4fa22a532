"""What the estimators have learned, as one value: what a checkpoint keeps over a restart."""

from dataclasses import field, replace

from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.kept import Kept
from gatewayd.core.names import DeviceId, Digest
from gatewayd.core.record import record

# What was learned before a restart is worth at most so many observations after it: a good guess, not a measurement of today.
_MOST_WORTH = 5.0
# Longer than this nothing is carried over but as if it were so long ago: a wall clock that was wrong must not make it ages.
_LONGEST_STOP_S = 366 * 86_400.0


@record
class Learned:
    """Compute and energy per (device, artifact), compute per artifact on the node, links, and energy per sensor's sample.

    `kept` is the book of rent, with times of a steady clock that showed `at_s` when the wall clock showed `at`. Values that
    differ in these two only are equal.
    """

    pairs: tuple[tuple[DeviceId, Digest, Estimate, Estimate], ...] = ()
    node: tuple[tuple[Digest, Estimate], ...] = ()
    links: tuple[tuple[DeviceId, LinkEstimate], ...] = ()
    samples: tuple[tuple[DeviceId, int, Estimate], ...] = ()
    kept: Kept = Kept()
    at_s: float = field(default=0.0, compare=False)
    at: float = field(default=0.0, compare=False)

    def recalled(self) -> "Learned":
        """Return the same as it is believed after a restart."""
        return Learned(
            tuple((device, digest, _less(first), _less(second)) for device, digest, first, second in self.pairs),
            tuple((digest, _less(estimate)) for digest, estimate in self.node),
            tuple(
                (device, LinkEstimate(_less(link.rtt), _less(link.goodput), link.failures))
                for device, link in self.links
            ),
            tuple((device, sensor, _less(estimate)) for device, sensor, estimate in self.samples),
        )


def kept_now(learned: Learned, *, now_s: float, now: float) -> Kept:
    """Return the book of rent on a clock that shows `now_s` while the wall clock shows `now`: the time between counts as silence.

    A wall clock that was set back meanwhile (or begins at 1970) makes that time none.
    """
    stopped_s = min(max(0.0, now - learned.at), _LONGEST_STOP_S)
    return learned.kept.moved(now_s - stopped_s - learned.at_s)


def _less(estimate: Estimate) -> Estimate:
    return replace(estimate, count=min(estimate.count, _MOST_WORTH))
