"""The clock of the simulation: requests, queues, pushes, outages and batteries, in the order of simulated time."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from gatewayd.core.cost import Costs
from gatewayd.core.names import DeviceId
from gatewayd.simulate.boards import Model
from gatewayd.simulate.carrier import Carrier, Process
from gatewayd.simulate.gateway import FLASH_WEAR
from gatewayd.simulate.policy import Policy, Situation, Standing, Wish
from gatewayd.simulate.world import Ask, Run, Station, World

_Running = Generator[float, None, Run]


@dataclass(frozen=True, slots=True)
class Pushed:
    """One push: when it began and ended, and whether the model answers there now."""

    device: DeviceId
    model: str
    start_s: float
    end_s: float
    is_there: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request: where it ran, and its seconds (None: nobody served it)."""

    ask: Ask
    on_device: bool
    latency_s: float | None


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
    pushed: list[Pushed] = field(default_factory=list)

    def pay(self, pair: tuple[DeviceId, str], amount: float) -> None:
        """Add to the bill of a pair."""
        self.total += amount
        self.by_pair[pair] = self.by_pair.get(pair, 0.0) + amount


@dataclass(slots=True)
class _State:
    """One device as it is: the models it holds, the one on its way, when it is free again, what its battery has given."""

    held: tuple[str, ...] = ()
    pushing: str | None = None
    free_s: float = 0.0
    used_uj: float = 0.0
    carrier: Carrier | None = None


