"""Carrying out what the push table decides: offers, chunks within the link's airtime, trials. Knows no states."""

import asyncio
import contextlib
import heapq
from collections.abc import Callable
from typing import assert_never

from gatewayd.core.airtime import AirRules, Airtime, spend
from gatewayd.core.errors import GatewayError
from gatewayd.core.names import DeviceId, PushId
from gatewayd.core.push import (
    Command,
    Event,
    Offer,
    Push,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendChunk,
    SendOffer,
    TrialFailed,
    TrialPassed,
)
from gatewayd.core.record import record
from gatewayd.services.estimates import Estimates
from gatewayd.services.ports import Artifacts, Clock, DeviceLink, Signer
from gatewayd.services.proving import Prover
from gatewayd.services.tracking import Tracking


@record
class SendPorts:
    """What sending needs from outside."""

    artifacts: Artifacts
    signer: Signer
    link_of: Callable[[DeviceId], DeviceLink]
    clock: Clock


@record
class _Chunk:
    """A chunk that waits for its share of the air."""

    push: Push
    offset: int
    length: int


class Sender:
    """Sends; measures what a chunk took; at most one chunk of a push waits, because a device wants one at a time."""

    def __init__(
        self,
        ports: SendPorts,
        *,
        tracking: Tracking,
        estimates: Estimates,
        prover: Prover,
        rules: AirRules,
        max_trials: int,
        report: Callable[[PushId, Event], None],
    ) -> None:
        self._ports = ports
        self._tracking = tracking
        self._estimates = estimates
        self._prover = prover
        self._rules = rules
        self._report = report
        self._trials: asyncio.Queue[Push] = asyncio.Queue(max_trials)
        self._air: dict[DeviceId, Airtime] = {}
        self._held: dict[PushId, _Chunk] = {}
        self._heap: list[tuple[float, PushId]] = []
        self._sent_s: dict[PushId, tuple[float, int]] = {}

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Run the trials of pushed models until cancelled."""
        while True:
            push = await self._trials.get()
            tasks.create_task(self._try(push), name=f"trial of push {push.id}")

    async def send(self, push: Push, command: Command) -> None:
        """Carry out one command. Raises: GatewayError."""
        link = self._ports.link_of(push.device)
        match command:
            case SendOffer():
                link.send_offer(push.device, Offer(push.id, self._ports.signer.read(push.signed), push.signed))
            case SendChunk(offset, length):
                await self._chunk(_Chunk(push, offset, length))
            case SendActivate():
                link.send_activate(push.device, push.id)
            case RunTrial():
                # When it is full the trial's deadline decides: the device goes back to the old model.
                with contextlib.suppress(asyncio.QueueFull):
                    self._trials.put_nowait(push)
            case SendAccept():
                link.send_accept(push.device, push.id)
            case SendCancel(reason):
                link.send_cancel(push.device, push.id, reason)
            case _:
                assert_never(command)

    def next_s(self) -> float | None:
        """Return when a held chunk is due, on the monotonic clock; None when none is held."""
        return self._heap[0][0] if self._heap else None

    async def send_due(self) -> None:
        """Send the held chunks whose time has come. Raises: GatewayError."""
        while self._heap and self._heap[0][0] <= self._ports.clock():
            _, push = heapq.heappop(self._heap)
            chunk = self._held.pop(push, None)
            if chunk is not None:
                await self._send_now(chunk)

    def heard(self, push: Push) -> None:
        """Measure the link by what came back for the last chunk."""
        sent = self._sent_s.pop(push.id, None)
        if sent is not None:
            elapsed_s = self._ports.clock() - sent[0]
            self._estimates.saw_transfer(push.device, byte_count=sent[1], elapsed_s=elapsed_s)

    def forget(self, push: Push) -> None:
        """The push ended: nothing of it is to be sent any more."""
        self._held.pop(push.id, None)
        self._sent_s.pop(push.id, None)
        self._air.pop(push.device, None)

    async def _chunk(self, chunk: _Chunk) -> None:
        """Send a chunk now, or hold it while inference needs the link; a repeated request for a held one changes nothing."""
        held = self._held.get(chunk.push.id)
        if held is not None:
            self._held[chunk.push.id] = chunk
            return
        now_s, device = self._ports.clock(), chunk.push.device
        air_s = self._estimates.link(device).transfer_s(chunk.length)
        seen_s = self._tracking.inference_at_s(device)
        rules = self._rules
        self._air[device], wait_s = spend(self._air.get(device), air_s, now_s=now_s, inference_at_s=seen_s, rules=rules)
        if wait_s == 0:
            await self._send_now(chunk)
            return
        self._held[chunk.push.id] = chunk
        heapq.heappush(self._heap, (now_s + wait_s, chunk.push.id))

    async def _send_now(self, chunk: _Chunk) -> None:
        push = chunk.push
        content = await self._ports.artifacts.read(push.stream, chunk.offset, chunk.length)
        self._sent_s[push.id] = (self._ports.clock(), len(content))
        self._ports.link_of(push.device).send_chunk(push.device, push.id, offset=chunk.offset, content=content)

    async def _try(self, push: Push) -> None:
        try:
            why = await self._prover.failure(push, self._ports.link_of(push.device))
        except GatewayError as error:
            why = str(error)
        self._report(push.id, TrialFailed(why) if why else TrialPassed())
