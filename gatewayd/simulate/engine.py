"""The clock of the simulation: requests, queues, pushes, outages and batteries, in the order of simulated time."""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from gatewayd.core.cost import Costs
from gatewayd.core.names import DeviceId
from gatewayd.simulate.boards import MODELS, Model
from gatewayd.simulate.gateway import FLASH_WEAR
from gatewayd.simulate.policy import Policy, Situation, Standing, Wish
from gatewayd.simulate.world import Ask, Run, Station, World


@dataclass(slots=True)
class Tally:
    """What a policy paid, in all and by (device, model), in J; and in the units of the world."""

    policy: str
    total: float = 0.0
    by_pair: dict[tuple[DeviceId, str], float] = field(default_factory=dict)
    requests: int = 0
    on_device: int = 0
    unserved: int = 0
    late: int = 0
    latencies_s: list[float] = field(default_factory=list)
    energy_uj: float = 0.0
    link_bytes: float = 0.0
    pushes: int = 0
    failed_pushes: int = 0
    evictions: int = 0
    course: list[tuple[float, float]] = field(default_factory=list)

    def pay(self, pair: tuple[DeviceId, str], amount: float) -> None:
        """Add to the bill of a pair."""
        self.total += amount
        self.by_pair[pair] = self.by_pair.get(pair, 0.0) + amount


@dataclass(slots=True)
class _Push:
    model: Model
    start_s: float
    end_s: float
    will_work: bool


@dataclass(slots=True)
class _State:
    """One device as it is: the models it holds, the push that runs, when it is free again, what its battery has given."""

    held: tuple[str, ...] = ()
    push: _Push | None = None
    free_s: float = 0.0
    used_uj: float = 0.0


@dataclass(order=True, slots=True)
class _Event:
    at_s: float
    number: int
    ask: Ask | None = field(compare=False, default=None)
    run: Run | None = field(compare=False, default=None)
    on_device: bool = field(compare=False, default=False)
    station: Station | None = field(compare=False, default=None)


