"""One device's link and processor in simulated time, under a protocol: who waits for whom, and how long everything takes.

A process is a generator that yields the moment at which it goes on; what it must wait for it books when it gets there, so
that who comes first is served first.
"""

import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import inf
from typing import Protocol as Structure

from gatewayd.core.airtime import AirRules, Airtime, spend
from gatewayd.simulate.boards import Model
from gatewayd.simulate.carriage import PROTOCOLS, Overheads, Protocol
from gatewayd.simulate.world import Ask, Station, World

Process = Generator[float, None, None]
Timed = Generator[float, None, float]
"""A process that returns when it was over."""

# Jitter of the wait for a repetition, which is twice as long each time. Source: RFC 7252, section 4.2.
_JITTER, _MOST_REPEATS = (1.0, 1.5), 8
# A device asks again after this long for bytes that did not come.
_WANT_AGAIN_S = 2.0
_AIR = AirRules()
_LEAST_CHUNK = 1024
_CHUNK_S = 2.0  # how much of a slow link the gateway hands out at once, at most


@dataclass(slots=True)
class _Air:
    """What a push may still take of the link's air; `needs_s` says what a chunk is believed to take."""

    needs_s: Callable[[int], float]
    budget: Airtime | None = None


class Scheduler(Structure):
    """Whose time it is. A process that yields infinity goes on when somebody resumes it."""

    @property
    def now_s(self) -> float:
        """The simulated time."""

    @property
    def current(self) -> Process:
        """The process that runs."""

    def resume(self, process: Process) -> None:
        """Let a process go on now."""


