"""The node's runtime: one worker process per loaded variant, started on first use, restarted when it dies.

Each loaded variant has one task that starts its process and feeds it from a bounded queue, one inference at a time: an
interpreter is serial. A caller whose time runs out leaves its turn to the next; the process is killed only when one
inference hangs. What kills its process twice in a row is quarantined.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from gatewayd.adapters.worker_process import EngineSpec
from gatewayd.adapters.worker_seat import WorkerLimits, WorkerSeat
from gatewayd.core.errors import EngineMissing, Overloaded, WorkerDied
from gatewayd.core.model import NodeRun, Place, Variant
from gatewayd.core.names import Digest
from gatewayd.core.tensor import Tensor

_DEATHS_TO_QUARANTINE = 2


@dataclass(slots=True)
class _Occupied:
    seat: WorkerSeat
    task: asyncio.Task[None]


class Workers:
    """Runs variants in worker processes. Use as `async with`: leaving ends every process."""

    def __init__(
        self,
        artifact_path: Callable[[Digest], Path],
        engines: Sequence[EngineSpec],
        *,
        clock: Callable[[], float],
        limits: WorkerLimits | None = None,
    ) -> None:
        self._artifact_path = artifact_path
        self._engines = tuple(engines)
        self._clock = clock
        self._limits = limits or WorkerLimits()
        self._tasks = asyncio.TaskGroup()
        self._seats: OrderedDict[Digest, _Occupied] = OrderedDict()  # least recently used first
        self._deaths: dict[Digest, int] = {}
        self._quarantine: dict[Digest, str] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for occupied in self._seats.values():
            occupied.task.cancel()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._tasks.__aexit__(kind, error, trace)
        else:  # an error of the body goes on as it is, not in a group
            await self._tasks.__aexit__(None, None, None)

    async def run(self, variant: Variant, inputs: Sequence[Tensor], *, timeout_s: float) -> NodeRun:
        """Run one inference; `inputs` are in the variant's dtypes and order. `timeout_s` covers start, queue and computing.

        Raises: EngineMissing; WorkerDied, also for a quarantined variant; Overloaded when the queue is full or every worker
        is busy; DeadlineExceeded; BadRequest or ModelRefused when engine and inputs do not fit.
        """
        return await self._seat(variant).run(tuple(each.content for each in inputs), timeout_s=timeout_s)

    async def preload(self, variant: Variant, *, timeout_s: float) -> None:
        """Start and load now what will be asked for, so that the first request need not wait. Raises: as `run`."""
        await self._seat(variant).run(None, timeout_s=timeout_s)

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

    def _seat(self, variant: Variant) -> WorkerSeat:
        digest = variant.digest
        if digest in self._quarantine:
            raise WorkerDied(_quarantine_message(variant, self._quarantine[digest]))
        if digest not in self._seats:
            self._make_room()
            self._seats[digest] = self._occupy(self._new_seat(variant), digest)
        self._seats.move_to_end(digest)
        return self._seats[digest].seat

    def _new_seat(self, variant: Variant) -> WorkerSeat:
        digest = variant.digest
        return WorkerSeat(
            self._engine_for(variant),
            self._artifact_path(digest),
            variant,
            clock=self._clock,
            limits=self._limits,
            on_death=lambda reason: self._count_death(variant, reason),
            on_success=lambda: self._deaths.pop(digest, None),
        )

    def _occupy(self, seat: WorkerSeat, digest: Digest) -> _Occupied:
        task = self._tasks.create_task(seat.serve(), name=f"worker-{digest[:12]}")
        task.add_done_callback(lambda _: self._vacate(seat, digest))
        return _Occupied(seat, task)

    def _vacate(self, seat: WorkerSeat, digest: Digest) -> None:
        occupied = self._seats.get(digest)
        if occupied is not None and occupied.seat is seat:
            del self._seats[digest]
        seat.abandon(WorkerDied("the node's inference workers are stopping"))

    def _make_room(self) -> None:
        if len(self._seats) < self._limits.max_loaded:
            return
        idle = next((digest for digest, occupied in self._seats.items() if occupied.seat.is_idle), None)
        if idle is None:
            message = f"all {self._limits.max_loaded} inference workers are busy; try again later or allow more"
            raise Overloaded(message)
        self._seats.pop(idle).task.cancel()

    def _engine_for(self, variant: Variant) -> EngineSpec:
        if not self._engines:
            raise EngineMissing(
                "no inference engine is configured on this node: pip install ai-edge-litert and name it"
            )
        verdict = variant.verdict(Place.NODE)
        best = verdict.engine if verdict is not None and verdict.runs else ""
        return next((engine for engine in self._engines if engine.name == best), self._engines[0])

    def _count_death(self, variant: Variant, reason: str) -> str:
        """Take note of a death; return why there will be no other try ("": there may be)."""
        deaths = self._deaths[variant.digest] = self._deaths.get(variant.digest, 0) + 1
        if deaths < _DEATHS_TO_QUARANTINE:
            return ""
        self._quarantine[variant.digest] = reason
        return _quarantine_message(variant, reason)


def _quarantine_message(variant: Variant, reason: str) -> str:
    return (
        f"variant {variant.name} ({variant.digest[:12]}) is quarantined: it killed its worker {_DEATHS_TO_QUARANTINE} times in a "
        f"row; release it or push another version. The last time: {reason}"
    )
