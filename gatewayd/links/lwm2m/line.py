"""The line to one device: one consumer, one bounded queue, one question at a time, asked when the device listens.

The consumer's task lives while there is something to ask.

A device in queue mode listens only for a while after each of its messages; what is asked meanwhile waits for its next one.
Answers and questions go to the address of its last message: behind a NAT that is the only one that reaches it.
Source: OMA LwM2M Transport 1.1.1, section 6.5 (queue mode); RFC 7252, section 4.7 (one outstanding interaction).
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from gatewayd.core.errors import DeviceTimeout, DeviceUnreachable, Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.links.lwm2m.coap import Answer, Ask, Exchange, NoAnswer, Notified, Observation, Peer, Timing
from gatewayd.links.lwm2m.rtt import RoundTrips
from gatewayd.links.lwm2m.turns import Turns, Urgency


@record
class LineLimits:
    """`waiting` bounds the questions in one device's queue (protects memory; one more is refused).

    `awake_s` is how long a device in queue mode listens after its last message; the standard's 93 s (MAX_TRANSMIT_WAIT) is longer
    than what many devices do. `ack_most_s` bounds what the timer for one repetition learns.
    """

    waiting: int = 32
    awake_s: float = 20.0
    ack_least_s: float = 0.06
    ack_first_s: float = 2.0
    ack_most_s: float = 10.0


Asked = tuple[Answer, Observation | None]
Spawn = Callable[[Coroutine[object, object, None], str], "asyncio.Task[None]"]
"""Starts a task of the link's, under a name. What it raises is logged, and ends nothing else."""


@dataclass(slots=True)
class _Job:
    """A question in the queue. `deadline_s` is on the monotonic clock."""

    ask: Ask
    deadline_s: float
    answer: "asyncio.Future[Asked]"
    notified: Notified | None = None


