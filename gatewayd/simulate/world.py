"""The world of a scenario: every request with its luck drawn beforehand, and what running it at either place truly costs.

All policies meet the same world: the same requests at the same times, the same noise, the same losses.
"""

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice

from gatewayd.core.cost import Costs
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import RADIO_UJ_PER_BYTE
from gatewayd.simulate.boards import Board, Link, Model
from gatewayd.simulate.scenario import MAX_ASKS, Group, Load, Scenario

# Assumed noise (deviation of the logarithm): links vary by a sixth, a microcontroller hardly, a shared node by a fifth.
_LINK_NOISE, _DEVICE_NOISE, _NODE_NOISE = 0.15, 0.02, 0.2
# A lost message is noticed and sent again after this many round trips (assumed, as CoAP's and MQTT clients' do it).
_RESEND_ROUND_TRIPS = 3.0
_DAY_S = 86_400.0
# Every third burst is followed by a pause ten times as long; the others are shorter, so that the mean rate stays.
_LONG_PAUSE, _PAUSES = 10.0, 3


@dataclass(frozen=True, slots=True)
class Station:
    """One simulated device."""

    id: DeviceId
    group: Group
    board: Board
    link: Link

    def can_run(self, model: Model) -> bool:
        """Return whether the model runs on the board and fits its flash."""
        return model.name in self.board.seconds and model.size_bytes <= self.board.flash_bytes

    def is_of(self, group: str, model: Model) -> bool:
        """Return whether it is of that group and can run the model."""
        return self.group.name == group and self.can_run(model)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request by reference to a device's sensor. The factors are its luck: of the link's time and rate, either compute."""

    at_s: float
    station: Station
    model: Model
    deadline_s: float
    is_lost: bool
    rtt_luck: float
    rate_luck: float
    device_luck: float
    node_luck: float


@dataclass(frozen=True, slots=True)
class Run:
    """What one run truly takes, waiting aside: seconds on the link and computing, µJ of the device, bytes over the link."""

    link_s: float
    compute_s: float
    energy_uj: float
    link_bytes: int
    is_lost: bool

    def costs(self, *, waited_s: float = 0.0) -> Costs:
        """Return it as placement's terms."""
        return Costs(self.link_s + waited_s + self.compute_s, self.energy_uj, self.link_bytes, float(self.is_lost))


