"""How long a push may stay in a state on a given link: what is configured is the floor, a slow link gets more. Pure."""

from dataclasses import replace

from gatewayd.core.estimate import LinkEstimate
from gatewayd.core.push import Limits, Push

# A message and its answer may be lost and repeated a few times before silence means failure.
_EXCHANGES = 8
# The pessimistic side of round trip and goodput, in standard errors.
_CAUTION = 3.0
# A link so slow that one chunk takes longer than this is given up on; protects the number of concurrent pushes.
_LONGEST_S = 600.0


def limits_on(link: LinkEstimate, push: Push, floor: Limits) -> Limits:
    """Return the limits of `push` on its link."""
    rtt_s = link.rtt.upper(_CAUTION)
    chunk_bytes = min(floor.chunk_bytes, push.size_bytes)
    chunk_s = rtt_s + chunk_bytes / max(link.goodput.optimistic(_CAUTION), 1.0)
    talk_s = _bounded(_EXCHANGES * rtt_s)
    return replace(
        floor,
        offer_s=max(floor.offer_s, talk_s),
        stall_s=max(floor.stall_s, _bounded(_EXCHANGES * chunk_s)),
        verify_s=max(floor.verify_s, talk_s),
        self_test_s=max(floor.self_test_s, talk_s),
        trial_s=max(floor.trial_s, talk_s),
    )


def _bounded(wait_s: float) -> float:
    return min(wait_s, _LONGEST_S)
