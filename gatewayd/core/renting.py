"""Rent or buy: when is it worth to push a model to a device that does not have it?

Each request that the node serves although the device would have been cheaper is a day's rent; the push is the price of the
skis. Buying when the rent paid reaches the price costs at most twice what a clairvoyant pays (plus the last day's rent).
Source: Karlin, Manasse, Rudolph, Sleator 1988, "Competitive snoopy caching".
"""

from dataclasses import dataclass
from math import ceil, isfinite

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.estimate import LinkEstimate


@dataclass(frozen=True, slots=True)
class Balance:
    """What one (device, model) pair would have saved so far, in J (see `Weights`). Start anew after a push."""

    saved_missed: float = 0.0
    requests: int = 0


def after_node_request(balance: Balance, *, node_total: float, device_total: float) -> Balance:
    """Return the balance after the node served a request that the device would have served for `device_total`.

    A request for which the device is dearer neither adds nor takes away: with the model there, placement would still have
    sent it to the node. Taking it away would break the bound: savings of +1 and -1 in turn would never buy.
    """
    missed = node_total - device_total
    if not isfinite(missed):
        missed = 0.0
    return Balance(balance.saved_missed + max(0.0, missed), balance.requests + 1)


def push_cost(
    *,
    size_bytes: int,
    link: LinkEstimate,
    weights: Weights,
    energy_uj_per_byte: float,
    failure: float,
    flash_wear: float,
    chunk_bytes: int = 1024,
) -> float:
    """Return what a push costs, in J: time, radio energy, bytes over the link, the risk that it fails, and flash wear.

    Devices pace a push chunk by chunk, so each chunk costs a round trip. `failure` is 0..1, `flash_wear` is in J.
    """
    chunks = max(1, ceil(size_bytes / max(1, chunk_bytes)))
    elapsed_s = link.transfer_s(size_bytes) + (chunks - 1) * link.rtt.mean
    costs = Costs(elapsed_s, energy_uj_per_byte * size_bytes, size_bytes, failure)
    return weights.total(costs) + flash_wear


def should_push(balance: Balance, cost: float) -> bool:
    """Return whether the savings missed have reached the price of the push."""
    return balance.saved_missed >= cost