@dataclass(slots=True)
class _Timer:
    """How long a CoAP question waits for its answer: learned as the gateway learns it (RFC 6298; docs/lwm2m.md)."""

    mean_s: float | None = None
    deviation_s: float = 0.0

    @property
    def wait_s(self) -> float:
        return 2.0 if self.mean_s is None else min(10.0, max(0.06, self.mean_s + 4.0 * self.deviation_s))

    def took(self, elapsed_s: float, *, is_repeated: bool) -> None:
        if self.mean_s is None:
            self.mean_s, self.deviation_s = elapsed_s, elapsed_s / 2.0
            return
        share = 0.05 if is_repeated else 1.0
        self.deviation_s += share * 0.25 * (abs(elapsed_s - self.mean_s) - self.deviation_s)
        self.mean_s += share * 0.125 * (elapsed_s - self.mean_s)


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
    """One device. Times are simulated seconds; `free_s` and the others are when the last booking ends.

    Where a device is asked one thing at a time, what belongs together (a run, a sample) is an errand, and errands wait for each
    other.
    """

    world: World
    station: Station
    scheduler: Scheduler
    free_s: float = 0.0
    running: int = 0
    used_s: float | None = None
    _down_s: float = 0.0
    _up_s: float = 0.0
    _line_s: float = 0.0
    _timer: _Timer = field(default_factory=_Timer)
    _has_errand: bool = False
    _errands: deque[Process] = field(default_factory=deque)
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

    def clock(self) -> float:
        """Return the simulated time."""
        return self.scheduler.now_s

    def sampled(self, ask: Ask) -> Timed:
        """Have the sensor read and its sample sent; return when it is there."""
        yield from self._turn()
        yield from self._steps(self.protocol.sample_steps - 1, ask)
        there_s = yield from self._exchange(ask, carried_up=self.protocol.sample_bytes + ask.model.input_bytes)
        self._next()
        return there_s

    def run(self, ask: Ask, compute_s: float) -> Timed:
        """Run the model there; return when the answer is here."""
        told, left_s = self.protocol, compute_s
        yield from self._turn()
        if ask.model.name not in self._has_run:
            self._has_run.add(ask.model.name)
            yield from self._steps(told.first_run_steps, ask)
        if told.run_steps > 1:
            yield from self._exchange(ask, work_s=left_s)
            yield from self._steps(told.run_steps - 2, ask)
            left_s = 0.0
        carried = told.run_bytes + ask.model.output_bytes
        there_s = yield from self._exchange(ask, carried_up=carried, work_s=left_s)
        if told.is_one_at_a_time and self._chance.random() < self.world.loss(self.station, there_s):
            # The notification with the result was lost: after a while the slot is read.
            yield there_s + max(0.1, 2.0 * self._timer.wait_s)
            there_s = yield from self._exchange(ask, carried_up=carried)
        self._next()
        return there_s

    def pinged(self) -> Timed:
        """Ask for a sign of life; return the round trip: over CoAP the mean of late, when there is one."""
        begun_s = self.clock()
        if self.protocol.is_one_at_a_time and self._timer.mean_s is not None:
            return self._timer.mean_s
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
        yield from self._turn()
        for _ in range(runs):
            yield from self._exchange(carried_down=model.input_bytes, work_s=self._compute_s(model))
        yield from self._steps(self.protocol.proof_steps - 1)
        self._next()

    def _turn(self) -> Process:
        """Wait until no other errand is under way."""
        if not self.protocol.is_one_at_a_time:
            return
        if self._has_errand:
            self._errands.append(self.scheduler.current)
            yield inf
        self._has_errand = True

    def _next(self) -> None:
        """Let the next errand begin; it goes before any that comes now."""
        if self._errands:
            self.scheduler.resume(self._errands.popleft())
        else:
            self._has_errand = False

    def _compute_s(self, model: Model) -> float:
        return self.station.board.seconds[model.name]

    def _steps(self, count: int, ask: Ask | None = None) -> Process:
        for _ in range(count):
            yield from self._exchange(ask)

    def _transferred(
        self, model: Model, air_s: Callable[[int], float], carried: Callable[[int, float], None]
    ) -> Process:
        """Send chunk by chunk; each is asked for a little before the last one has left, and leaves when the air allows."""
        told, left, air = self.protocol, model.travels_bytes, _Air(air_s)
        chunk = min(left, self.station.link.chunk_bytes if told.block_bytes is None else 4 * told.block_bytes)
        asked_s, ready_s = self.clock(), self._allowed_s(chunk, air)
        while left > 0:
            if ready_s > self.clock():
                yield ready_s
            while not self.is_reachable:
                yield self.clock() + _WANT_AGAIN_S
            size, following, sent, begun_s = chunk, 0, 0, self.clock()
            while sent < size:
                block = min(size - sent, told.block_bytes or size)
                sent += block
                if not following and told.ahead_blocks and size - sent <= told.ahead_blocks * (told.block_bytes or 0):
                    following = min(left - size, self._length(size, self.clock() - asked_s))
                    if following:
                        carried(size, self.clock() - begun_s)
                        asked_s, ready_s = self.clock(), self._allowed_s(following, air)
                yield from self._block(block)
            left -= size
            if not following and left:
                following = min(left, size)
                carried(size, self.clock() - begun_s)
                asked_s, ready_s = self.clock(), self._allowed_s(following, air)
            chunk = following

    def _block(self, count: int) -> Timed:
        told = self.protocol
        down, up = count + told.chunk_down - told.question, told.chunk_up - told.answer
        extra_s = self._overheads.chunk_ms / 1000.0
        return (yield from self._exchange(carried_down=down, carried_up=up, extra_s=extra_s, blocks=1))

    def _length(self, size: int, elapsed_s: float) -> int:
        """Return how much is asked for after a chunk of `size` bytes: about two seconds of the link."""
        if elapsed_s <= 0.0:
            return size
        return int(min(self.protocol.most_chunk_bytes or size, max(_LEAST_CHUNK, size / elapsed_s * _CHUNK_S)))

    def _allowed_s(self, chunk: int, air: _Air) -> float:
        """Return when pushes may take the air of a chunk: the gateway's own rule."""
        now_s = self.clock()
        seen_s = now_s if self.running else self.used_s
        air.budget, wait_s = spend(air.budget, air.needs_s(chunk), now_s=now_s, inference_at_s=seen_s, rules=_AIR)
        return now_s + wait_s

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
        waited_s = self._repeats_s(trips.more + 1)
        there_s = begun_s + waited_s + trips.down_s + trips.half_s
        done_s = max(there_s, self.free_s) + work_s
        if work_s > 0.0:
            self.free_s = done_s
        more_s = trips.more * (2.0 * trips.half_s + trips.extra_s)
        self._line_s = done_s + trips.up_s + trips.half_s + trips.extra_s + more_s
        self._timer.took(self._line_s - begun_s, is_repeated=waited_s > 0.0)
        yield self._line_s
        return self.clock()

    def _repeats_s(self, exchanges: int) -> float:
        """Return what repeating lost datagrams takes; either way may lose one."""
        loss = self.world.loss(self.station, self.clock())
        if loss <= 0.0:
            return 0.0
        fails, waited_s = 1.0 - (1.0 - loss) ** 2, 0.0
        for _ in range(exchanges):
            patience_s = self._timer.wait_s * self._chance.uniform(*_JITTER)
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
