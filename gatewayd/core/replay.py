"""Deciding again what was decided once: the same facts through `place`, compared to the last bit.

Pure: what a log holds goes in, what differs comes out.
"""

from hashlib import blake2b

from gatewayd.core.placement import DeviceFacts, NodeFacts, Placement, Question, place
from gatewayd.core.record import record
from gatewayd.core.request import Measured, Target


@record
class Logged:
    """One logged decision: everything `place` saw, the fingerprint of what it answered, and what came of it.

    `is_first_try`: what served it was the first place of the ranking; else `measured` says nothing about that one.
    """

    request: str
    model: str
    version: int
    question: Question
    node: NodeFacts
    devices: tuple[DeviceFacts, ...]
    fingerprint: str
    served_by: Target | None
    is_first_try: bool
    measured: Measured | None


def fingerprint(placement: Placement) -> str:
    """Return 16 hex digits over the ranking and every ranked option's costs, with all bits of each number.

    Words (reasons, refusals) are not part of it: who words a reason anew decides no differently.
    """
    parts = []
    for rank in placement.ranked:
        option = placement.ranked_option(rank)
        costs = option.costs
        numbers = () if costs is None else (costs.latency_s, costs.energy_uj, costs.link_bytes, costs.failure)
        parts.append(" ".join([rank[1], *(float(each).hex() for each in (rank[0], option.total, *numbers))]))
    return blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def decided_again(logged: Logged) -> Placement:
    """Return what `place` says of the logged facts now."""
    return place(logged.question, logged.node, logged.devices)


def difference(logged: Logged, again: Placement) -> str:
    """Return what differs, "" when nothing does."""
    found = fingerprint(again)
    if found == logged.fingerprint:
        return ""
    first = str(again.ranked_option(again.ranked[0]).target) if again.ranked else "nowhere"
    return f"{logged.request}: logged as {logged.fingerprint}, decided now as {found} ({first} comes first)"