class Simulation:
    """One policy in one world."""

    def __init__(self, world: World, policy: Policy) -> None:
        self._world, self._policy = world, policy
        self._weights = world.scenario.weights
        self._states = {station.id: _State() for station in world.stations}
        self._servers_s = [0.0] * world.scenario.node_servers
        self._events: list[_Event] = []
        self._number = 0
        self._chance = random.Random(f"{world.scenario.seed}/pushes")  # noqa: S311 - repeatable luck
        self.tally = Tally(policy.name)

    def run(self) -> Tally:
        """Play the scenario to its end."""
        self._standing_orders()
        step_s, next_s = self._world.scenario.duration_s / 200.0, 0.0
        for ask in self._world.asks:
            self._until(ask.at_s)
            self._serve(ask)
            if ask.at_s >= next_s:
                self.tally.course.append((ask.at_s, self.tally.total))
                next_s = ask.at_s + step_s
        self._until(self._world.scenario.duration_s)
        self.tally.course.append((self._world.scenario.duration_s, self.tally.total))
        return self.tally

    def _standing_orders(self) -> None:
        for load in self._world.scenario.load:
            if load.arrival != "periodic":
                continue
            left_s = load.until_s - load.from_s if load.until_s is not None else math.inf
            for station in self._world.stations:
                model = MODELS[load.model]
                if station.group.name == load.devices and station.can_run(model):
                    order = Standing(station, model, load.per_s, left_s)
                    wish = self._policy.ordered(order, self._situation(station, 0.0))
                    self._start(station, wish, 0.0)

    def _until(self, now_s: float) -> None:
        while self._events and self._events[0].at_s <= now_s:
            event = heapq.heappop(self._events)
            if event.station is not None:
                self._end_push(event.station, event.at_s)
            elif event.ask is not None and event.run is not None:
                situation = self._situation(event.ask.station, event.at_s)
                wish = self._policy.saw(event.ask, event.run, situation, on_device=event.on_device)
                self._start(event.ask.station, wish, event.at_s)

    def _serve(self, ask: Ask) -> None:
        tally, state, now_s = self.tally, self._states[ask.station.id], ask.at_s
        pair = (ask.station.id, ask.model.name)
        tally.requests += 1
        if not self._world.is_reachable(ask.station, now_s) or self._battery(ask.station) == 0.0:
            tally.unserved += 1
            tally.pay(pair, unserved_cost(self._world, ask))
            return
        situation = self._situation(ask.station, now_s)
        on_device = situation.holds(ask.model) and self._policy.prefers_device(ask, situation)
        run = self._world.device_run(ask) if on_device else self._world.node_run(ask)
        waited_s = self._waited_s(run, state, now_s, on_device=on_device)
        costs = run.costs(waited_s=waited_s)
        tally.on_device += on_device
        tally.late += costs.latency_s > ask.deadline_s
        tally.latencies_s.append(costs.latency_s)
        self._spend(ask.station, costs)
        tally.pay(pair, self._weights.total(costs))
        self._add(_Event(now_s + costs.latency_s, self._next(), ask, run, on_device))

    def _waited_s(self, run: Run, state: _State, now_s: float, *, on_device: bool) -> float:
        """Queue the run where it goes; the device starts at once, the node when the sample is there."""
        if on_device:
            start_s = max(now_s, state.free_s)
            state.free_s = start_s + run.compute_s
            return start_s - now_s
        there_s = now_s + run.link_s
        start_s = max(there_s, heapq.heappop(self._servers_s))
        heapq.heappush(self._servers_s, start_s + run.compute_s)
        return start_s - there_s

    def _start(self, station: Station, wish: Wish | None, now_s: float) -> None:
        state = self._states[station.id]
        if wish is None:
            return
        if state.push is not None or wish.model.name in state.held or not self._world.is_reachable(station, now_s):
            self._policy.pushed(station, wish.model, elapsed_s=0.0, is_there=False, now_s=now_s)
            return
        if wish.evict is not None and wish.evict in state.held:
            state.held = tuple(name for name in state.held if name != wish.evict)
            self.tally.evictions += 1
        run = self._world.push_run(station, wish.model, now_s)
        costs = run.costs()
        self._spend(station, costs)
        self.tally.pushes += 1
        self.tally.pay((station.id, wish.model.name), self._weights.total(costs) + FLASH_WEAR)
        will_work = self._chance.random() >= self._world.scenario.push_failure
        state.push = _Push(wish.model, now_s, now_s + run.link_s, will_work)
        self._add(_Event(state.push.end_s, self._next(), station=station))

    def _end_push(self, station: Station, now_s: float) -> None:
        state = self._states[station.id]
        push, state.push = state.push, None
        if push is None:
            return
        room = station.group.slots - len(state.held)
        is_there = push.will_work and room > 0 and self._world.is_reachable(station, now_s)
        if is_there:
            state.held = (*state.held, push.model.name)
        else:
            self.tally.failed_pushes += 1
        elapsed_s = now_s - push.start_s
        self._policy.pushed(station, push.model, elapsed_s=elapsed_s, is_there=is_there, now_s=now_s)

    def _situation(self, station: Station, now_s: float) -> Situation:
        state = self._states[station.id]
        return Situation(
            now_s,
            state.held,
            max(0.0, self._servers_s[0] - now_s),
            max(0.0, state.free_s - now_s),
            self._battery(station),
        )

    def _battery(self, station: Station) -> float | None:
        capacity_j = station.group.battery_j
        if capacity_j is None:
            return None
        return max(0.0, 1.0 - self._states[station.id].used_uj / (capacity_j * 1e6))

    def _spend(self, station: Station, costs: Costs) -> None:
        self._states[station.id].used_uj += costs.energy_uj
        self.tally.energy_uj += costs.energy_uj
        self.tally.link_bytes += costs.link_bytes

    def _add(self, event: _Event) -> None:
        heapq.heappush(self._events, event)

    def _next(self) -> int:
        self._number += 1
        return self._number


def unserved_cost(world: World, ask: Ask) -> float:
    """Return what a request costs that nobody could serve: the caller waits in vain, and it has failed."""
    weights = world.scenario.weights
    return weights.latency_per_s * ask.deadline_s + weights.risk_per_failure


def played(world: World, policies: Iterator[Policy]) -> list[Tally]:
    """Play the same world once with each policy."""
    return [Simulation(world, policy).run() for policy in policies]
