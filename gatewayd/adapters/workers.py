"""The node's runtime: one worker process per loaded variant, started on first use, restarted when it dies, kept out when it keeps dying.

Each loaded variant has one task that starts its process and feeds it from a bounded queue, one inference at a time: an interpreter
is serial. A caller whose time runs out leaves its turn to the next; the process is killed only when one inference hangs.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, EngineSpec
from gatewayd.adapters.worker_seat import SeatLimits, WorkerSeat
from gatewayd.core.errors import EngineMissing, Overloaded, WorkerDied
from gatewayd.core.model import NodeRun, Place, Variant
from gatewayd.core.names import Digest
from gatewayd.core.tensor import Tensor

_DEATHS_TO_QUARANTINE = 2


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What bounds the node's runtime.

    `max_loaded` worker processes (each 30 to 40 MB and up); `queue_limit` requests that wait for one of them;
    `memory_limit_bytes` of address space each (None: no limit). `hang_s` is how long one inference, or one load, may take
    before its process is killed: far above any honest one, since a kill costs a restart.
    """

    max_loaded: int = 8
    queue_limit: int = 64
    memory_limit_bytes: int | None = MEMORY_LIMIT_BYTES
    start_timeout_s: float = 15.0
    hang_s: float = 30.0


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
        self._seats: OrderedDict[Digest, WorkerSeat] = OrderedDict()  # least recently used first
        self._deaths: dict[Digest, int] = {}
        self._quarantine: dict[Digest, str] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for seat in self._seats.values():
            seat.stop()
        await self._tasks.__aexit__(kind, error, trace)

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
        seat = self._seats.get(variant.digest)
        return seat.expected_wait_s() if seat else 0.0

    def loaded(self) -> tuple[Digest, ...]:
        """Return what has a worker, the least recently used first."""
        return tuple(self._seats)

    def quarantined(self) -> Mapping[Digest, str]:
        """Return the variants that killed their worker twice in a row, with the last reason."""
        return MappingProxyType(self._quarantine)

    def release(self, digest: Digest) -> None:
        """Let a quarantined variant be tried again."""
        self._quarantine.pop(digest, None)
        self._deaths.pop(digest, None)

    def _seat(self, variant: Variant) -> WorkerSeat:
        digest = variant.digest
        if digest in self._quarantine:
            raise WorkerDied(_quarantine_message(variant, self._quarantine[digest]))
        if digest not in self._seats:
            self._make_room()
            self._seats[digest] = self._new_seat(variant)
        self._seats.move_to_end(digest)
        return self._seats[digest]

    def _new_seat(self, variant: Variant) -> WorkerSeat:
        seat = WorkerSeat(
            self._engine_for(variant),
            self._artifact_path(variant.digest),
            variant,
            clock=self._clock,
            limits=SeatLimits(
                self._limits.queue_limit,
                self._limits.memory_limit_bytes,
                self._limits.start_timeout_s,
                self._limits.hang_s,
            ),
            on_death=lambda reason: self._count_death(variant, reason),
            on_success=lambda: self._deaths.pop(variant.digest, None),
        )
        self._tasks.create_task(self._occupy(variant.digest, seat), name=f"worker-{variant.digest[:12]}")
        return seat

    async def _occupy(self, digest: Digest, seat: WorkerSeat) -> None:
        try:
            await seat.serve()
        finally:
            if self._seats.get(digest) is seat:
                del self._seats[digest]

    def _make_room(self) -> None:
        if len(self._seats) < self._limits.max_loaded:
            return
        idle = next((digest for digest, seat in self._seats.items() if seat.is_idle), None)
        if idle is None:
            message = f"all {self._limits.max_loaded} inference workers are busy; try again later or allow more"
            raise Overloaded(message)
        self._seats.pop(idle).stop()

    def _engine_for(self, variant: Variant) -> EngineSpec:
        if not self._engines:
            raise EngineMissing("no inference engine is configured on this node: pip install ai-edge-litert and name it")
        verdict = variant.verdict(Place.NODE)
        best = verdict.engine if verdict is not None and verdict.runs else ""
        return next((engine for engine in self._engines if engine.name == best), self._engines[0])

    def _count_death(self, variant: Variant, reason: str) -> str:
        """Return the reason as it is told: with the quarantine, where this death brought it about ("" lets the seat go on)."""
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
