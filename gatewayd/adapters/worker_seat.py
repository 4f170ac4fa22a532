"""One variant's place on the node: its bounded queue, its worker process, and what happens when that process dies or hangs.

The way of a request has no task of its own: `run` writes it into the worker's memory when there is room, the worker's answer
wakes the caller. The seat's task starts processes, and starts them again.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gatewayd.adapters.eager_loop import EagerLoop
from gatewayd.adapters.worker_answers import Invocation, check_promised
from gatewayd.adapters.worker_child import Launch
from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, WorkerProcess
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import BadRequest, DeadlineExceeded, GatewayError, ModelRefused, Overloaded, WorkerDied
from gatewayd.core.model import NodeRun, Variant
from gatewayd.core.record import record
from gatewayd.core.tensor import Tensor

_RECENT_SHARE = 0.2  # weight of the newest measurement in the mean: about the last ten count
_LOOK_EVERY_S = 0.25  # how often a busy worker is looked at
_STUCK_FACTOR = 20.0
_AWAKE_S = 0.0005  # longer answers are slept for: a wake-up is little beside them
_AWAKE_FACTOR = 1.5  # of the mean of computing
_AWAKE_MORE_S = 0.00005  # the worker's own wake-up


@record
class WorkerLimits:
    """What bounds the node's runtime.

    `max_loaded` worker processes (each 30 to 40 MB and up); `queue_limit` requests that wait for one of them;
    `memory_limit_bytes` of address space each (None: no limit). `hang_s` is how long one inference, or one load, may take
    before its process is killed: far above any honest one, since a kill costs a restart and counts against the variant.
    An inference past its own deadline is killed earlier: after `stuck_s`, and twenty times what it usually takes.
    `max_streams` interpreters with a state of their own per variant. `is_eager`: where models answer within a wake-up's
    time, wait awake for them. `is_forked`: engines that can be are imported once, in a nursery that forks the workers.
    """

    max_loaded: int = 8
    queue_limit: int = 64
    memory_limit_bytes: int | None = MEMORY_LIMIT_BYTES
    start_timeout_s: float = 15.0
    hang_s: float = 30.0
    stuck_s: float = 1.0
    max_streams: int = 16
    is_eager: bool = False
    is_forked: bool = True


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way; `contents` None: only be ready."""

    contents: tuple[bytes, ...] | None
    answer: asyncio.Future[NodeRun]
    asked_at_s: float
    deadline_s: float
    stream: str
    is_reset: bool
    began_s: float = 0.0