@dataclass(slots=True)
class Line:
    """See the module. `queue_mode` and `peer` follow the device's registration. All methods run on the event loop.

    `slept` is told when a device in queue mode did not answer, so that it sleeps; `moved` when it speaks from another address.
    """

    device: DeviceId
    exchange: Exchange
    clock: Callable[[], float]
    limits: LineLimits
    spawn: Spawn
    peer: Peer | None = None
    queue_mode: bool = False
    slept: Callable[[], None] = lambda: None
    moved: Callable[[], None] = lambda: None
    heard_s: float = float("-inf")
    trips: RoundTrips = field(init=False)
    _turns: Turns[_Job] = field(init=False)
    _awake: asyncio.Event = field(default_factory=asyncio.Event)
    _attempt: asyncio.Timeout | None = None
    _asking: _Job | None = None
    _is_consumed: bool = False

    def __post_init__(self) -> None:
        self._turns = Turns(self.limits.waiting, lambda job: not job.answer.done())
        self.trips = RoundTrips(
            least_s=self.limits.ack_least_s, first_s=self.limits.ack_first_s, most_s=self.limits.ack_most_s
        )

    @property
    def listens(self) -> bool:
        """Whether the device can be expected to hear a question now."""
        return self.peer is not None and (not self.queue_mode or self._quiet_s() < self.limits.awake_s)

    def heard(self, peer: Peer) -> None:
        """The device spoke, from this address: what waits is asked there now."""
        has_moved = self.peer is not None and peer != self.peer
        self.peer, self.heard_s = peer, self.clock()
        self._awake.set()
        if has_moved:
            self._interrupt()
            self.moved()

    def stirs(self) -> None:
        """The device spoke from a socket that it does not listen on: it is awake, at the address known."""
        self.heard_s = self.clock()
        self._awake.set()

    async def ask(self, ask: Ask, *, timeout_s: float, urgency: Urgency = Urgency.CONTROL) -> Answer:
        """Ask when the device listens; `timeout_s` is for all of it, waiting too.

        Raises: Overloaded (the queue is full), DeviceTimeout, DeviceUnreachable.
        """
        answer, _ = await self._put(ask, None, timeout_s, urgency)
        return answer

    async def observe(self, ask: Ask, notified: Notified, *, timeout_s: float) -> Asked:
        """Ask with `observe` 0. Raises: as `ask`."""
        return await self._put(ask, notified, timeout_s, Urgency.CONTROL)

    async def _put(self, ask: Ask, notified: Notified | None, timeout_s: float, urgency: Urgency) -> Asked:
        job = _Job(ask, self.clock() + timeout_s, asyncio.get_running_loop().create_future(), notified)
        if not self._turns.put(job, urgency):
            raise Overloaded(f"device {self.device}: {self.limits.waiting} questions wait for it already")
        if not self._is_consumed:
            self.spawn(self._consume(), f"lwm2m line {self.device}")
            self._is_consumed = True
        try:
            async with asyncio.timeout(timeout_s):
                return await job.answer
        except TimeoutError:
            raise DeviceTimeout(f"device {self.device}: {self._silence()} within {timeout_s:g} s") from None
        finally:
            if self._asking is job and not job.answer.done():
                self._interrupt()
            job.answer.cancel()

    async def _consume(self) -> None:
        """Ask what is in the queue, one after another, until it is empty: a device that nobody asks has no task."""
        try:
            while (job := self._turns.take()) is not None:
                self._asking = job
                await self._serve(job)
        finally:
            self._asking, self._is_consumed = None, False

    async def _serve(self, job: _Job) -> None:
        """Ask until there is an answer, the time is over, or nobody waits for it any more."""
        while not job.answer.done() and (left_s := job.deadline_s - self.clock()) > 0:
            if not await self._is_awake(left_s):
                continue
            try:
                asked = await self._once(job, left_s)
            except NoAnswer as silent:
                if not self.queue_mode:
                    _fail(job, silent)
                    return
                self._fell_asleep()
            except DeviceUnreachable as error:
                _fail(job, error)
                return
            else:
                _give(job, asked)

    async def _is_awake(self, left_s: float) -> bool:
        """Wait until the device listens, for `left_s` at most."""
        if self.listens:
            return True
        self._awake.clear()
        try:
            async with asyncio.timeout(left_s):
                await self._awake.wait()
        except TimeoutError:
            return False
        return self.listens

    async def _once(self, job: _Job, left_s: float) -> Asked | None:
        """Ask once; None when the device spoke from another address meanwhile, or nobody waits any more."""
        peer, timing, asked_s = self.peer, self.trips.timing(), self.clock()
        if peer is None:
            return None
        patience_s = min(left_s, self.limits.awake_s) if self.queue_mode else left_s
        try:
            async with asyncio.timeout(None) as attempt:
                self._attempt = attempt
                asked = await self._asked(job, peer, patience_s, timing)
        except TimeoutError:
            return None
        except NoAnswer:
            self.trips.lost()
            raise
        finally:
            self._attempt = None
        self.trips.took(self.clock() - asked_s, timing)
        # who answers listens
        self.heard_s = self.clock()
        return asked

    async def _asked(self, job: _Job, peer: Peer, patience_s: float, timing: Timing) -> Asked:
        if job.notified is None:
            return await self.exchange.ask(peer, job.ask, timeout_s=patience_s, timing=timing), None
        return await self.exchange.observe(peer, job.ask, job.notified, timeout_s=patience_s, timing=timing)

    def _fell_asleep(self) -> None:
        self.heard_s = float("-inf")
        self._awake.clear()
        self.slept()

    def _interrupt(self) -> None:
        if self._attempt is not None and not self._attempt.expired():
            self._attempt.reschedule(asyncio.get_running_loop().time())

    def _quiet_s(self) -> float:
        return self.clock() - self.heard_s

    def _silence(self) -> str:
        if self.peer is None:
            return "its session ended with the gateway's restart, and it made no new handshake"
        return "no answer" if self.listens else "it sleeps, and did not wake"


def _give(job: _Job, asked: Asked | None) -> None:
    """Hand over an answer; an observation that nobody waits for any more is ended."""
    if asked is not None and not job.answer.done():
        job.answer.set_result(asked)
    elif asked is not None and asked[1] is not None:
        asked[1].forget()


def _fail(job: _Job, error: Exception) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