class Simulation:
    """One policy in one world. `watch` is told of every request when it is over."""

    def __init__(self, world: World, policy: Policy, *, watch: Callable[[Outcome], None] | None = None) -> None:
        self._world, self._policy, self._watch = world, policy, watch
        self._weights = world.scenario.weights
        self._now_s = 0.0
        self._current: Process | None = None
        self._states = {station.id: _State(carrier=self._carrier(station)) for station in world.stations}
        self._servers_s = [0.0] * world.scenario.node_servers
        # With a protocol the node is the daemon's: one process for each model, one run at a time.
        self._seats_s: dict[str, float] = {}
        self._waiting: Counter[str] = Counter()
        self._events: list[tuple[float, int, Process]] = []
        self._number = 0
        self._chance = random.Random(f"{world.scenario.seed}/pushes")  # noqa: S311 - repeatable luck
        self.tally = Tally(policy.name)

    def run(self) -> Tally:
        """Play the scenario to its end."""
        duration_s = self._world.scenario.duration_s
        for station in self._world.stations:
            if (carrier := self._states[station.id].carrier) is not None:
                self._go_on(self._pinging(station, carrier))
        self._standing_orders()
        step_s, next_s = duration_s / 200.0, 0.0
        for ask in self._world.asks:
            self._until(ask.at_s)
            self._now_s = ask.at_s
            self._go_on(self._request(ask))
            if ask.at_s >= next_s:
                self.tally.course.append((ask.at_s, self.tally.total))
                next_s = ask.at_s + step_s
        self._until(duration_s)
        self._until(math.inf)
        self.tally.course.append((duration_s, self.tally.total))
        return self.tally

    def _carrier(self, station: Station) -> Carrier | None:
        return Carrier(self._world, station, self) if station.group.protocol else None

    def _standing_orders(self) -> None:
        for load in self._world.scenario.load:
            if load.arrival != "periodic":
                continue
            left_s = load.until_s - load.from_s if load.until_s is not None else math.inf
            for station in self._world.stations:
                model = self._world.models[load.model]
                if station.group.name == load.devices and station.can_run(model):
                    order = Standing(station, model, load.per_s, left_s)
                    wish = self._policy.ordered(order, self._situation(station, model))
                    self._start(station, wish)

    def _until(self, now_s: float) -> None:
        while self._events and self._events[0][0] <= now_s:
            self._now_s, _, process = heapq.heappop(self._events)
            self._go_on(process)

    @property
    def now_s(self) -> float:
        """See `carrier.Scheduler`."""
        return self._now_s

    @property
    def current(self) -> Process:
        """See `carrier.Scheduler`."""
        if self._current is None:
            raise RuntimeError("no process runs")
        return self._current

    def resume(self, process: Process) -> None:
        """See `carrier.Scheduler`."""
        self._at(self._now_s, process)

    def _go_on(self, process: Process) -> None:
        before, self._current = self._current, process  # one may begin another
        at_s = next(process, None)
        self._current = before
        if at_s is not None and at_s < math.inf:
            self._at(at_s, process)

    def _at(self, at_s: float, process: Process) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, process))

    def _request(self, ask: Ask) -> Process:
        tally, state = self.tally, self._states[ask.station.id]
        tally.requests += 1
        if not self._world.is_reachable(ask.station, self._now_s) or self._battery(ask.station) == 0.0:
            self._unserved(ask)
            return
        situation = self._situation(ask.station, ask.model)
        self._policy.asked(ask, situation)
        on_device = situation.holds(ask.model) and self._policy.prefers_device(ask, situation)
        if state.carrier is not None:
            run = yield from self._carried(ask, state.carrier, on_device=on_device)
        else:
            run = yield from self._alone(ask, state, on_device=on_device)
        latency_s = self._now_s - ask.at_s
        if state.carrier is not None and latency_s > ask.deadline_s:
            self._unserved(ask)
            return
        self._count(ask, run, latency_s, on_device=on_device)
        wish = self._policy.saw(ask, run, self._situation(ask.station, ask.model), on_device=on_device)
        self._start(ask.station, wish)

    def _count(self, ask: Ask, run: Run, latency_s: float, *, on_device: bool) -> None:
        tally, costs = self.tally, Costs(latency_s, run.energy_uj, run.link_bytes, float(run.is_lost))
        tally.on_device += on_device
        tally.late += latency_s > ask.deadline_s
        tally.latencies_s.append(latency_s)
        self._spend(ask.station, costs)
        tally.pay((ask.station.id, ask.model.name), self._weights.total(costs))
        if self._watch is not None:
            self._watch(Outcome(ask, on_device, latency_s))

    def _unserved(self, ask: Ask) -> None:
        self.tally.unserved += 1
        self.tally.pay((ask.station.id, ask.model.name), unserved_cost(self._world, ask))
        if self._watch is not None:
            self._watch(Outcome(ask, on_device=False, latency_s=None))

    def _alone(self, ask: Ask, state: _State, *, on_device: bool) -> _Running:
        """Run it over the link alone; the device starts at once, the node when the sample is there."""
        run = self._world.device_run(ask) if on_device else self._world.node_run(ask)
        if on_device:
            state.free_s = max(self._now_s, state.free_s) + run.compute_s
            yield state.free_s + run.link_s
            return run
        yield self._now_s + run.link_s
        start_s = max(self._now_s, heapq.heappop(self._servers_s))
        heapq.heappush(self._servers_s, start_s + run.compute_s)
        yield start_s + run.compute_s
        return run

    def _carried(self, ask: Ask, carrier: Carrier, *, on_device: bool) -> _Running:
        """Run it as the protocol has it; what is learned is what the gateway can measure."""
        half_s = self._world.scenario.overheads.request_ms / 2000.0
        begun_s, truth = self._now_s, self._world.device_run(ask) if on_device else self._world.node_run(ask)
        yield begun_s + half_s
        begun_s, carrier.running = self._now_s, carrier.running + 1
        if on_device:
            yield from carrier.run(ask, truth.compute_s)
        else:
            yield from carrier.sampled(ask)
        carrier.running, carrier.used_s = carrier.running - 1, self._now_s
        elapsed_s = self._now_s - begun_s
        if on_device:
            elapsed_s -= truth.compute_s
        else:
            yield from self._computed(ask.model.name, truth.compute_s)
        yield self._now_s + half_s
        return Run(max(0.0, elapsed_s), truth.compute_s, truth.energy_uj, truth.link_bytes, is_lost=False)

    def _computed(self, model: str, compute_s: float) -> Process:
        self._waiting[model] += 1
        start_s = max(self._now_s, self._seats_s.get(model, 0.0), heapq.heappop(self._servers_s))
        self._seats_s[model] = start_s + compute_s
        heapq.heappush(self._servers_s, start_s + compute_s)
        yield start_s + compute_s
        self._waiting[model] -= 1

    def _pinging(self, station: Station, carrier: Carrier) -> Process:
        while self._now_s < self._world.scenario.duration_s:
            if carrier.is_reachable:
                rtt_s = yield from carrier.pinged()
                self._policy.pinged(station, rtt_s, now_s=self._now_s)
            yield self._now_s + self._world.scenario.ping_every_s

    def _start(self, station: Station, wish: Wish | None) -> None:
        state, now_s = self._states[station.id], self._now_s
        if wish is None or now_s >= self._world.scenario.duration_s:
            return
        if state.pushing is not None or wish.model.name in state.held or not self._world.is_reachable(station, now_s):
            self._policy.pushed(station, wish.model, elapsed_s=0.0, is_there=False, now_s=now_s)
            return
        if wish.evict is not None and wish.evict in state.held:
            state.held = tuple(name for name in state.held if name != wish.evict)
            self.tally.evictions += 1
        costs = self._world.push_run(station, wish.model, now_s).costs()
        self._spend(station, costs)
        self.tally.pushes += 1
        will_work = self._chance.random() >= self._world.scenario.push_failure
        state.pushing = wish.model.name
        self._go_on(self._push(station, wish.model, will_work=will_work))

    def _push(self, station: Station, model: Model, *, will_work: bool) -> Process:
        state, start_s, policy = self._states[station.id], self._now_s, self._policy
        costs = self._world.push_run(station, model, start_s).costs()
        if state.carrier is None:
            self.tally.pay((station.id, model.name), self._weights.total(costs) + FLASH_WEAR)
            yield start_s + costs.latency_s
        else:
            yield from state.carrier.pushed(
                model,
                lambda count: policy.transfer_s(station, count, now_s=self._now_s),
                lambda count, elapsed_s: policy.carried(station, count, elapsed_s, now_s=self._now_s),
            )
            took = Costs(self._now_s - start_s, costs.energy_uj, costs.link_bytes, 0.0)
            self.tally.pay((station.id, model.name), self._weights.total(took) + FLASH_WEAR)
        is_there = self._end_push(station, model, start_s, will_work=will_work)
        if state.carrier is not None and is_there:
            yield from state.carrier.proved(model, self._world.scenario.trials)
        state.pushing = None

    def _end_push(self, station: Station, model: Model, start_s: float, *, will_work: bool) -> bool:
        state, now_s = self._states[station.id], self._now_s
        room = station.group.slots - len(state.held)
        is_there = will_work and room > 0 and self._world.is_reachable(station, now_s)
        if is_there:
            state.held = (*state.held, model.name)
        else:
            self.tally.failed_pushes += 1
        self.tally.pushed.append(Pushed(station.id, model.name, start_s, now_s, is_there))
        self._policy.pushed(station, model, elapsed_s=now_s - start_s, is_there=is_there, now_s=now_s)
        return is_there

    def _situation(self, station: Station, model: Model) -> Situation:
        state, now_s = self._states[station.id], self._now_s
        if state.carrier is None:
            node_s, device_s = max(0.0, self._servers_s[0] - now_s), max(0.0, state.free_s - now_s)
        else:
            # As the gateway believes it: so many before this one, times what one takes.
            node_s = self._waiting[model.name] * self._world.node_s(station, model, now_s)
            device_s = state.carrier.running * station.board.seconds.get(model.name, 0.0)
        return Situation(now_s, state.held, node_s, device_s, self._battery(station), state.pushing)

    def _battery(self, station: Station) -> float | None:
        capacity_j = station.group.battery_j
        if capacity_j is None:
            return None
        return max(0.0, 1.0 - self._states[station.id].used_uj / (capacity_j * 1e6))

    def _spend(self, station: Station, costs: Costs) -> None:
        self._states[station.id].used_uj += costs.energy_uj
        self.tally.energy_uj += costs.energy_uj
        self.tally.link_bytes += costs.link_bytes


def unserved_cost(world: World, ask: Ask) -> float:
    """Return what a request costs that nobody could serve: the caller waits in vain, and it has failed."""
    weights = world.scenario.weights
    return weights.latency_per_s * ask.deadline_s + weights.risk_per_failure


def played(world: World, policies: Iterator[Policy]) -> list[Tally]:
    """Play the same world once with each policy."""
    return [Simulation(world, policy).run() for policy in policies]
