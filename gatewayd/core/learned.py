"""What the estimators have learned, as one value: what a checkpoint keeps over a restart."""

from dataclasses import dataclass, replace

from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.names import DeviceId, Digest

# What was learned before a restart is worth at most so many observations after it: a good guess, not a measurement of today.
_MOST_WORTH = 5.0


@dataclass(frozen=True, slots=True)
class Learned:
    """Compute and energy per (device, artifact), compute per artifact on the node, links, and energy per sensor's sample."""

    pairs: tuple[tuple[DeviceId, Digest, Estimate, Estimate], ...] = ()
    node: tuple[tuple[Digest, Estimate], ...] = ()
    links: tuple[tuple[DeviceId, LinkEstimate], ...] = ()
    samples: tuple[tuple[DeviceId, int, Estimate], ...] = ()

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


def _less(estimate: Estimate) -> Estimate:
    return replace(estimate, count=min(estimate.count, _MOST_WORTH))
