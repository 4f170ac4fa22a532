"""Rent or buy: when is it worth to push a model to a device that does not have it?

Each request that the node serves although the device would have been cheaper is a day's rent; the push is the price of the
skis. Buying when the rent paid reaches the price costs at most twice what a clairvoyant pays (plus the last day's rent).
A predicted rate of requests may buy earlier, at the share λ of the price, so that a wrong prediction stays within 1 + 1/λ;
or, when little seems to come, wait a fifth longer. Whatever is predicted, at most 1.2 prices of a push are lost per pair.
Source: Karlin, Manasse, Rudolph, Sleator 1988, "Competitive snoopy caching"; Purohit, Svitkina, Kumar 2018, "Improving online
algorithms via ML predictions" (the threshold between λ and 1/λ prices).
"""

from dataclasses import dataclass, replace
from math import ceil, isfinite, isinf
from typing import Self

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.placement import DeviceFacts
from gatewayd.core.rates import ALONE, NEVER_ASKED, Prior, Rate
from gatewayd.core.record import record

# The saving per request follows about so many requests: a link that got worse counts before its old days are forgotten.
_MEMORY = 20.0
# A push that failed k times is expected to fail with (k + 1) / (k + 20): 5 % before the first one, as most pushes work.
_PUSHES_BELIEVED = 20.0
# However often it failed, a further push is not priced above twenty tries: retries and quarantine are `core.retry`'s.
_WORST_FAILURE = 0.95
# A demand that has lasted as long as was forecast is expected to last this share of the forecast, at least.
_LEAST_LEFT = 0.125

Pair = tuple[DeviceId, ModelName, int]
"""A device, and a version of a model."""


@dataclass(frozen=True, slots=True)
class PushPrice:
    """What one push would take: J (see `push_cost`), seconds on the air, µJ of the device's battery (0: on mains)."""

    cost: float
    air_s: float
    energy_uj: float = 0.0


@dataclass(frozen=True, slots=True)
class RentTerms:
    """How far predictions are trusted.

    `robustness` is λ (0 < λ <= 1): 1 ignores predictions, less buys earlier. `horizon_s` is how long a version is expected to be
    of use, from its first day on. `patience` is how much longer, as a share of the price, it waits when little is predicted.
    `confidence_z`: a prediction counts by its confidence bound, so many deviations on the unfavourable side.
    """

    robustness: float = 0.01
    horizon_s: float = 86_400.0
    patience: float = 0.2
    confidence_z: float = 0.5


@record
class Balance:
    """What one (device, model) pair would have saved so far, in J (see `Weights`). Start anew after a push.

    `hoped_missed` is the same by the optimistic bounds of what was never measured, so that a wrong prior cannot keep a device
    from being tried for ever. `saving` is the mean saving of recent requests, `rate` how often they come, `failures` the
    pushes of this pair that failed. `ordered_until_s` is when a standing order for the pair ends (inf: never; None: there is
    none): its `rate` is not predicted but known. `born_s` is when the demand began (None: nobody said).
    """

    saved_missed: float = 0.0
    requests: int = 0
    hoped_missed: float = 0.0
    saving: float = 0.0
    rate: Rate = NEVER_ASKED
    failures: int = 0
    ordered_until_s: float | None = None
    born_s: float | None = None

    def after_failed_push(self) -> Self:
        """Return the balance after a push that failed: the rent stays paid, the next push is riskier and dearer."""
        return replace(self, failures=self.failures + 1)

    def after_push(self) -> Self:
        """Return the balance after a push that worked: nothing is missed, the rate stays known."""
        return type(self)(rate=self.rate, ordered_until_s=self.ordered_until_s, born_s=self.born_s)


def after_node_request(
    balance: Balance,
    *,
    node_total: float,
    device_total: float,
    hoped_total: float | None = None,
    now_s: float | None = None,
    prior: Prior = ALONE,
) -> Balance:
    """Return the balance after the node served a request that the device would have served for `device_total`.

    `hoped_total` is the device's optimistic bound (None: as expected). `now_s` None leaves the rate alone; `prior` is what the
    model's other devices say of it.
    A request for which the device is dearer neither adds nor takes away: with the model there, placement would still have
    sent it to the node. Taking it away would break the bound: savings of +1 and -1 in turn would never buy.
    """
    missed = _saving(node_total, device_total)
    hoped = missed if hoped_total is None else max(missed, _saving(node_total, hoped_total))
    requests = balance.requests + 1
    return Balance(
        balance.saved_missed + missed,
        requests,
        balance.hoped_missed + hoped,
        balance.saving + (missed - balance.saving) / min(requests, _MEMORY),
        balance.rate if now_s is None else balance.rate.asked(now_s, prior),
        balance.failures,
        balance.ordered_until_s,
        balance.born_s,
    )


