"""How far knowledge helps: two policies that know what nobody can know, but not when requests come.

`RatesKnown` is told every true mean cost and each device's true mean rate at any time, and how lengths of scenarios are
distributed. `RatesLearned` is told the costs, the kind of arrivals and the grid the scenarios are drawn from, and infers the rate
by Bayes' rule. Both push when a push is more likely than not to pay: they are after the cost, not after the share of scenarios.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

from bench.placement_grid import DAY_S, RATIOS, SPREAD, UNSURE_LENGTH, Case, break_even_of
from gatewayd.core.cost import Costs
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import RADIO_UJ_PER_BYTE
from gatewayd.simulate.baselines import Baseline
from gatewayd.simulate.gateway import FLASH_WEAR
from gatewayd.simulate.policy import Situation, Wish
from gatewayd.simulate.world import Ask, Run, World, pause_of

# A device's own rate lies around its load's: five points of the standard normal distribution with their weights.
_POINTS = [(x, math.exp(-x * x / 2.0)) for x in (-1.5, -0.75, 0.0, 0.75, 1.5)]
_EVEN = 0.5


class RatesKnown(Baseline):
    """Knows costs and rates, not arrivals."""

    name = "rates known"

    def __init__(self, world: World, case: Case) -> None:
        super().__init__(world.scenario.weights)
        self._world, self._case = world, case
        self._load = world.scenario.load[0]
        self._per_s = {station.id: world.rate_of(self._load, station) for station in world.stations}

    def prefers_device(self, ask: Ask, situation: Situation) -> bool:
        """The truly cheaper one."""
        return self._saving(ask, situation.now_s) > 0.0

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """Whether what will be saved, on average, is worth the price."""
        now_s, worth = situation.now_s, self._worth(ask, situation.now_s)
        return self._per_s[ask.station.id] * self._drift(ask, now_s) * worth >= 1.0

    def _worth(self, ask: Ask, now_s: float) -> float:
        """Return the pushes that a request per second would pay until the end."""
        push = self._world.push_run(ask.station, ask.model, now_s)
        price = self.weights.total(push.costs()) + FLASH_WEAR
        return _expected_left_s(now_s) * self._saving(ask, now_s) / price

    def _drift(self, ask: Ask, now_s: float) -> float:
        return self._world.factor("rate", ask.station.group, now_s)

    def _saving(self, ask: Ask, now_s: float) -> float:
        station, model, factor = ask.station, ask.model, self._world.factor
        rate = station.link.bytes_per_s * factor("link", station.group, now_s)
        node_s = model.node_s * factor("node", station.group, now_s)
        slower = factor("compute", station.group, now_s)
        node = Costs(
            model.input_bytes / rate + node_s,
            model.input_bytes * RADIO_UJ_PER_BYTE,
            model.input_bytes,
            station.link.loss,
        )
        device_s, device_uj = station.board.seconds[model.name] * slower, station.board.energy_uj[model.name] * slower
        device = Costs(model.output_bytes / rate + device_s, device_uj, model.output_bytes, station.link.loss)
        return self.weights.total(node) - self.weights.total(device)


class RatesLearned(RatesKnown):
    """Knows costs, arrivals' kind and the grid; learns the rate."""

    name = "rates learned"

    def __init__(self, world: World, case: Case) -> None:
        super().__init__(world, case)
        self._times: dict[DeviceId, list[float]] = {station.id: [] for station in world.stations}
        self._break_even = break_even_of(case.scenario)

    def saw(self, ask: Ask, run: Run, situation: Situation, *, on_device: bool) -> Wish | None:
        """Note when it came."""
        self._times[ask.station.id].append(ask.at_s)
        return super().saw(ask, run, situation, on_device=on_device)

    def wants(self, ask: Ask, situation: Situation) -> bool:
        """Whether it is more likely than not that the rate is high enough."""
        if self._load.arrival == "periodic":
            return super().wants(ask, situation)
        now_s = situation.now_s
        needed = 1.0 / max(1e-12, self._drift(ask, now_s) * self._worth(ask, now_s))
        beliefs = [item for ratio in RATIOS for item in self._beliefs(ask.station.id, ratio, now_s)]
        most = max(log for _, log in beliefs)
        weighed = [(per_s, math.exp(log - most)) for per_s, log in beliefs]
        return sum(w for per_s, w in weighed if per_s >= needed) >= _EVEN * sum(w for _, w in weighed)

    def _beliefs(self, own: DeviceId, ratio: float, now_s: float) -> Iterator[tuple[float, float]]:
        """Yield the device's possible rates with the logarithm of their likelihood, given all devices' requests."""
        middle = ratio * self._break_even / DAY_S
        rates = [(middle * math.exp(SPREAD * x), math.log(weight)) for x, weight in _POINTS]
        others = 0.0
        for device, times in self._times.items():
            if device != own:
                logs = [log + self._likelihood(times, per_s, now_s) for per_s, log in rates]
                others += max(logs) + math.log(sum(math.exp(each - max(logs)) for each in logs))
        for per_s, log in rates:
            yield per_s, log + others + self._likelihood(self._times[own], per_s, now_s)

    def _likelihood(self, times: Sequence[float], per_s: float, now_s: float) -> float:
        if self._load.arrival not in {"bursts", "adversarial"}:
            return len(times) * math.log(per_s) - per_s * now_s
        found, last_s, burst = 0.0, 0.0, self._load.burst
        for turn in range(0, len(times), burst):
            rate = per_s / pause_of(self._load, turn)
            found += math.log(rate) - rate * (times[turn] - last_s)
            last_s = times[min(turn + burst - 1, len(times) - 1)]
        if len(times) % burst == 0:
            found -= per_s / pause_of(self._load, len(times)) * (now_s - last_s)
        return found


def _expected_left_s(age_s: float) -> float:
    """Return how much longer a scenario that has lasted so long is expected to last: its length is lognormal around a day."""
    mean_s = DAY_S * math.exp(UNSURE_LENGTH**2 / 2.0)
    if age_s <= 0.0:
        return mean_s
    deviations, normal = math.log(age_s / DAY_S) / UNSURE_LENGTH, NormalDist()
    lasts = 1.0 - normal.cdf(deviations)
    if lasts < 1e-9:
        return 0.0
    return mean_s * (1.0 - normal.cdf(deviations - UNSURE_LENGTH)) / lasts - age_s


IDEALS = (RatesKnown, RatesLearned)
