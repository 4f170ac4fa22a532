"""Driving pushes: events in, the pure table of `core.update` in the middle, commands to the links and rows to the journal out.

One consumer task takes every event in turn, so that a push never sees two at once. A state is durable before its
commands leave; progress within a transfer is not stored, because the device knows it best.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from gatewayd.core.device import Born, DeviceView, Lost, PushReport, SlotState
from gatewayd.core.errors import Conflict, Forbidden, GatewayError, NotStored, Overloaded, TooLarge, UnknownDevice
from gatewayd.core.events import PushMoved
from gatewayd.core.fit import fit, room_for
from gatewayd.core.model import Variant, Version
from gatewayd.core.module import Raw
from gatewayd.core.names import DeviceId, ModelRef, PushId
from gatewayd.core.push import Offer
from gatewayd.core.update import (
    Cancelled,
    Command,
    DeviceBack,
    DeviceGone,
    Event,
    Limits,
    Push,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendChunk,
    SendOffer,
    Step,
    TimePassed,
    TrialFailed,
    TrialPassed,
    new_push,
    resumed_after_restart,
    step,
)
from gatewayd.services.catalog import Catalog, variant_of
from gatewayd.services.estimates import Estimates
from gatewayd.services.modules import manifest_of
from gatewayd.services.ports import Artifacts, Clock, DeviceLink, Notify, PushStore, Signer
from gatewayd.services.proving import Prover
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

# Events that wait for the journal. Past it new device reports are dropped: devices repeat what was not answered.
MAX_WAITING = 4096

# An unanswered state is checked this often even when no event comes, so that a stepped clock cannot hide a deadline.
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class PushPorts:
    """What the pushes service needs from outside."""

    store: PushStore
    artifacts: Artifacts
    signer: Signer
    link_of: Callable[[DeviceId], DeviceLink]
    notify: Notify
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Given:
    """An event for one push, waiting its turn."""

    push: PushId
    event: Event


class Pushes:
    """The live pushes, one per device at most."""

    def __init__(
        self,
        ports: PushPorts,
        *,
        catalog: Catalog,
        tracking: Tracking,
        estimates: Estimates,
        limits: Limits,
        max_concurrent: int,
    ) -> None:
        self._ports = ports
        self._catalog = catalog
        self._tracking = tracking
        self._estimates = estimates
        self._limits = limits
        self._max_concurrent = max_concurrent
        self._live: dict[PushId, Push] = {}
        self._queue: asyncio.Queue[_Given] = asyncio.Queue(MAX_WAITING)
        self._prover = Prover(catalog=catalog, tracking=tracking, timeout_s=limits.trial_s / 2)
        self._trials: asyncio.Queue[Push] = asyncio.Queue(max_concurrent)
        self._starting = asyncio.Lock()
        # Operators and devices move pushes from different tasks: one step at a time, from its value to its last command.
        self._stepping = asyncio.Lock()
        self._chunk_sent_s: dict[PushId, tuple[float, int]] = {}
        self._blocked_until_s = 0.0

    def live(self) -> tuple[Push, ...]:
        """Return the pushes that have not ended, oldest first."""
        return tuple(self._live.values())

    async def recent(self, limit: int) -> Sequence[Push]:
        """Return the newest pushes of the journal; the live ones with their progress."""
        return [self._live.get(push.id, push) for push in await self._ports.store.recent(limit)]

    async def start(self, device: DeviceId, ref: ModelRef, *, who: str) -> Push:
        """Begin getting a version onto a device; joins a push of the same artifact that runs already.

        Another push to the device is cancelled first: the newest wish counts.

        Raises: UnknownModel, UnknownDevice, Forbidden (not approved), Conflict (offline, does not fit, already there),
        Overloaded.
        """
        async with self._starting:
            version = self._catalog.resolve(ref)
            self._catalog.check_in_use(version)
            variant = self._pushable(self._tracking.device(device), version)
            running = self._of_device(device)
            if running is not None and running.digest == variant.digest:
                return running
            if running is not None:
                await self._advance(running.id, Cancelled(f"superseded by {version}"))
            if (still := self._of_device(device)) is not None:
                raise Conflict(f"{device} is keeping {still.model}@{still.version} right now: push again in a moment")
            if len(self._live) >= self._max_concurrent:
                raise Overloaded(f"{len(self._live)} pushes are running (pushes.max_concurrent): try again later")
            return await self._begin(device, version, variant, who=who)

    async def cancel(self, push: PushId, *, why: str) -> None:
        """End a push; the device keeps its old model. A push that has ended already stays as it is."""
        await self._advance(push, Cancelled(why))

    def handle(self, event: Born | Lost | PushReport) -> None:
        """Take what a link saw; never blocks."""
        running = self._of_device(event.device)
        match event:
            case PushReport():
                self._reported(event)
            case Born() if running is not None:
                self._enqueue(running.id, DeviceBack(event.report.slots))
            case Lost() if running is not None:
                self._enqueue(running.id, DeviceGone(event.reason))
            case Born() | Lost():
                pass

    async def run(self) -> None:
        """Resume what the journal holds, then serve events and deadlines until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_trials(tasks), name="pushes: trials")
            await self._resume()
            while True:
                given = await self._next()
                if given is not None:
                    await self._advance(given.push, given.event)
                for push in self._due():
                    await self._advance(push.id, TimePassed())

    async def _resume(self) -> None:
        for push in await self._ports.store.load_live():
            self._live[push.id] = push
            self._want(push)
            async with self._stepping:
                await self._take(resumed_after_restart(push, now_s=self._ports.clock(), limits=self._limits))

    def _pushable(self, view: DeviceView, version: Version) -> Variant:
        if not view.approved:
            raise Forbidden(f"device {view.id} waits for approval: approve it first (devices.approve)")
        if not view.online or view.report is None:
            raise Conflict(f"device {view.id} is offline: push again when it is back")
        found = fit(version, view.report.capabilities)
        if found.variant is None:
            raise Conflict(f"{version} does not fit on {view.id}: {'; '.join(found.reasons)}")
        if why := room_for(view.report.slots, version.model):
            raise Conflict(f"{version} has no room on {view.id}: {why}")
        for slot in view.report.slots:
            held = (slot.model, slot.version, slot.digest)
            if slot.state is SlotState.ACTIVE and held == (version.model, version.number, found.variant.digest):
                raise Conflict(f"{view.id} runs {version} already")
        return found.variant

    async def _begin(self, device: DeviceId, version: Version, variant: Variant, *, who: str) -> Push:
        first = new_push(
            id=await self._ports.store.next_push_id(),
            device=device,
            model=version.model,
            version=version.number,
            variant=variant.name,
            digest=variant.digest,
            size_bytes=variant.size_bytes,
            now_s=self._ports.clock(),
            limits=self._limits,
        )
        await self._ports.store.save_push(first.push)
        self._live[first.push.id] = first.push
        self._want(first.push)
        logger.info("push started push=%d device=%s version=%s who=%s", first.push.id, device, version, who)
        self._ports.notify(PushMoved(first.push))
        async with self._stepping:
            await self._take(first)
        return first.push

    def _want(self, push: Push) -> None:
        try:
            self._tracking.want(push.device, model=push.model, version=push.version)
        except UnknownDevice:
            return  # the device's row is gone; its push will end by its deadline

    def _reported(self, report: PushReport) -> None:
        push = self._live.get(report.push)
        if push is None:
            self._disown(report)
        elif push.device == report.device:
            self._measure(push)
            self._enqueue(push.id, report)

    def _disown(self, report: PushReport) -> None:
        """Tell a device we let in that nobody knows its push; a stranger gets no answer, or it could make us talk."""
        try:
            if self._tracking.device(report.device).approved:
                self._ports.link_of(report.device).send_cancel(report.device, report.push, "no such push")
        except (UnknownDevice, Overloaded, TooLarge):
            return  # the device asks again

    def _measure(self, push: Push) -> None:
        sent = self._chunk_sent_s.pop(push.id, None)
        if sent is not None:
            elapsed_s = self._ports.clock() - sent[0]
            self._estimates.saw_transfer(push.device, byte_count=sent[1], elapsed_s=elapsed_s)

    def _enqueue(self, push: PushId, event: Event) -> None:
        if not self._queue.full():
            self._queue.put_nowait(_Given(push, event))

    async def _next(self) -> _Given | None:
        now_s = self._ports.clock()
        earliest_s = min((push.deadline_s for push in self._live.values()), default=now_s + _LONGEST_WAIT_S)
        wait_s = min(_LONGEST_WAIT_S, max(0.0, earliest_s - now_s, self._blocked_until_s - now_s))
        try:
            async with asyncio.timeout(wait_s):
                return await self._queue.get()
        except TimeoutError:
            return None

    def _due(self) -> list[Push]:
        now_s = self._ports.clock()
        if now_s < self._blocked_until_s:
            return []
        return [push for push in self._live.values() if push.deadline_s <= now_s]

    def _of_device(self, device: DeviceId) -> Push | None:
        return next((push for push in self._live.values() if push.device == device), None)

    async def _advance(self, push: PushId, event: Event) -> None:
        async with self._stepping:
            current = self._live.get(push)
            if current is None:
                return
            try:
                await self._take(step(current, event, now_s=self._ports.clock(), limits=self._limits))
            except NotStored as error:
                # The step is undone: no command left. The device repeats itself, and deadlines come up again.
                self._blocked_until_s = self._ports.clock() + _LONGEST_WAIT_S
                logger.error("push not journalled push=%d reason=%r", push, str(error))  # noqa: TRY400 - the message says all

    async def _take(self, taken: Step) -> None:
        before, after = self._live[taken.push.id], taken.push
        if before.state is not after.state:
            await self._ports.store.save_push(after)
        self._live[after.id] = after
        if after.state.is_end:
            del self._live[after.id]
            self._chunk_sent_s.pop(after.id, None)
        if before != after:
            self._ports.notify(PushMoved(after))
        for command in taken.commands:
            await self._obey(after, command)

    async def _obey(self, push: Push, command: Command) -> None:
        try:
            await self._send(push, command)
        except (Overloaded, TooLarge) as error:
            # Nothing is lost: the state's deadline offers again or ends the push.
            logger.warning("push command not sent push=%d reason=%r", push.id, str(error))
        except GatewayError as error:
            self._enqueue(push.id, Cancelled(str(error)))

    async def _send(self, push: Push, command: Command) -> None:
        link = self._ports.link_of(push.device)
        match command:
            case SendOffer():
                link.send_offer(push.device, self._offer(push))
            case SendChunk(offset, length):
                content = await self._ports.artifacts.read(push.digest, offset, length)
                self._chunk_sent_s[push.id] = (self._ports.clock(), len(content))
                link.send_chunk(push.device, push.id, offset=offset, content=content)
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

    async def _run_trials(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            push = await self._trials.get()
            tasks.create_task(self._try(push), name=f"trial of push {push.id}")

    async def _try(self, push: Push) -> None:
        why = await self._prover.failure(push, self._ports.link_of(push.device))
        self._enqueue(push.id, TrialFailed(why) if why else TrialPassed())

    def _offer(self, push: Push) -> Offer:
        version = self._catalog.resolve(ModelRef(push.model, version=push.version))
        manifest = manifest_of(version, variant_of(version, push.digest), Raw())
        return Offer(push.id, manifest, self._ports.signer.sign(manifest))