def _saving(node_total: float, device_total: float) -> float:
    missed = node_total - device_total
    return max(0.0, missed) if isfinite(missed) else 0.0


def hoped(facts: DeviceFacts) -> DeviceFacts:
    """Return the device at its optimistic bounds of compute and energy; the link stays as measured, both places share it."""
    return replace(
        facts,
        compute=Estimate(facts.compute.optimistic(), 0.0, 0.0),
        energy=Estimate(facts.energy.optimistic(), 0.0, 0.0),
    )


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
    elapsed_s = push_s(size_bytes, link, chunk_bytes=chunk_bytes)
    costs = Costs(elapsed_s, energy_uj_per_byte * size_bytes, size_bytes, failure)
    return weights.total(costs) + flash_wear


def push_s(size_bytes: int, link: LinkEstimate, *, chunk_bytes: int = 1024) -> float:
    """Return the seconds that a push of so many bytes is on the air."""
    chunks = max(1, ceil(size_bytes / max(1, chunk_bytes)))
    return link.transfer_s(size_bytes) + (chunks - 1) * link.rtt.mean


def push_failure(failures: int) -> float:
    """Return the probability that the next push fails, after so many of this pair did."""
    return min(_WORST_FAILURE, (failures + 1.0) / (failures + _PUSHES_BELIEVED))


def with_retries(cost: float, failures: int) -> float:
    """Return what it costs to get the model there: each try that is expected to fail is paid, too."""
    return cost if failures == 0 else cost / (1.0 - push_failure(failures))


def should_push(balance: Balance, cost: float) -> bool:
    """Return whether the savings missed have reached the price of the push."""
    return balance.saved_missed >= cost


def threshold(balance: Balance, cost: float, terms: RentTerms, *, now_s: float, prior: Prior = ALONE) -> float:
    """Return the rent, in J, at which to buy for `cost`: from λ·cost to (1 + patience)·cost, never above cost/λ.

    λ·cost when the saving predicted for as long as the demand will last is worth the price even at the rate's lower bound,
    else the most; `cost` when nothing can be predicted yet, and whenever λ is 1.
    """
    low, high = balance.rate.bounds(now_s, z=terms.confidence_z, prior=prior)
    if terms.robustness >= 1.0 or isinf(high):
        return cost
    if low * balance.saving * left_s(balance, terms, now_s=now_s) >= cost:
        return terms.robustness * cost
    return min(1.0 + terms.patience, 1.0 / terms.robustness) * cost


def left_s(balance: Balance, terms: RentTerms, *, now_s: float) -> float:
    """Return how much longer the demand is expected to last, in seconds: what is left of the horizon.

    What has outlived the forecast is expected to go on for as long as it has outlived it, up to a whole horizon: the longer
    something has lasted, the longer it will. Source: Gott 1993, "Implications of the Copernican principle for our future
    prospects" (the median of what is left is the age). The end of a standing order is known.
    """
    if balance.ordered_until_s is not None:
        return min(terms.horizon_s, max(0.0, balance.ordered_until_s - now_s))
    age_s = 0.0 if balance.born_s is None else max(0.0, now_s - balance.born_s)
    horizon_s = terms.horizon_s
    return min(horizon_s, max(horizon_s - age_s, age_s - horizon_s, _LEAST_LEFT * horizon_s))


def is_due(balance: Balance, cost: float, terms: RentTerms, *, now_s: float, prior: Prior = ALONE) -> bool:
    """Return whether to push now: the rent paid, by what is expected or hoped of the device, has reached the threshold.

    With a standing order that is worth the price it is due at once. By hope alone it must reach the whole price with patience:
    an early push needs a saving that is expected.
    """
    if balance.ordered_until_s is not None and _is_order_worth(balance, cost, terms, now_s=now_s):
        return True
    most = min(1.0 + terms.patience, 1.0 / terms.robustness) * cost
    at = threshold(balance, cost, terms, now_s=now_s, prior=prior)
    return balance.saved_missed >= at or balance.hoped_missed >= max(at, most)


def _is_order_worth(balance: Balance, cost: float, terms: RentTerms, *, now_s: float) -> bool:
    """Return whether what is still ordered, at most over the horizon, saves the price: its rate is known, not predicted."""
    if balance.ordered_until_s is None:
        return False
    return balance.rate.per_s(now_s) * left_s(balance, terms, now_s=now_s) * balance.saving >= cost


def break_even_s(cost: float, *, saving_per_s: float, most_s: float) -> float:
    """Return the seconds until a push has paid for itself, at most `most_s`."""
    return min(most_s, cost / saving_per_s) if saving_per_s > 0.0 else most_s