@dataclass(slots=True)
class _Factor:
    """A step function of time that starts at 1."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def at(self, now_s: float) -> float:
        index = bisect_right(self.times, now_s)
        return self.values[index - 1] if index else 1.0


class World:
    """The truth of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        known = scenario.known
        self.models = known.models
        self.stations = tuple(
            Station(DeviceId(f"{group.name}-{number}"), group, known.boards[group.board], known.links[group.link])
            for group in scenario.devices
            for number in range(1, group.count + 1)
        )
        self._factors = {
            (what, group): _factor(scenario, what, group)
            for what in ("link", "loss", "compute", "node", "rate")
            for group in [each.name for each in scenario.devices]
        }
        self.asks: tuple[Ask, ...] = tuple(sorted(self._drawn(), key=lambda ask: (ask.at_s, ask.station.id)))

    def node_run(self, ask: Ask, now_s: float | None = None) -> Run:
        """Return what it takes to send the sample and run it on the node."""
        at_s, group = ask.at_s if now_s is None else now_s, ask.station.group
        sent = ask.model.input_bytes
        link_s = self._link_s(ask, sent, at_s)
        compute_s = ask.model.node_s * ask.node_luck * self.factor("node", group, at_s)
        energy_uj = sent * RADIO_UJ_PER_BYTE if group.battery_j is not None else 0.0
        return Run(link_s, compute_s, energy_uj, sent, ask.is_lost)

    def device_run(self, ask: Ask, now_s: float | None = None) -> Run:
        """Return what it takes to run it where the sample is; only the answer crosses the link."""
        at_s, station, name = ask.at_s if now_s is None else now_s, ask.station, ask.model.name
        factor = ask.device_luck * self.factor("compute", station.group, at_s)
        link_s = self._link_s(ask, ask.model.output_bytes, at_s)
        energy_uj = station.board.energy_uj[name] * factor if station.group.battery_j is not None else 0.0
        return Run(link_s, station.board.seconds[name] * factor, energy_uj, ask.model.output_bytes, ask.is_lost)

    def push_run(self, station: Station, model: Model, now_s: float) -> Run:
        """Return what a push that starts now truly takes."""
        link = station.link
        sent = model.travels_bytes
        chunks = max(1, math.ceil(sent / link.chunk_bytes))
        energy_uj = sent * RADIO_UJ_PER_BYTE if station.group.battery_j is not None else 0.0
        return Run(sent / self.rate(station, now_s) + chunks * link.rtt_s, 0.0, energy_uj, sent, is_lost=False)

    def node_s(self, station: Station, model: Model, now_s: float) -> float:
        """Return the seconds of one run on the node at a moment, luck aside."""
        return model.node_s * self.factor("node", station.group, now_s)

    def rate(self, station: Station, now_s: float) -> float:
        """Return the bytes per second of a device's link at a moment."""
        return station.link.bytes_per_s * self.factor("link", station.group, now_s)

    def loss(self, station: Station, now_s: float) -> float:
        """Return the share of messages that a device's link loses at a moment."""
        return min(0.9, station.link.loss * self.factor("loss", station.group, now_s))

    def changes_s(self, station: Station) -> tuple[float, ...]:
        """Return when the rate of the device's link changes."""
        return tuple(self._factors["link", station.group.name].times)

    def is_reachable(self, station: Station, now_s: float) -> bool:
        """Return whether the device's link is up."""
        return not any(
            change.what == "outage"
            and change.devices == station.group.name
            and change.at_s <= now_s < change.at_s + (change.for_s if change.for_s is not None else math.inf)
            for change in self.scenario.changes
        )

    def fleets(self) -> dict[str, int]:
        """Return how many devices could be asked for each model, as far as the loads say who has its data."""
        asked = {(load.devices, load.model) for load in self.scenario.load}
        able = Counter(
            model for group, model in asked for station in self.stations if station.is_of(group, self.models[model])
        )
        return dict(able)

    def _link_s(self, ask: Ask, byte_count: int, at_s: float) -> float:
        link = ask.station.link
        rtt_s = link.rtt_s * ask.rtt_luck
        rate = link.bytes_per_s * ask.rate_luck * self.factor("link", ask.station.group, at_s)
        return rtt_s + byte_count / rate + (_RESEND_ROUND_TRIPS * link.rtt_s if ask.is_lost else 0.0)

    def factor(self, what: str, group: Group, now_s: float) -> float:
        """Return by what the changes multiply `what` now."""
        return self._factors[what, group.name].at(now_s)

    def _drawn(self) -> Iterator[Ask]:
        for index, load in enumerate(self.scenario.load):
            for station in self.stations:
                if station.group.name == load.devices:
                    yield from self._of_station(load, station, self._chance(index, station))

    def _chance(self, index: int, station: Station) -> random.Random:
        return random.Random(f"{self.scenario.seed}/{index}/{station.id}")  # noqa: S311 - repeatable luck

    def rate_of(self, load: Load, station: Station) -> float:
        """Return a device's own mean rate, requests per second: what no policy is told."""
        return _own_rate(load, self._chance(self.scenario.load.index(load), station))

    def _of_station(self, load: Load, station: Station, chance: random.Random) -> Iterator[Ask]:
        group, model = station.group, self.models[load.model]
        until_s = min(self.scenario.duration_s, load.until_s if load.until_s is not None else math.inf)
        noise = self.scenario.noise
        per_s = _own_rate(load, chance)
        times = _times(load, per_s, chance, lambda now_s: self.factor("rate", group, now_s))
        for at_s in islice(times, load.at_most if load.at_most is not None else MAX_ASKS):
            if at_s >= until_s:
                return
            yield Ask(
                at_s,
                station,
                model,
                load.deadline_s,
                chance.random() < self.loss(station, at_s),
                chance.lognormvariate(0.0, _LINK_NOISE * noise),
                chance.lognormvariate(0.0, _LINK_NOISE * noise),
                chance.lognormvariate(0.0, _DEVICE_NOISE * noise),
                chance.lognormvariate(0.0, _NODE_NOISE * noise),
            )


def _factor(scenario: Scenario, what: str, group: str) -> _Factor:
    """Multiply the changes that overlap."""
    changes = [each for each in scenario.changes if each.what == what and (what == "node" or each.devices == group)]
    ends = [
        (each.at_s, each.at_s + each.for_s if each.for_s is not None else math.inf, each.factor) for each in changes
    ]
    times = sorted({moment for start_s, end_s, _ in ends for moment in (start_s, end_s) if moment < math.inf})
    values = [math.prod(factor for start_s, end_s, factor in ends if start_s <= moment < end_s) for moment in times]
    return _Factor(times, values)


def _own_rate(load: Load, chance: random.Random) -> float:
    return load.per_s * math.exp(load.spread * chance.gauss(0.0, 1.0))


def _times(load: Load, per_s: float, chance: random.Random, factor: Callable[[float], float]) -> Iterator[float]:
    """Yield when one device is asked, without an end."""
    now_s = load.from_s
    if per_s <= 0.0:
        return
    for turn in count():
        rate = per_s * max(factor(now_s), 1e-9)
        match load.arrival:
            case "periodic":
                now_s += 1.0 / rate
            case "bursts" | "adversarial":
                now_s += (
                    chance.expovariate(rate / pause_of(load, turn))
                    if turn % load.burst == 0
                    else 0.05 / rate * chance.random()
                )
            case "diurnal":
                day = 1.0 + 0.9 * math.sin(2.0 * math.pi * now_s / _DAY_S)
                now_s += chance.expovariate(rate * day)
            case _:
                now_s += chance.expovariate(rate)
        yield now_s


def pause_of(load: Load, turn: int) -> float:
    """Return the mean pause before a burst, in gaps of the mean rate."""
    if load.arrival == "bursts":
        return float(load.burst)
    is_long = turn // load.burst % _PAUSES == 0
    return load.burst * (_LONG_PAUSE if is_long else 1.0) * _PAUSES / (_LONG_PAUSE + _PAUSES - 1.0)
