"""One device's link and processor in simulated time, under a protocol: who waits for whom, and how long everything takes.

A process is a generator that yields the moment at which it goes on; what it must wait for it books when it gets there, so that who
comes first is served first.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from gatewayd.core.airtime import Airtime, AirRules, spend
from gatewayd.simulate.boards import Model
from gatewayd.simulate.carriage import PROTOCOLS, Overheads, Protocol
from gatewayd.simulate.world import Ask, Station, World

Process = Generator[float, None, None]
Timed = Generator[float, None, float]
"""A process that returns when it was over."""

# What a repetition waits for: one and a half times what an exchange takes, with a mean jitter of 1.25, twice as long each time.
# Source: RFC 7252, section 4.2; the link learns its timer (docs/lwm2m.md).
_PATIENCE, _MOST_REPEATS = 1.5 * 1.25, 8
# A device asks again after this long for bytes that did not come.
_WANT_AGAIN_S = 2.0
_TRIP_SHARE = 0.125  # of a new round trip in the mean that the gateway keeps of a CoAP device
_CHUNK_S = 2.0  # how much of a slow link the gateway hands out at once, at most


@dataclass(frozen=True, slots=True)
class _Trips:
    """One question in seconds: its bytes down, those up, half a round trip, what machines add; and its further round trips."""

    down_s: float
    up_s: float
    half_s: float
    extra_s: float
    more: int


@dataclass(slots=True)
class Carrier:
    """One device. Times are simulated seconds; `free_s` and the others are when the last booking ends."""

    world: World
    station: Station
    clock: Callable[[], float]
    free_s: float = 0.0
    running: int = 0
    used_s: float | None = None
    trip_s: float | None = None
    _down_s: float = 0.0
    _up_s: float = 0.0
    _line_s: float = 0.0
    _has_run: set[str] = field(default_factory=set)
    _chance: random.Random = field(init=False)
    protocol: Protocol = field(init=False)

    def __post_init__(self) -> None:
        """Take the protocol of the device's group."""
        self.protocol = PROTOCOLS[self.station.group.protocol]
        seed = f"{self.world.scenario.seed}/{self.station.id}/air"
        self._chance = random.Random(seed)  # noqa: S311 - repeatable luck

    @property
    def is_reachable(self) -> bool:
        """Return whether anything gets through now."""
        return self.world.is_reachable(self.station, self.clock())

    def sampled(self, ask: Ask) -> Timed:
        """Have the sensor read and its sample sent; return when it is there."""
        yield from self._steps(self.protocol.sample_steps - 1, ask)
        return (yield from self._exchange(ask, carried_up=ask.model.input_bytes))

    def run(self, ask: Ask, compute_s: float) -> Timed:
        """Run the model there; return when the answer is here."""
        told, left_s = self.protocol, compute_s
        if ask.model.name not in self._has_run:
            self._has_run.add(ask.model.name)
            yield from self._steps(told.first_run_steps, ask)
        if told.run_steps > 1:
            yield from self._exchange(ask, work_s=left_s)
            yield from self._steps(told.run_steps - 2, ask)
            left_s = 0.0
        return (yield from self._exchange(ask, carried_up=told.run_bytes + ask.model.output_bytes, work_s=left_s))

    def pinged(self) -> Timed:
        """Ask for a sign of life; return the round trip: over CoAP the mean of late, when there is one."""
        begun_s = self.clock()
        if self.protocol.is_one_at_a_time and self.trip_s is not None:
            return self.trip_s
        return (yield from self._exchange()) - begun_s

    def pushed(self, model: Model, air_s: Callable[[int], float], carried: Callable[[int, float], None]) -> Timed:
        """Bring a model: offer, chunks as the air allows, self-test, trial; return when it answers.

        `air_s` says what a chunk is believed to take, `carried` is told bytes and seconds of each.
        """
        told = self.protocol
        yield self.clock() + self._overheads.push_ms / 1000.0
        yield from self._steps(told.offer_steps - 1)
        yield from self._exchange(carried_up=told.offer_bytes)
        yield from self._transferred(model, air_s, carried)
        self.free_s = max(self.clock(), self.free_s) + self._compute_s(model)
        yield self.free_s
        yield from self._steps(told.end_steps + told.trial_steps - 1)
        return (yield from self._exchange(carried_up=told.trial_bytes))

    def proved(self, model: Model, runs: int) -> Process:
        """Run the trial of a model that was brought: its inputs come from the gateway."""
        for _ in range(runs):
            yield from self._exchange(carried_down=model.input_bytes, work_s=self._compute_s(model))
        yield from self._steps(self.protocol.proof_steps - 1)

    def _compute_s(self, model: Model) -> float:
        return self.station.board.seconds[model.name]

    def _steps(self, count: int, ask: Ask | None = None) -> Process:
        for _ in range(count):
            yield from self._exchange(ask)

    def _transferred(
        self, model: Model, air_s: Callable[[int], float], carried: Callable[[int, float], None]
    ) -> Process:
        told, left, budget, rules = self.protocol, model.travels_bytes, None, AirRules()
        chunk_s = self._overheads.chunk_ms / 1000.0
        while left > 0:
            chunk = min(left, self._chunk_bytes())
            budget = yield from self._allowed(air_s(chunk), budget, rules)
            while not self.is_reachable:
                yield self.clock() + _WANT_AGAIN_S
            begun_s, sent = self.clock(), 0
            while sent < chunk:
                block = min(chunk - sent, told.block_bytes or chunk)
                down, up = block + told.chunk_down - told.question, told.chunk_up - told.answer
                yield from self._exchange(carried_down=down, carried_up=up, extra_s=chunk_s, blocks=1)
                sent += block
            left -= chunk
            carried(chunk, self.clock() - begun_s)

    def _chunk_bytes(self) -> int:
        most = self.protocol.most_chunk_bytes
        if most is None:
            return self.station.link.chunk_bytes
        return max(self.station.link.chunk_bytes, min(most, int(self._rate * _CHUNK_S)))

    def _allowed(self, air_s: float, budget: Airtime | None, rules: AirRules) -> Generator[float, None, Airtime]:
        """Wait until pushes may take the air of a chunk: the gateway's own rule."""
        now_s = self.clock()
        seen_s = now_s if self.running else self.used_s
        budget, wait_s = spend(budget, air_s, now_s=now_s, inference_at_s=seen_s, rules=rules)
        if wait_s > 0.0:
            yield now_s + wait_s
        return budget

    def _exchange(
        self,
        ask: Ask | None = None,
        *,
        carried_down: int = 0,
        carried_up: int = 0,
        work_s: float = 0.0,
        extra_s: float = 0.0,
        blocks: int | None = None,
    ) -> Timed:
        """Ask once; return when the answer is here. `blocks` None: as many as what is carried takes."""
        told = self.protocol
        extra_s += (self._overheads.lwm2m_ms if told.is_one_at_a_time else self._overheads.mqtt_ms) / 1000.0
        half_s = self.station.link.rtt_s * (ask.rtt_luck if ask is not None else 1.0) / 2.0
        rate = self._rate * (ask.rate_luck if ask is not None else 1.0)
        down_s, up_s = (told.question + carried_down) / rate, (told.answer + carried_up) / rate
        if told.is_one_at_a_time:
            more = (blocks or self._blocks(max(carried_down, carried_up))) - 1
            up_s += more * (told.question + told.answer) / rate
            trips = _Trips(down_s, up_s, half_s, extra_s, more)
            return (yield from self._in_turn(trips, work_s))
        self._down_s = max(self.clock(), self._down_s) + down_s
        yield self._down_s + half_s + extra_s / 2.0
        begun_s = max(self.clock(), self.free_s)
        if work_s > 0.0:
            self.free_s = begun_s + work_s
        if begun_s + work_s > self.clock():
            yield begun_s + work_s
        self._up_s = max(self.clock(), self._up_s) + up_s
        yield self._up_s + half_s + extra_s / 2.0
        return self.clock()

    def _blocks(self, carried: int) -> int:
        size = self.protocol.block_bytes
        return 1 if size is None else max(1, -(-(carried + self.protocol.wrapping) // size))

    def _in_turn(self, trips: _Trips, work_s: float) -> Timed:
        """Ask when nothing else is being asked."""
        begun_s = max(self.clock(), self._line_s)
        there_s = begun_s + self._repeats_s(trips) + trips.down_s + trips.half_s
        done_s = max(there_s, self.free_s) + work_s
        if work_s > 0.0:
            self.free_s = done_s
        more_s = trips.more * (2.0 * trips.half_s + trips.extra_s)
        self._line_s = done_s + trips.up_s + trips.half_s + trips.extra_s + more_s
        took_s = self._line_s - begun_s
        self.trip_s = took_s if self.trip_s is None else self.trip_s + _TRIP_SHARE * (took_s - self.trip_s)
        yield self._line_s
        return self.clock()

    def _repeats_s(self, trips: _Trips) -> float:
        """Return what repeating lost datagrams takes; either way may lose one."""
        loss = self.world.loss(self.station, self.clock())
        if loss <= 0.0:
            return 0.0
        fails, waited_s, exchanges = 1.0 - (1.0 - loss) ** 2, 0.0, trips.more + 1
        for _ in range(exchanges):
            patience_s = _PATIENCE * (2.0 * trips.half_s + (trips.down_s + trips.up_s) / exchanges)
            for _ in range(_MOST_REPEATS):
                if self._chance.random() >= fails:
                    break
                waited_s, patience_s = waited_s + patience_s, 2.0 * patience_s
        return waited_s

    @property
    def _rate(self) -> float:
        return self.world.rate(self.station, self.clock())

    @property
    def _overheads(self) -> Overheads:
        return self.world.scenario.overheads
