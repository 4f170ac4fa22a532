"""What another policy would have cost, from the log of this one: an estimate with an interval.

A deterministic policy never tries what it does not choose, so weighing logged outcomes by their chance cannot work. Instead
each place is judged with all that the whole log holds about it: what it cost whenever it was used, and, where it was used
seldom or never, what was believed of it at first, both weighed by how sure they are (the normal model with a known prior).
A request for which both policies choose the same place costs what it did cost. The other policy decides with what it would
have known: what the log learned by trying a place counts from when it would have tried that place, too.

The interval counts what is not known of the places (what is believed of several models on one device, or through one link,
may be wrong together, so their deviations add up) and the scatter of single requests. It does not count what the other
policy would change: queues it would fill, models it would have pushed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import sqrt

from gatewayd.core.cost import Costs, Weights
from gatewayd.core.estimate import Estimate
from gatewayd.core.placement import NODE_INDEX, OPTIMISM_Z, DeviceFacts, Placement, device_costs, node_costs, place
from gatewayd.core.policies import Policy
from gatewayd.core.record import record
from gatewayd.core.replay import Logged, decided_again
from gatewayd.core.request import Measured

# Deviations to either side: 95 % of a normal distribution, and a little for the deviations being estimates themselves.
_INTERVAL_Z = 2.1
# A place's scatter is known from about so many uses on; before that the believed one counts too.
_TRUSTED_USES = 8.0
QUANTITIES = ("J", "latency_s", "energy_uj", "link_bytes")
"""What is estimated, each as a mean per request: J by the weights each request was decided with."""


@record
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@record
class WhatIf:
    """The outcome. `same` requests go where they went, `refused` ones nowhere; `unknown` places of the policy were never used.

    `logged` is what the requests did cost, `other` what they would have; over the same requests, those with a measurement.
    """

    requests: int
    same: int
    refused: int
    unknown: int
    logged: dict[str, float]
    other: dict[str, Interval]


@dataclass(slots=True)
class _Cell:
    """One place for one version: what was believed at first, and what was seen. Quantities in the order of QUANTITIES."""

    group: str
    believed: tuple[float, ...]
    unsure: tuple[float, ...]
    scatter: tuple[float, ...]
    count: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(QUANTITIES))
    squares: list[float] = field(default_factory=lambda: [0.0] * len(QUANTITIES))

    def saw(self, values: tuple[float, ...]) -> None:
        self.count += 1
        for index, value in enumerate(values):
            self.sums[index] += value
            self.squares[index] += value * value

    def judged(self, index: int) -> tuple[float, float, float]:
        """Return the mean of one quantity, the variance of that mean, and the variance of single requests."""
        believed, unsure = self.believed[index], self.unsure[index]
        spread = self.scatter[index]
        if not self.count:
            return believed, unsure, spread
        mean = self.sums[index] / self.count
        seen = max(0.0, self.squares[index] / self.count - mean * mean)
        share = self.count / (self.count + _TRUSTED_USES)
        spread = max(share * seen + (1.0 - share) * max(seen, spread), 1e-18)
        if unsure <= 0.0:
            return mean, spread / self.count, spread
        weight = self.count / spread
        total = weight + 1.0 / unsure
        return (mean * weight + believed / unsure) / total, 1.0 / total, spread


_Key = tuple[str, str, int, str, Weights]
"""Device ("": the node), model, version, the device that has the data ("": the request), and what the terms weigh."""


_Pair = tuple[str, str, int]
"""Device ("": the node), model, version."""


@dataclass(slots=True)
class _Learner:
    """What the other policy would know: of a place that it has not chosen yet, only what was believed when the log began."""

    runs: dict[_Pair, tuple[Estimate, Estimate]] = field(default_factory=dict)
    samples: dict[str, tuple[Estimate, Estimate]] = field(default_factory=dict)
    chosen: set[_Pair] = field(default_factory=set)
    sampled: set[str] = field(default_factory=set)

    def seen(self, logged: Logged, placement: Placement) -> Placement:
        """Return the decision as the other policy would meet it."""
        node = placement.node
        compute, _ = self._run(("", logged.model, logged.version), node.compute, node.compute)
        if compute is not node.compute:
            node = replace(node, compute=compute)
        devices = tuple(self._facts(logged, facts) for facts in placement.devices)
        return place(placement.question, node, devices)

    def chose(self, logged: Logged, placement: Placement, index: int | None) -> None:
        """Take note of what it tries, and so learns about."""
        if index is None:
            return
        device = "" if index == NODE_INDEX else placement.devices[index].device
        self.chosen.add((device, logged.model, logged.version))
        if index == NODE_INDEX and placement.source is not None:
            self.sampled.add(placement.source.device)

    def _run(self, pair: _Pair, compute: Estimate, energy: Estimate) -> tuple[Estimate, Estimate]:
        first = self.runs.setdefault(pair, (compute, energy))
        return (compute, energy) if pair in self.chosen else first

    def _facts(self, logged: Logged, facts: DeviceFacts) -> DeviceFacts:
        compute, energy = self._run((facts.device, logged.model, logged.version), facts.compute, facts.energy)
        now = facts.link.goodput, facts.sample_energy_uj
        first = self.samples.setdefault(facts.device, now) if facts.is_source else now
        goodput, sample = now if facts.device in self.sampled else first
        if compute == facts.compute and energy == facts.energy and (goodput, sample) == now:
            return facts
        link = replace(facts.link, goodput=goodput)
        return replace(facts, compute=compute, energy=energy, link=link, sample_energy_uj=sample)


@dataclass(slots=True)
class _Sums:
    """What is kept of all requests: how many, what they did cost, what those that stay did, and where the others would go."""

    count: int = 0
    same: int = 0
    refused: int = 0
    logged: list[float] = field(default_factory=lambda: [0.0] * len(QUANTITIES))
    stayed: list[float] = field(default_factory=lambda: [0.0] * len(QUANTITIES))
    moved: dict[_Key, int] = field(default_factory=dict)


def what_if(log: Iterable[Logged], policy: Policy) -> WhatIf:
    """Estimate what `policy` would have cost over the requests of the log that were served at the first try."""
    cells: dict[_Key, _Cell] = {}
    sums, learner = _Sums(), _Learner()
    for logged, placement, measured in _usable(log):
        mine = placement.ranked[0][2]
        theirs = policy(learner.seen(logged, placement))
        learner.chose(logged, placement, theirs)
        actual = _values(logged, measured, placement, mine)
        _cell(cells, logged, placement, mine).saw(actual)
        if theirs is None:
            sums.refused += 1
            continue
        sums.count += 1
        sums.logged = [kept + value for kept, value in zip(sums.logged, actual, strict=True)]
        if theirs == mine:
            sums.same += 1
            sums.stayed = [kept + value for kept, value in zip(sums.stayed, actual, strict=True)]
        else:
            _cell(cells, logged, placement, theirs)
            key = _key(logged, placement, theirs)
            sums.moved[key] = sums.moved.get(key, 0) + 1
    return _summed(cells, sums)


def _usable(log: Iterable[Logged]) -> Iterator[tuple[Logged, Placement, Measured]]:
    for logged in log:
        if logged.measured is None or not logged.is_first_try:
            continue
        placement = decided_again(logged)
        if placement.ranked:
            yield logged, placement, logged.measured


def _summed(cells: dict[_Key, _Cell], sums: _Sums) -> WhatIf:
    count = max(1, sums.count)
    other: dict[str, Interval] = {}
    for index, name in enumerate(QUANTITIES):
        total, noise = sums.stayed[index], 0.0
        groups: dict[str, float] = defaultdict(float)
        for key, times in sums.moved.items():
            mean, unsure, spread = cells[key].judged(index)
            total += times * mean
            groups[cells[key].group] += times * sqrt(unsure)
            noise += times * spread
        half = _INTERVAL_Z * sqrt(sum(each * each for each in groups.values()) + noise) / count
        other[name] = Interval(total / count, max(0.0, total / count - half), total / count + half)
    logged = {name: sums.logged[index] / count for index, name in enumerate(QUANTITIES)}
    unknown = sum(not cells[key].count for key in sums.moved)
    return WhatIf(sums.count, sums.same, sums.refused, unknown, logged, other)


def _key(logged: Logged, placement: Placement, index: int) -> _Key:
    device = "" if index == NODE_INDEX else placement.devices[index].device
    question = logged.question
    return device, logged.model, logged.version, question.source or "", question.weights


def _cell(cells: dict[_Key, _Cell], logged: Logged, placement: Placement, index: int) -> _Cell:
    key = _key(logged, placement, index)
    found = cells.get(key)
    if found is None:
        found = cells[key] = _believed(logged, placement, index)
    return found


def _believed(logged: Logged, placement: Placement, index: int) -> _Cell:
    """Take what was believed when the place was seen first: its costs, and how far they may be off.

    Deviations of the parts add up as squares; each part's is its standard error for the mean, its deviation for the scatter.
    """
    question = logged.question
    facts = placement.source if index == NODE_INDEX else placement.devices[index]
    compute = placement.node.compute if index == NODE_INDEX else placement.devices[index].compute
    costs = (
        node_costs(placement.node, facts) if index == NODE_INDEX else device_costs(question, placement.devices[index])
    )
    crossing = costs.link_bytes
    latency_var, latency_scatter = compute.variance / (compute.count + 1.0), compute.variance
    energy_var = energy_scatter = 0.0
    if facts is not None:
        sending_s = facts.link.transfer_s(crossing)
        quick_s = facts.link.transfer_s(crossing, z=OPTIMISM_Z)
        latency_var += (sending_s - quick_s) ** 2
        latency_scatter += (
            facts.link.rtt.variance
            + facts.link.goodput.variance * (crossing / max(1.0, facts.link.goodput.mean**2)) ** 2
        )
        if facts.on_battery:
            energy = facts.sample_energy_uj if index == NODE_INDEX else facts.energy
            energy_var, energy_scatter = energy.variance / (energy.count + 1.0), energy.variance
    weights = question.weights
    per_s, per_uj = weights.latency_per_s**2, weights.energy_per_uj**2
    return _Cell(
        group=str(question.source or key_of(facts)),
        believed=(weights.total(costs), costs.latency_s, costs.energy_uj, costs.link_bytes),
        unsure=(per_s * latency_var + per_uj * energy_var, latency_var, energy_var, 0.0),
        scatter=(per_s * latency_scatter + per_uj * energy_scatter, latency_scatter, energy_scatter, 0.0),
    )


def key_of(facts: DeviceFacts | None) -> str:
    """Return whose beliefs may be wrong together: a device's, or the node's."""
    return "node" if facts is None else facts.device


def _values(logged: Logged, measured: Measured, placement: Placement, index: int) -> tuple[float, ...]:
    """Return what the request did cost; its risk is the predicted one, as it came to no harm."""
    question = logged.question
    facts = placement.source if index == NODE_INDEX else placement.devices[index]
    failure = 0.0 if facts is None else facts.link.failures.mean
    energy_uj = measured.energy_uj if facts is not None and facts.on_battery else 0.0
    costs = Costs(measured.total_s, energy_uj, measured.link_bytes, failure)
    return question.weights.total(costs), costs.latency_s, costs.energy_uj, costs.link_bytes
