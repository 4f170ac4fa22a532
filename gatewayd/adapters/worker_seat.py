"""One variant's place on the node: its bounded queue, its worker process, and the task that feeds one from the other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gatewayd.adapters.worker_answers import check_promised
from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, EngineSpec, WorkerProcess
from gatewayd.core.errors import DeadlineExceeded, GatewayError, ModelRefused, Overloaded, WorkerDied
from gatewayd.core.model import NodeRun, Variant
from gatewayd.core.tensor import Tensor, TensorSpec

_RECENT_SHARE = 0.2  # weight of the newest measurement in the mean: about the last ten count


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What bounds the node's runtime.

    `max_loaded` worker processes (each 30 to 40 MB and up); `queue_limit` requests that wait for one of them;
    `memory_limit_bytes` of address space each (None: no limit). `hang_s` is how long one inference, or one load, may take
    before its process is killed: far above any honest one, since a kill costs a restart and counts against the variant.
    """

    max_loaded: int = 8
    queue_limit: int = 64
    memory_limit_bytes: int | None = MEMORY_LIMIT_BYTES
    start_timeout_s: float = 15.0
    hang_s: float = 30.0


@dataclass(slots=True)
class _Job:
    contents: tuple[bytes, ...] | None  # None: only be ready
    answer: asyncio.Future[NodeRun]
    asked_at_s: float


class WorkerSeat:
    """Serves one variant, one inference at a time in the order asked, until cancelled or until its process cannot be had.

    `on_death` is told what the process died of and returns why to give up ("": go on); `on_success` is told of each answer.
    """

    def __init__(
        self,
        spec: EngineSpec,
        path: Path,
        variant: Variant,
        *,
        clock: Callable[[], float],
        limits: WorkerLimits,
        on_death: Callable[[str], str],
        on_success: Callable[[], object],
    ) -> None:
        self._spec = spec
        self._path = path
        self._variant = variant
        self._clock = clock
        self._limits = limits
        self._on_death = on_death
        self._on_success = on_success
        self._queue: asyncio.Queue[_Job] = asyncio.Queue(limits.queue_limit)
        self._process: WorkerProcess | None = None
        self._is_loaded = False
        self._given_up: GatewayError | None = None
        self._current: _Job | None = None
        self._mean_compute_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self._current is None and self._queue.empty()

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return None if self._process is None or self._process.died else self._process.pid

    def expected_wait_s(self) -> float:
        """Return the number of requests before a new one times the recent mean of computing."""
        return (self._queue.qsize() + (self._current is not None)) * self._mean_compute_s

    async def run(self, contents: tuple[bytes, ...] | None, *, timeout_s: float) -> NodeRun:
        """Queue and wait. Who stops waiting leaves its turn to the next. Raises: as `Workers.run`."""
        if self._given_up is not None:
            raise type(self._given_up)(str(self._given_up))
        job = _Job(contents, asyncio.get_running_loop().create_future(), self._clock())
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            message = (
                f"{self._limits.queue_limit} requests wait for variant {self._variant.name} already; try again later"
            )
            raise Overloaded(message) from None
        try:
            async with asyncio.timeout(timeout_s):
                return await job.answer
        except TimeoutError:
            where = "computing" if self._current is job else "waiting for a worker"
            raise DeadlineExceeded(f"node: {where} when the {timeout_s:g} s of the request ran out") from None

    async def serve(self) -> None:
        """Answer what is queued. Ends when the variant cannot be served any more; cancelled when its seat is needed."""
        try:
            while await self._serve_next():
                pass
        finally:
            await self._drop_process()

    def abandon(self, error: GatewayError) -> None:
        """Take no more, and answer everybody who still waits, with `error` (or with what was the first reason)."""
        self._given_up = error = self._given_up or error
        waiting = [self._current] if self._current else []
        while not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        for job in waiting:
            _fail(job, error)

    async def _serve_next(self) -> bool:
        """Serve one; False when the seat is to be given up."""
        job = await self._queue.get()
        if job.answer.done():
            return True  # who asked has given up
        self._current = job
        try:
            process = await self._started_process()
        except GatewayError as error:
            self.abandon(error)
            return False
        goes_on = await self._answer(job, process)
        self._current = None
        return goes_on

    async def _answer(self, job: _Job, process: WorkerProcess) -> bool:
        try:
            answer = await self._run(job, process)
        except (WorkerDied, DeadlineExceeded) as error:
            return await self._bury(job, error)
        except GatewayError as error:
            _fail(job, error)
            if not self._is_loaded:
                self.abandon(error)
            return self._is_loaded
        if not job.answer.done():
            job.answer.set_result(answer)
        return True

    async def _run(self, job: _Job, process: WorkerProcess) -> NodeRun:
        if not self._is_loaded:
            loaded = await process.load(self._path, timeout_s=self._limits.hang_s)
            check_promised(loaded, self._variant.structure)
            self._is_loaded = True
        queue_s = self._clock() - job.asked_at_s
        if job.contents is None:
            return NodeRun((), queue_s, 0.0)
        done = await process.invoke(job.contents, timeout_s=self._limits.hang_s)
        self._on_success()
        mean = self._mean_compute_s or done.compute_s
        self._mean_compute_s = mean + _RECENT_SHARE * (done.compute_s - mean)
        return NodeRun(_tensors(self._variant.structure.outputs, done.outputs), queue_s, done.compute_s)

    async def _started_process(self) -> WorkerProcess:
        if self._process is None or self._process.died:
            await self._drop_process()
            self._process = await WorkerProcess.start(
                self._spec,
                memory_limit_bytes=self._limits.memory_limit_bytes,
                start_timeout_s=self._limits.start_timeout_s,
            )
        return self._process

    async def _bury(self, job: _Job, error: GatewayError) -> bool:
        """Take note of a death (a hang was killed); False when it was one too many."""
        await self._drop_process()
        why_give_up = self._on_death(str(error))
        _fail(job, WorkerDied(why_give_up or str(error)))
        if why_give_up:
            self.abandon(WorkerDied(why_give_up))
        return not why_give_up

    async def _drop_process(self) -> None:
        self._is_loaded = False
        if self._process is not None:
            await self._process.close()
            self._process = None


def _fail(job: _Job, error: GatewayError) -> None:
    if not job.answer.done():
        job.answer.set_exception(type(error)(str(error)))  # one of its own: a traceback grows with each raise


def _tensors(specs: tuple[TensorSpec, ...], contents: tuple[bytes, ...]) -> tuple[Tensor, ...]:
    wanted, got = [each.byte_count for each in specs], [len(content) for content in contents]
    if wanted != got:
        message = f"the model gave outputs of {got} bytes where it announced {wanted}"
        raise ModelRefused(message)
    return tuple(Tensor(each.name, each.dtype, each.shape, contents[index]) for index, each in enumerate(specs))
