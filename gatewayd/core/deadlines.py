"""How long a push may stay in a state on a given link: what is configured is the floor, a slow link gets more. Pure."""

from dataclasses import replace

from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.push import Limits, Push

# A message and its answer may be lost and repeated a few times before silence means failure.
_EXCHANGES = 8
# The pessimistic side of round trip and goodput, in standard errors; a prior's spread is a guess that says nothing yet.
_CAUTION, _MEASURED = 3.0, 1.0
_LEAST_SHARE = 0.25
# Bytes per second below which a transfer is too slow, and how far below its link's measured goodput it may stay: with chunks of
# this size, each with its round trip.
_LEAST_BYTES_PER_S, _SMALL_CHUNK_BYTES = 64, 256
# What a device needs to hash, or to decode into flash, what it received: NOR takes from 40 KB/s (nRF52840, page erases included).
_CHECKED_BYTES_PER_S = 8192
# A link so slow that one chunk takes longer than this is given up on; protects the number of concurrent pushes.
_LONGEST_S = 600.0
# The same for a whole transfer.
_A_DAY_S = 86_400.0


def limits_on(link: LinkEstimate, push: Push, floor: Limits) -> Limits:
    """Return the limits of `push` on its link."""
    rtt_s = link.rtt.upper(_caution(link.rtt))
    chunk_bytes = min(floor.chunk_bytes, push.size_bytes)
    goodput = max(link.goodput.optimistic(_caution(link.goodput)), _LEAST_SHARE * link.goodput.mean, 1.0)
    chunk_s = rtt_s + chunk_bytes / goodput
    talk_s = _bounded(_EXCHANGES * rtt_s)
    whole_s = push.size_bytes / goodput + rtt_s * -(-push.size_bytes // _SMALL_CHUNK_BYTES)
    return replace(
        floor,
        offer_s=max(floor.offer_s, talk_s),
        stall_s=max(floor.stall_s, _bounded(_EXCHANGES * chunk_s)),
        verify_s=max(floor.verify_s, _bounded(talk_s + push.size_bytes / _CHECKED_BYTES_PER_S)),
        self_test_s=max(floor.self_test_s, talk_s),
        trial_s=max(floor.trial_s, talk_s),
        transfer_s=max(
            floor.transfer_s, min(_A_DAY_S, max(push.size_bytes / _LEAST_BYTES_PER_S, _EXCHANGES * whole_s))
        ),
    )


def _caution(estimate: Estimate) -> float:
    return _CAUTION if estimate.count >= _MEASURED else 0.0


def _bounded(wait_s: float) -> float:
    return min(wait_s, _LONGEST_S)
