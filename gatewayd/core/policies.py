"""Other ways to decide, to hold against the log: other weights, one kind of place only, expected costs without optimism."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from gatewayd.core.cost import Weights
from gatewayd.core.errors import BadRequest
from gatewayd.core.placement import NODE_INDEX, Placement, place

Policy = Callable[[Placement], int | None]
"""From what one decision saw to the index of the place it would choose (NODE_INDEX: the node; None: it would refuse)."""

_TERMS = ("latency_per_s", "energy_per_uj", "bandwidth_per_byte", "risk_per_failure")


def logged_policy(placement: Placement) -> int | None:
    """Choose as gatewayd does."""
    return placement.ranked[0][2] if placement.ranked else None


def node_only(placement: Placement) -> int | None:
    """Send the data, always: the node wherever it can, a device only where the node cannot."""
    indices = [index for _, _, index in placement.ranked]
    return NODE_INDEX if NODE_INDEX in indices else logged_policy(placement)


def device_only(placement: Placement) -> int | None:
    """Run on a device wherever one can."""
    return next((index for _, _, index in placement.ranked if index != NODE_INDEX), logged_policy(placement))


def expected(placement: Placement) -> int | None:
    """Choose by expected costs: no chance for what was never tried."""
    options = [(placement.ranked_option(rank).total, rank[1], rank[2]) for rank in placement.ranked]
    return min(options)[2] if options else None


def weighing(weights: Weights) -> Policy:
    """Choose as gatewayd would with other weights."""

    def choose(placement: Placement) -> int | None:
        question = replace(placement.question, weights=weights)
        return logged_policy(place(question, placement.node, placement.devices))

    return choose


_NAMED: Mapping[str, Policy] = {
    "logged": logged_policy,
    "node-only": node_only,
    "device-only": device_only,
    "expected": expected,
}


def policy_of(text: str, classes: Mapping[str, Weights]) -> Policy:
    """Read `node-only`, `device-only`, `expected`, `logged`, a class's name, or weights: `latency_per_s=100,energy_per_uj=1`.

    Weights left out are those of `default`. Raises: BadRequest.
    """
    if text in _NAMED:
        return _NAMED[text]
    if text in classes:
        return weighing(classes[text])
    if "=" not in text:
        known = ", ".join([*_NAMED, *sorted(classes)])
        raise BadRequest(f"no policy {text!r}; there are {known}, and weights as in latency_per_s=100,energy_per_uj=1")
    given: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        if name not in _TERMS:
            raise BadRequest(f"no weight {name!r}; there are {', '.join(_TERMS)}")
        given[name] = _weight(name, value)
    return weighing(replace(classes.get("default", Weights()), **given))


def _weight(name: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = -1.0
    if not 0.0 <= weight < float("inf"):
        raise BadRequest(f"{name}: a weight is a number from 0 up, not {value!r}")
    return weight