class WorkerSeat:
    """Serves one variant in the order asked, until cancelled or until its process cannot be had.

    `on_death` is told what the process died of and returns why to give up ("": go on); `on_success` is told of each answer;
    `is_alone` tells whether nothing but one request is at work on the node.
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
        is_alone: Callable[[], bool],
        launch: Launch,
    ) -> None:
        self.spec = spec
        self._path = path
        self._variant = variant
        self._clock = clock
        self._limits = limits
        self._on_death = on_death
        self._on_success = on_success
        self._is_alone = is_alone
        self._launch = launch
        self._loop = loop = asyncio.get_running_loop()
        self._expect = loop.expect if limits.is_eager and isinstance(loop, EagerLoop) else None
        self._queue: deque[Job] = deque()
        self._flying: deque[Job] = deque()
        self._lost: list[Job] = []
        self._wanted = asyncio.Event()
        self._process: WorkerProcess | None = None
        self._is_ready = False
        self._has_served = False
        self._given_up: GatewayError | None = None
        self._look: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self._streams: OrderedDict[str, int] = OrderedDict()
        self._mean_compute_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._flying and not self._queue

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return None if self._process is None or self._process.died else self._process.pid

    @property
    def waiting(self) -> int:
        """How many requests are here."""
        return len(self._queue) + len(self._flying)

    @property
    def mean_compute_s(self) -> float:
        """The recent mean of computing; 0 before the first."""
        return self._mean_compute_s

    def expected_wait_s(self) -> float:
        """Return the number of requests before a new one times the recent mean of computing."""
        return (len(self._queue) + len(self._flying)) * self._mean_compute_s

    async def run(
        self, contents: tuple[bytes, ...] | None, *, timeout_s: float, stream: str = "", is_reset: bool = False
    ) -> NodeRun:
        """Queue and wait. Who stops waiting leaves its turn to the next. Raises: as `Workers.run`."""
        if self._given_up is not None:
            raise type(self._given_up)(str(self._given_up))
        self._check_room(timeout_s)
        now_s = self._clock()
        job = Job(contents, self._loop.create_future(), now_s, now_s + timeout_s, stream, is_reset)
        if self._alarm is None or job.deadline_s < self._alarm_s:
            self._set_alarm(job.deadline_s, now_s)
        self._accept(job)
        return await job.answer

    async def serve(self) -> None:
        """Keep a process while there is anybody to serve. Ends when the variant cannot be served any more.

        Cancelled when its seat is needed.
        """
        try:
            while await self._live_once():
                pass
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            await self._drop_process()

    def rouse(self) -> None:
        """Wake the process ahead of a request, where that helps."""
        if self._expect is not None and self._is_ready and self._process is not None and not self._flying:
            self._process.ring.rouse()

    def abandon(self, error: GatewayError) -> None:
        """Take no more, and answer everybody who still waits, with `error` (or with what was the first reason)."""
        self._given_up = error = self._given_up or error
        waiting = [*self._lost, *self._flying, *self._queue]
        self._queue.clear()
        self._lost.clear()
        for job in waiting:
            _fail(job, error)

    def take_jobs(self) -> list[Job]:
        """Give away everybody who waits: another seat takes over. What is being computed here is computed again there."""
        jobs = [job for job in (*self._lost, *self._flying, *self._queue) if not job.answer.done()]
        self._lost.clear()
        self._queue.clear()
        self._flying = deque(replace(job, answer=_nobody(self._loop)) for job in self._flying)
        return jobs

    def adopt(self, jobs: list[Job]) -> None:
        """Serve what another seat gave away, before anything else."""
        self._queue.extendleft(reversed(jobs))
        for job in jobs:
            self._set_alarm(min(job.deadline_s, self._alarm_s if self._alarm else job.deadline_s), self._clock())
        self._wanted.set()
        self._pump()

    def _check_room(self, timeout_s: float) -> None:
        waiting = len(self._queue) + max(0, len(self._flying) - 1)
        if waiting >= self._limits.queue_limit and (self._flying or self._queue):
            message = (
                f"{self._limits.queue_limit} requests wait for variant {self._variant.name} already; try again later"
            )
            raise Overloaded(message)
        wait_s = self.expected_wait_s()
        if wait_s > timeout_s:
            message = (
                f"the queue of variant {self._variant.name} is {wait_s:.3g} s long, the request has {timeout_s:.3g} s"
            )
            raise Overloaded(message)

    def _accept(self, job: Job) -> None:
        self._queue.append(job)
        if self._is_ready:
            self._pump()
        else:
            self._wanted.set()

    def _pump(self) -> None:
        """Hand the worker as much as fits, oldest first; the expired cost nothing."""
        process = self._process
        while self._queue and self._is_ready and process is not None and not process.died:
            job = self._queue[0]
            if job.contents is not None and not process.ring.room:
                return
            self._queue.popleft()
            if job.answer.done():
                continue  # who asked has given up
            if job.contents is None:
                job.answer.set_result(NodeRun((), self._clock() - job.asked_at_s, 0.0, self.spec.label))
            else:
                self._submit(process, job, job.contents)

    def _submit(self, process: WorkerProcess, job: Job, contents: tuple[bytes, ...]) -> None:
        try:
            process.ring.check(contents)
        except BadRequest as error:
            _fail(job, error)
            return
        stream, is_new = self._stream(job.stream)
        if not self._flying:
            job.began_s = self._clock()
        self._flying.append(job)
        is_eager = self._expect is not None and len(self._flying) == 1 and self._is_alone()
        process.ring.submit(
            contents,
            self._answered,
            stream=stream,
            is_reset=is_new or job.is_reset,
            deadline_s=job.deadline_s,
            is_early=is_eager,
        )
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_EVERY_S, self._look_at_it)
        if is_eager and self._expect is not None:
            awake_s = self._mean_compute_s * _AWAKE_FACTOR + _AWAKE_MORE_S
            if awake_s < _AWAKE_S:
                self._expect(awake_s, *process.ring.awaited)

    def _stream(self, name: str) -> tuple[int, bool]:
        """Return the number of a stream, and whether its state is to be made anew; the one unused for longest goes."""
        if not name:
            return 0, False
        if name in self._streams:
            self._streams.move_to_end(name)
            return self._streams[name], False
        is_full = len(self._streams) >= self._limits.max_streams
        number = self._streams.popitem(last=False)[1] if is_full else len(self._streams) + 1
        self._streams[name] = number
        return number, True

    def _answered(self, outcome: Invocation | GatewayError) -> None:
        """Take what the worker says of the job that is due: answers come in order."""
        job = self._flying.popleft()
        if isinstance(outcome, WorkerDied):
            self._lost.append(job)
            return
        now_s = self._clock()
        if self._flying:
            self._flying[0].began_s = now_s
        if isinstance(outcome, GatewayError):
            _fail(job, outcome)
            return
        self._has_served = True
        self._on_success()
        mean = self._mean_compute_s or outcome.compute_s
        self._mean_compute_s = mean + _RECENT_SHARE * (outcome.compute_s - mean)
        if not job.answer.done():
            queue_s = max(0.0, now_s - job.asked_at_s - outcome.compute_s)
            job.answer.set_result(self._node_run(outcome, queue_s))

    def _node_run(self, outcome: Invocation, queue_s: float) -> NodeRun:
        outputs = tuple(
            Tensor(spec.name, spec.dtype, spec.shape, content)
            for spec, content in zip(self._variant.structure.outputs, outcome.outputs, strict=True)
        )
        return NodeRun(outputs, queue_s, outcome.compute_s, self.spec.label)

    def _set_alarm(self, deadline_s: float, now_s: float) -> None:
        """Wake up at the earliest deadline: one timer for all, since most requests are answered long before."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = deadline_s
        self._alarm = self._loop.call_later(max(0.0, deadline_s - now_s), self._expire)

    def _expire(self) -> None:
        """Answer those whose time ran out, and wait for the next."""
        self._alarm, now_s = None, self._clock()
        left = [job for job in (*self._flying, *self._lost, *self._queue) if not job.answer.done()]
        for job in left:
            if job.deadline_s <= now_s:
                where = "computing" if self._flying and self._flying[0] is job else "waiting for a worker"
                after_s = job.deadline_s - job.asked_at_s
                _fail(job, DeadlineExceeded(f"node: {where} when the {after_s:.3g} s of the request ran out"))
        later = [job.deadline_s for job in left if job.deadline_s > now_s]
        if later:
            self._set_alarm(min(later), now_s)

    def _look_at_it(self) -> None:
        """Kill a process that hangs; look again while it is busy."""
        self._look = None
        if not self._flying or self._process is None:
            return
        self._look = self._loop.call_later(_LOOK_EVERY_S, self._look_at_it)
        job, now_s = self._flying[0], self._clock()
        allowed_s = self._limits.hang_s
        if now_s > job.deadline_s and self._mean_compute_s:
            allowed_s = min(allowed_s, max(self._limits.stuck_s, _STUCK_FACTOR * self._mean_compute_s))
        if now_s - job.began_s > allowed_s:
            message = f"worker of engine {self.spec.label} did not invoke within {allowed_s:g} s and was killed"
            self._process.kill(message)

    async def _live_once(self) -> bool:
        """Start a process, serve with it, mourn it; False when the seat is to be given up."""
        await self._wanted.wait()
        try:
            process = await self._make_ready()
        except (WorkerDied, DeadlineExceeded) as error:
            if not self._queue:
                self._wanted.clear()  # nobody asks: no more tries until somebody does
            return await self._mourn(str(error), self._queue.popleft() if self._queue else None)
        except GatewayError as error:
            self.abandon(error)
            return False
        self._pump()
        reason = await process.wait_died()
        lost, self._lost = self._lost, []
        self._queue.extendleft(reversed(lost[1:]))
        if not lost and not self._has_served and not self._queue:
            self._wanted.clear()  # it died with nothing to do and had never done anything: wait until somebody asks
        return await self._mourn(reason, lost[0] if lost else None)

    async def _make_ready(self) -> WorkerProcess:
        await self._drop_process()
        limits = self._limits
        self._process = process = await WorkerProcess.start(
            self.spec,
            memory_limit_bytes=limits.memory_limit_bytes,
            start_timeout_s=limits.start_timeout_s,
            launch=self._launch,
        )
        try:
            loaded = await process.load(self._path, timeout_s=limits.hang_s)
            check_promised(loaded, self._variant.structure)
        except ModelRefused:
            if process.died:  # it was refused by its own death
                raise WorkerDied(await process.wait_died()) from None
            raise
        process.on_room = self._pump
        self._is_ready = True
        return process

    async def _mourn(self, reason: str, victim: Job | None) -> bool:
        """Take note of a death (a hang was killed), which costs one request; False when it was one too many."""
        await self._drop_process()
        self._has_served = False
        if victim is None:
            return True
        why_give_up = self._on_death(reason)
        _fail(victim, WorkerDied(why_give_up or reason))
        if why_give_up:
            self.abandon(WorkerDied(why_give_up))
        return not why_give_up

    async def _drop_process(self) -> None:
        self._is_ready = False
        self._streams.clear()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._process is not None:
            process, self._process = self._process, None
            await process.close()


def _nobody(loop: asyncio.AbstractEventLoop) -> asyncio.Future[NodeRun]:
    """Return an answer that is settled already: nobody waits for it."""
    settled: asyncio.Future[NodeRun] = loop.create_future()
    settled.cancel()
    return settled


def _fail(job: Job, error: GatewayError) -> None:
    if not job.answer.done():
        job.answer.set_exception(type(error)(str(error)))  # one of its own: a traceback grows with each raise
