"""The node's runtime: one worker process per loaded variant, started before or on first use, restarted when it dies.

Each loaded variant has a seat (`worker_seat`) on the engine that was measured fastest among those there are now. What kills
its process twice in a row is quarantined. When an engine goes (its accelerator was pulled), its seats go on with the next
best engine; when it comes back, they return to it, loaded before they move.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from gatewayd.adapters.worker_child import start_worker
from gatewayd.adapters.worker_nursery import Nurseries
from gatewayd.adapters.worker_seat import WorkerLimits, WorkerSeat
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import EngineMissing, GatewayError, ModelRefused, Overloaded, WorkerDied
from gatewayd.core.events import VariantQuarantined, WorkerEnded
from gatewayd.core.model import NodeRun, Place, Seat, Variant
from gatewayd.core.names import Digest
from gatewayd.core.tensor import Tensor

_DEATHS_TO_QUARANTINE = 2
_RETURN_S = 60.0  # what loading on an engine that came back may take; until then the other one serves

Announce = Callable[[VariantQuarantined | WorkerEnded], None]


@dataclass(slots=True)
class _Occupied:
    variant: Variant
    seat: WorkerSeat
    task: asyncio.Task[None]


def _tell_nobody(event: VariantQuarantined | WorkerEnded) -> None:
    """Drop it."""


class Workers:
    """Runs variants in worker processes. Use as `async with`: leaving ends every process."""

    def __init__(
        self,
        artifact_path: Callable[[Digest], Path],
        engines: Sequence[EngineSpec],
        *,
        clock: Callable[[], float],
        limits: WorkerLimits | None = None,
        announce: Announce = _tell_nobody,
    ) -> None:
        self._artifact_path = artifact_path
        self._engines = tuple(engines)
        self._clock = clock
        self._limits = limits or WorkerLimits()
        self._announce = announce
        self._nurseries = Nurseries(start_timeout_s=self._limits.start_timeout_s)
        self._launch = self._nurseries.launch if self._limits.is_forked else start_worker
        self._tasks = asyncio.TaskGroup()
        self._seats: OrderedDict[Digest, _Occupied] = OrderedDict()  # least recently used first
        self._leaving: set[Digest] = set()
        self._deaths: dict[Digest, int] = {}
        self._quarantine: dict[Digest, str] = {}
        self._gone: Mapping[str, str] = {}
        self._returning: dict[Digest, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (*self._returning.values(), *(occupied.task for occupied in self._seats.values())):
            task.cancel()
        try:
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                await self._tasks.__aexit__(kind, error, trace)
            else:  # an error of the body goes on as it is, not in a group
                await self._tasks.__aexit__(None, None, None)
        finally:
            await self._nurseries.close()

    async def run(
        self, variant: Variant, inputs: Sequence[Tensor], *, timeout_s: float, stream: str = "", is_reset: bool = False
    ) -> NodeRun:
        """Run one inference; `inputs` are in the variant's dtypes and order. `timeout_s` covers start, queue and computing.

        `stream` names a state of its own for a model that keeps one between calls ("": the one that all share);
        `is_reset` makes it anew first.

        Raises: EngineMissing; WorkerDied, also for a quarantined variant; Overloaded when the queue is full, longer than
        the time given, or every worker is busy; DeadlineExceeded; BadRequest or ModelRefused when engine and inputs
        do not fit.
        """
        contents = tuple(each.content for each in inputs)
        seat = self._seat(variant)
        if not seat.spec.accelerator:
            return await seat.run(contents, timeout_s=timeout_s, stream=stream, is_reset=is_reset)
        deadline_s = self._clock() + timeout_s
        try:
            return await seat.run(contents, timeout_s=timeout_s, stream=stream, is_reset=is_reset)
        except (EngineMissing, ModelRefused, WorkerDied) as error:
            if not self._demote(variant, seat.spec, str(error)):
                raise
        time_left_s = max(0.0, deadline_s - self._clock())
        return await self._seat(variant).run(contents, timeout_s=time_left_s, stream=stream, is_reset=is_reset)

    async def preload(self, variant: Variant, *, timeout_s: float) -> None:
        """Start and load now what will be asked for, so that the first request need not wait. Raises: as `run`.

        One more than `max_loaded` may be loaded meanwhile: what it replaces goes afterwards.
        """
        self._leaving.discard(variant.digest)
        await self._seat(variant, extra=1).run(None, timeout_s=timeout_s)

    def rouse(self) -> None:
        """Wake the worker that was asked last: a request is being read, which is most likely for it.

        Not while anything is at work: then nobody sleeps for long, and the processors have better to do.
        """
        last = None
        for last in self._seats.values():
            if last.seat.waiting:
                return
        if last is not None:
            last.seat.rouse()

    def _is_alone(self) -> bool:
        """Whether a single request is at work on the node."""
        return sum(each.seat.waiting for each in self._seats.values()) <= 1

    def retire(self, digest: Digest) -> None:
        """Let a variant go that nothing points to any more: at once, or when its last request is answered."""
        if digest in self._seats:
            self._leaving.add(digest)
            self._drop_leaving()

    def expected_wait_s(self, variant: Variant) -> float:
        """Return how long a request would queue now: those before it times the recent mean of computing."""
        occupied = self._seats.get(variant.digest)
        return occupied.seat.expected_wait_s() if occupied else 0.0

    def loaded(self) -> tuple[Digest, ...]:
        """Return what has a worker, the least recently used first."""
        return tuple(self._seats)

    def pids(self) -> Mapping[Digest, int]:
        """Return the process of each loaded variant that has one now."""
        running = {digest: occupied.seat.pid for digest, occupied in self._seats.items()}
        return {digest: pid for digest, pid in running.items() if pid is not None}

    def nurseries(self) -> tuple[int, ...]:
        """Return the processes that workers are forked from."""
        return self._nurseries.pids()

    def seats(self) -> tuple[Seat, ...]:
        """Return what is loaded, on which engine, and how it is."""
        return tuple(
            Seat(
                digest,
                each.variant.name,
                each.seat.spec.label,
                each.seat.pid,
                each.seat.waiting,
                each.seat.mean_compute_s,
            )
            for digest, each in self._seats.items()
        )

    def quarantined(self) -> Mapping[Digest, str]:
        """Return the variants that killed their worker twice in a row, with the last reason."""
        return MappingProxyType(self._quarantine)

    def release(self, digest: Digest) -> None:
        """Let a quarantined variant be tried again."""
        self._quarantine.pop(digest, None)
        self._deaths.pop(digest, None)

    def unload(self, digest: Digest) -> bool:
        """Let an idle variant's process go; False when it is busy."""
        occupied = self._seats.get(digest)
        if occupied is not None and not occupied.seat.is_idle:
            return False
        if occupied is not None:
            self._seats.pop(digest).task.cancel()
        return True

    def set_gone(self, gone: Mapping[str, str]) -> None:
        """Say which engines cannot be used now, by label, and why: what ran on them moves to the next best, and back later."""
        self._gone = dict(gone)
        for occupied in list(self._seats.values()):
            try:
                spec = self._engine_for(occupied.variant)
            except EngineMissing:
                continue  # nothing else runs it: it stays, and fails with its own words
            if spec is occupied.seat.spec:
                continue
            if occupied.seat.spec.label in self._gone:
                self._replace(occupied, self._new_seat(occupied.variant, spec))
            else:
                digest = occupied.variant.digest
                if digest not in self._returning:
                    task = self._tasks.create_task(self._return(occupied, spec), name=f"return-{digest[:12]}")
                    self._returning[digest] = task

    def _demote(self, variant: Variant, spec: EngineSpec, reason: str) -> bool:
        """Use an accelerator no more until it was looked at again; False when nothing else runs the variant."""
        others = [
            each for each in variant.verdicts if each.place is Place.NODE and each.runs and each.engine != spec.label
        ]
        if not any(each.engine not in self._gone for each in others):
            return False
        self.release(variant.digest)
        self.set_gone({**self._gone, spec.label: f"it failed: {reason}"})
        return True

    async def _return(self, occupied: _Occupied, spec: EngineSpec) -> None:
        """Load on the better engine, then move there; when that fails everything stays as it is."""
        digest = occupied.variant.digest
        fresh = self._occupy(occupied.variant, self._new_seat(occupied.variant, spec))
        try:
            with suppress(GatewayError):
                await fresh.seat.run(None, timeout_s=_RETURN_S)
                if self._seats.get(digest) is occupied and spec.label not in self._gone:
                    self._move(occupied, fresh)
        finally:
            del self._returning[digest]
            current = self._seats.get(digest)
            if current is None or current.seat is not fresh.seat:
                fresh.task.cancel()

    def _replace(self, occupied: _Occupied, seat: WorkerSeat) -> None:
        self._move(occupied, self._occupy(occupied.variant, seat))

    def _move(self, old: _Occupied, new: _Occupied) -> None:
        self._seats[old.variant.digest] = new
        new.seat.adopt(old.seat.take_jobs())
        old.task.cancel()

    def _seat(self, variant: Variant, *, extra: int = 0) -> WorkerSeat:
        digest = variant.digest
        if digest in self._quarantine:
            raise WorkerDied(_quarantine_message(variant, self._quarantine[digest]))
        if self._leaving:
            self._drop_leaving()
        if digest not in self._seats:
            seat = self._new_seat(variant, self._engine_for(variant))
            self._make_room(self._limits.max_loaded + extra)
            self._seats[digest] = self._occupy(variant, seat)
        self._seats.move_to_end(digest)
        return self._seats[digest].seat

    def _drop_leaving(self) -> None:
        for digest in list(self._leaving):
            occupied = self._seats.get(digest)
            if occupied is None or occupied.seat.is_idle:
                self._leaving.discard(digest)
                if occupied is not None:
                    self._seats.pop(digest).task.cancel()

    def _new_seat(self, variant: Variant, spec: EngineSpec) -> WorkerSeat:
        digest = variant.digest
        return WorkerSeat(
            spec,
            self._artifact_path(digest),
            variant,
            clock=self._clock,
            limits=self._limits,
            on_death=lambda reason: self._count_death(variant, spec, reason),
            on_success=lambda: self._succeeded(digest),
            is_alone=self._is_alone,
            launch=self._launch,
        )

    def _occupy(self, variant: Variant, seat: WorkerSeat) -> _Occupied:
        digest = variant.digest
        task = self._tasks.create_task(seat.serve(), name=f"worker-{digest[:12]}")
        task.add_done_callback(lambda _: self._vacate(seat, digest))
        return _Occupied(variant, seat, task)

    def _vacate(self, seat: WorkerSeat, digest: Digest) -> None:
        occupied = self._seats.get(digest)
        if occupied is not None and occupied.seat is seat:
            del self._seats[digest]
        self._nurseries.keep_only(each.seat.spec for each in self._seats.values())
        seat.abandon(WorkerDied("the node's inference workers are stopping"))

    def _make_room(self, most: int) -> None:
        if len(self._seats) < most:
            return
        idle = next((digest for digest, occupied in self._seats.items() if occupied.seat.is_idle), None)
        if idle is None:
            message = f"all {self._limits.max_loaded} inference workers are busy; try again later or allow more"
            raise Overloaded(message)
        self._seats.pop(idle).task.cancel()

    def _engine_for(self, variant: Variant) -> EngineSpec:
        """Return the fastest engine that admission found and that is here now. Raises: EngineMissing."""
        if not self._engines:
            raise EngineMissing(
                "no inference engine is configured on this node: pip install ai-edge-litert and name it"
            )
        by_label = {engine.label: engine for engine in self._engines}
        running = [
            each for each in variant.verdicts if each.place is Place.NODE and each.runs and each.engine in by_label
        ]
        here = [each for each in running if each.engine not in self._gone]
        if here:
            best = min(here, key=lambda each: each.latency_s if each.latency_s is not None else float("inf"))
            return by_label[best.engine]
        if running:
            reasons = "; ".join(f"{each.engine}: {self._gone[each.engine]}" for each in running)
            raise EngineMissing(f"no engine that runs variant {variant.name} is here now: {reasons}")
        return self._engines[0]

    def _succeeded(self, digest: Digest) -> None:
        if self._deaths:
            self._deaths.pop(digest, None)
        if self._leaving:
            asyncio.get_running_loop().call_soon(self._drop_leaving)

    def _count_death(self, variant: Variant, spec: EngineSpec, reason: str) -> str:
        """Take note of a death; return why there will be no other try ("": there may be)."""
        deaths = self._deaths[variant.digest] = self._deaths.get(variant.digest, 0) + 1
        self._announce(WorkerEnded(variant.name, variant.digest, spec.label, reason))
        if deaths < _DEATHS_TO_QUARANTINE:
            return ""
        self._quarantine[variant.digest] = reason
        self._announce(VariantQuarantined(variant.name, variant.digest, reason))
        return _quarantine_message(variant, reason)


def _quarantine_message(variant: Variant, reason: str) -> str:
    return (
        f"variant {variant.name} ({variant.digest[:12]}) is quarantined: it killed its worker {_DEATHS_TO_QUARANTINE} times in a "
        f"row; release it or push another version. The last time: {reason}"
    )
