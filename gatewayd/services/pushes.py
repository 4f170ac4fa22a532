"""Driving pushes: events in, the pure table of `core.update` in the middle, commands to the links and rows to the journal out.

One consumer task takes every event in turn, so that a push never sees two at once; what waits is taken in batches, so that many
pushes share one sync of the disk. A state is durable before its commands leave; progress within a transfer is not stored,
because the device knows it best.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from gatewayd.core.command import Note
from gatewayd.core.deadlines import limits_on
from gatewayd.core.device import Born, Departure, Lost, PushReport
from gatewayd.core.errors import (
    CallerError,
    Conflict,
    GatewayError,
    NodeError,
    NotFound,
    NotStored,
    Overloaded,
    TooLarge,
)
from gatewayd.core.events import PushMoved
from gatewayd.core.names import DeviceId, ModelName, ModelRef, PushId
from gatewayd.core.push import Cancelled, Command, Push, SendCancel, Step, TimePassed
from gatewayd.core.retry import PLACEMENT, Desire, Terms
from gatewayd.core.update import new_push, resumed_after_restart, step
from gatewayd.services.catalog import Catalog
from gatewayd.services.desires import Desires, Wishes
from gatewayd.services.ended_pushes import EndedPushes
from gatewayd.services.estimates import Estimates
from gatewayd.services.live_pushes import LivePushes
from gatewayd.services.modules import Module, Modules
from gatewayd.services.proving import Prover
from gatewayd.services.push_events import EventLine, Given
from gatewayd.services.push_hearing import Hearing
from gatewayd.services.push_ports import NOTHING_MORE, Ending, PushOptions, PushPorts
from gatewayd.services.push_sending import Sender, SendPorts
from gatewayd.services.pushable import SEARCHED, Wanted, push_behind, wanted
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

# An unanswered state is checked this often even when no event comes, so that a stepped clock cannot hide a deadline.
_LONGEST_WAIT_S = 1.0


class Pushes:
    """The live pushes, one per device at most."""

    def __init__(
        self,
        ports: PushPorts,
        *,
        catalog: Catalog,
        tracking: Tracking,
        estimates: Estimates,
        desires: Desires,
        options: PushOptions,
    ) -> None:
        self._ports = ports
        self._catalog = catalog
        self._tracking = tracking
        self._estimates = estimates
        self._desires = desires
        self._options = options
        self._modules = Modules(ports.artifacts, ports.signer, catalog.keeper)
        self._live = LivePushes()
        self._ended = EndedPushes()
        self._events = EventLine()
        self._hearing = Hearing(
            live=self._live, ended=self._ended, line=self._events, tracking=tracking, link_of=ports.link_of
        )
        self._sender = Sender(
            SendPorts(ports.artifacts, ports.signer, ports.link_of, ports.clock),
            tracking=tracking,
            estimates=estimates,
            prover=Prover(catalog=catalog, tracking=tracking, timeout_s=options.limits.trial_s / 2),
            rules=options.air,
            max_trials=options.max_concurrent,
            report=self._events.put,
        )
        self._blocked_until_s = 0.0
        self._starting = asyncio.Lock()
        # Operators and devices move pushes from different tasks: one step at a time, from its value to its last command.
        self._stepping = asyncio.Lock()

    async def load(self) -> None:
        """Take up what the journal holds; call once, before links start: what devices then say leads on."""
        for ended in await self._ports.store.load_last_failed():
            self._ended.remember(ended)
        for push in await self._ports.store.load_live():
            resumed = resumed_after_restart(push, now_s=self._ports.clock(), limits=self._options.limits)
            self._live.keep(resumed.push)
            if resumed.push.state.is_end:
                await self._close(resumed.push)

    def live(self) -> tuple[Push, ...]:
        """Return the pushes that have not ended, oldest first."""
        return tuple(self._live)

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Push]:
        """Return the newest pushes (of one device) of the journal; the live ones with their progress."""
        return [self._live.get(push.id) or push for push in await self._ports.store.recent(limit, device)]

    def terms(self, device: DeviceId) -> Terms:
        """Return on which terms the device is pushed to."""
        return self._desires.terms(device)

    def desired(self, device: DeviceId) -> tuple[Desire, ...]:
        """Return what is wanted on the device, with what became of it."""
        return self._desires.of_device(device)

    async def release(self, device: DeviceId, *, note_of: Note[Wishes] | None = None) -> Terms:
        """Let a quarantined device be pushed to again. Raises: UnknownDevice."""
        return await self._desires.release(device, note_of=note_of)

    async def allow_one_slot(self, device: DeviceId, *, allowed: bool, note_of: Note[Wishes] | None = None) -> Terms:
        """Allow (or forbid) pushes to a device with a single slot. Raises: UnknownDevice."""
        return await self._desires.allow_one_slot(device, allowed=allowed, note_of=note_of)

    async def start(
        self,
        device: DeviceId,
        ref: ModelRef,
        *,
        who: str,
        downgrade: bool = False,
        instead_of: ModelName | None = None,
        note_of: Note[Push] | None = None,
    ) -> Push:
        """Wish for a version on a device and begin getting it there.

        What is there needs no push: the one that brought it is returned; what is on its way is joined. Otherwise another push to
        the device is cancelled first: the newest wish counts. `downgrade` lets an older version take over from a newer one, and
        is recorded. `instead_of` is another model that gives way once the device has accepted this one.

        Raises: UnknownModel, UnknownDevice, Forbidden (not approved), Conflict (offline, does not fit, older, retired, in
        quarantine), TooLarge (its manifest), Overloaded, NodeError.
        """
        async with self._starting:
            plan = self._wanted(device, ref, downgrade=downgrade, instead_of=instead_of)
            return await self._start(plan, who=who, is_wish=True, note_of=note_of)

    async def cancel(self, push: PushId, *, why: str, note_of: Note[Push] | None = None) -> Push:
        """End a push and want it no more; the device keeps its old model.

        Raises: NotFound, Conflict when it has ended, or when the device was told to keep the model already.
        """
        running = self._live.get(push)
        if running is None:
            raise NotFound(f"no push {push} is running: pushes.list shows those that do")
        await self._advance_all(
            [Given(push, Cancelled(why))], Ending(self._desires.wish_behind(running), None, note_of)
        )
        if (still := self._live.get(push)) is not None:
            raise Conflict(f"push {push} is past cancelling: {still.device} is keeping the new model")
        await self._desires.withdraw(running)
        (ended,) = await self._ports.store.recent(1, running.device)
        return ended

    async def take_out(self, departure: Departure, *, why: str, note_of: Note[int] | None = None) -> int:
        """Write that a device is taken out and the end of what is pushed there, as one; return how many ended (0 or 1).

        A push that the device was told to keep ends by itself. Raises: NotStored.
        """
        async with self._starting:  # nothing is begun there meanwhile
            ended = 0
            if (running := self._live.on(departure.device)) is not None:
                one = None if note_of is None else lambda _: note_of(1)
                ended = await self._advance_all([Given(running.id, Cancelled(why))], Ending(None, departure, one))
            if not ended:
                await self._ports.store.noting(note_of and note_of(0)).depart(departure)
            self._desires.withdraw_all(departure.device)
            return ended

    def handle(self, event: Born | Lost | PushReport) -> None:
        """Take what a link saw; never blocks."""
        if isinstance(event, PushReport) and (push := self._live.get(event.push)) and push.device == event.device:
            self._sender.heard(push)
        self._hearing.hear(event)
        if isinstance(event, Born):
            self._desires.reported(event.device, event.report.slots)

    async def run(self) -> None:
        """Serve events, deadlines and wishes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sender.run(tasks), name="pushes: trials")
            tasks.create_task(self._converge(), name="pushes: wishes")
            while True:
                given = await self._events.take(self._wait_s())
                due = [Given(push, TimePassed()) for push in self._due()]
                await self._advance_all([*given, *due])
                await self._send_due()

    async def _converge(self) -> None:
        while True:
            await self.meet_wishes()
            await asyncio.sleep(_LONGEST_WAIT_S)

    async def meet_wishes(self) -> None:
        """Start a push for each wish that is due: after a failure's pause, or because a device reports something else."""
        for desire in self._desires.due():
            await self._retry(desire)

    async def _retry(self, desire: Desire) -> None:
        async with self._stepping:  # a push that ends has then said what follows
            if self._live.on(desire.device) is not None or self._desires.is_planned(desire):
                return  # the end of that push looks at the device's wishes again
        ref = ModelRef(desire.model, version=desire.version)
        try:
            async with self._starting:
                leaving = self._desires.gives_way_to(desire)
                plan = self._wanted(desire.device, ref, downgrade=desire.downgrade, instead_of=leaving)
                await self._start(plan, who=desire.who, is_wish=False, note_of=None)
        except (Conflict, NodeError) as error:
            pairs = {"device": desire.device, "version": ref, "reason": str(error)}
            logger.info("push postponed", extra={"fields": pairs})
            self._desires.postpone(desire)
        except CallerError as error:
            with suppress(NotStored):  # it is tried once more, and refused again
                await self._desires.settle(desire, str(error))

    def _wanted(self, device: DeviceId, ref: ModelRef, *, downgrade: bool, instead_of: ModelName | None) -> Wanted:
        view, version = self._tracking.device(device), self._catalog.resolve(ref)
        self._catalog.check_in_use(version)
        terms, fitter = self._desires.terms(device), self._options.fitter
        return wanted(view, version, terms, downgrade=downgrade, instead_of=instead_of, fitter=fitter)

    async def _start(self, plan: Wanted, *, who: str, is_wish: bool, note_of: Note[Push] | None) -> Push:
        running = self._live.on(plan.device)
        if plan.is_there or self._desires.has_accepted(plan):
            return await self._met(plan, running, who=who, is_wish=is_wish)
        if running is not None and (running.model, running.version, running.digest, running.instead_of) == plan.key:
            return replace(running, joined=True)
        if running is not None:
            await self._supersede(running, plan)
        if len(self._live) >= self._options.max_concurrent:
            raise Overloaded(f"{len(self._live)} pushes are running (pushes.max_concurrent): try again later")
        with self._catalog.keeper.holding() as hold:
            module = await self._modules.make_for(plan, hold)
            if is_wish:
                await self._desires.wish_for(plan, who=who)
            return await self._begin(plan, module, who=who, note_of=note_of)

    async def _met(self, plan: Wanted, running: Push | None, *, who: str, is_wish: bool) -> Push:
        """Wish for what is there, so that it stays: another version of it that is on its way there is wanted no more."""
        if running is not None and running.model == plan.version.model:
            await self._supersede(running, plan)
        if is_wish and who != PLACEMENT:
            await self._desires.wish_for(plan, who=who)
        return push_behind(plan, await self._ports.store.recent(SEARCHED, plan.device))

    async def _supersede(self, running: Push, plan: Wanted) -> None:
        await self._advance_all([Given(running.id, Cancelled(f"superseded by {plan.version}"))])
        if (still := self._live.on(plan.device)) is not None:
            raise Conflict(f"{plan.device} is keeping {still.model}@{still.version} right now: push again in a moment")

    async def _begin(self, plan: Wanted, module: Module, *, who: str, note_of: Note[Push] | None) -> Push:
        first = new_push(
            id=await self._ports.store.next_push_id(),
            device=plan.device,
            model=plan.version.model,
            version=plan.version.number,
            variant=plan.variant.name,
            digest=plan.variant.digest,
            size_bytes=module.manifest.transfer_bytes,
            now_s=self._ports.clock(),
            limits=self._options.limits,
            stream=module.stream,
            signed=module.signed,
            who=who,
            started_at=self._ports.wall_clock(),
            replaces=plan.replaces,
            instead_of=plan.instead_of,
        )
        push = first.push
        pairs = {"id": push.id, "device": push.device, "version": plan.version, "who": who}
        logger.info("push started", extra={"fields": pairs})
        if push.replaces:
            logger.warning("push goes back", extra={"fields": pairs | {"from": push.replaces}})
        async with self._stepping:
            await self._ports.store.noting(note_of and note_of(push)).save_push(push)
            self._live.keep(push)
            self._ports.notify(PushMoved(push))
            await self._obey(push, first.commands)
        return push

    def _wait_s(self) -> float:
        moments = [self._live.next_deadline_s(), self._sender.next_s()]
        earliest_s = min((each for each in moments if each is not None), default=float("inf"))
        now_s = self._ports.clock()
        return min(_LONGEST_WAIT_S, max(0.0, earliest_s - now_s, self._blocked_until_s - now_s))

    def _due(self) -> list[PushId]:
        """Return the pushes whose deadline is over; none while the disk takes nothing."""
        now_s = self._ports.clock()
        return [] if now_s < self._blocked_until_s else self._live.due(now_s)

    async def _advance_all(self, given: Sequence[Given], ending: Ending = NOTHING_MORE) -> int:
        """Take the steps in order, make every new state durable at once, then carry out the commands in the same order.

        `ending` goes into the same transaction when the (only) push given ends. Return how many ended.
        """
        if not given:
            return 0
        async with self._stepping:
            before = {each.push: self._find(each.push) for each in given}
            steps = [taken for each in given if (taken := self._step(each)) is not None]
            after = {taken.push.id: taken.push for taken in steps}
            moved = [push for push in after.values() if (old := before[push.id]) and old.state is not push.state]
            if moved and not await self._journalled(moved, before, ending):
                return 0
            for taken in steps:
                if taken.push != before[taken.push.id]:
                    before[taken.push.id] = taken.push
                    self._ports.notify(PushMoved(taken.push))
                await self._obey(taken.push, taken.commands)
            ended = [push for push in moved if push.state.is_end]
            for push in ended:
                await self._desires.ended(push)
            return len(ended)

    async def _journalled(self, moved: Sequence[Push], before: Mapping[PushId, Push | None], ending: Ending) -> bool:
        """Make new states durable. When the disk does not take them the steps are undone, and no command has left.

        Devices repeat themselves, and deadlines come up again.
        """
        is_end = all(push.state.is_end for push in moved)
        record = ending.note_of(moved[0]) if ending.note_of is not None and is_end else None
        try:
            goes = ending if is_end else NOTHING_MORE
            store = self._ports.store.noting(record)
            await store.save_pushes(moved, unwanted=goes.unwanted, departure=goes.departure)
        except NotStored as error:
            self._blocked_until_s = self._ports.clock() + _LONGEST_WAIT_S
            for push in filter(None, before.values()):
                self._undo(push)
            pairs = {"count": len(moved), "reason": str(error)}
            logger.error("pushes not journalled", extra={"fields": pairs})  # noqa: TRY400 - the message says all
            return False
        return True

    def _step(self, given: Given) -> Step | None:
        current = self._find(given.push)
        if current is None:
            return None
        was_over = current.state.is_end
        limits = limits_on(self._estimates.link(current.device), current, self._options.limits)
        taken = step(current, given.event, now_s=self._ports.clock(), limits=limits)
        if not taken.push.state.is_end:
            self._live.keep(taken.push)
            return taken
        ended = taken.push if was_over else replace(taken.push, ended_at=self._ports.wall_clock())
        self._drop(ended)
        return Step(ended, taken.commands)

    def _find(self, push: PushId) -> Push | None:
        return self._live.get(push) or self._ended.get(push)

    def _undo(self, push: Push) -> None:
        if push.state.is_end:
            self._ended.remember(push)
            return
        self._ended.forget(push.id)
        self._live.drop(push.id)
        self._live.keep(push)

    def _drop(self, push: Push) -> None:
        self._live.drop(push.id)
        self._ended.remember(push)
        self._sender.forget(push)

    async def _close(self, push: Push) -> None:
        """End a push that the journal holds and that cannot go on."""
        ended = replace(push, ended_at=self._ports.wall_clock())
        self._drop(ended)
        await self._ports.store.save_push(ended)
        await self._desires.ended(ended)

    async def _obey(self, push: Push, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                await self._sender.send(push, command)
            except (Overloaded, TooLarge) as error:
                # Nothing is lost: the device asks again, or the state's deadline ends the push.
                logger.warning("push command not sent", extra={"fields": {"id": push.id, "reason": str(error)}})
            except GatewayError as error:
                if not isinstance(command, SendCancel):
                    self._events.put(push.id, Cancelled(str(error)))

    async def _send_due(self) -> None:
        try:
            await self._sender.send_due()
        except GatewayError as error:
            logger.warning("held chunk not sent", extra={"fields": {"reason": str(error)}})
