"""Devices reached over LwM2M, as the services see them: satisfies `services.ports.DeviceLink`.

Registrations come in through `Interface`; here each becomes an attachment, its end a `Lost`, and its rows are written behind it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import field, replace

from gatewayd.core.device import DeviceEvent, Lost, Profile, RunResult, SampleResult
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import BadRequest, DeviceRefused, DeviceUnreachable, Forbidden, Overloaded
from gatewayd.core.names import DeviceId, PushId
from gatewayd.core.push import Offer
from gatewayd.core.record import record
from gatewayd.core.registration import StoredPackage
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.attachment import Attachment, Surroundings
from gatewayd.links.lwm2m.births import Prior
from gatewayd.links.lwm2m.choosing import WAYS, Chooser
from gatewayd.links.lwm2m.coap import Ask, Code, Exchange, Incoming, Method, Peer, Refusal, Reply, Serve
from gatewayd.links.lwm2m.device_pushes import DevicePushes
from gatewayd.links.lwm2m.dropping import dropped
from gatewayd.links.lwm2m.interface import Bucket, Interface
from gatewayd.links.lwm2m.line import Line, LineLimits, Spawn
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.patience import Patience
from gatewayd.links.lwm2m.quarantine import Quarantine
from gatewayd.links.lwm2m.registrations import Access, Came, Registered, Registrations
from gatewayd.links.lwm2m.saving import Rows, Saving
from gatewayd.links.lwm2m.slot_terms import Way
from gatewayd.links.lwm2m.turns import Urgency
from gatewayd.wire.lwm2m.negotiation import negotiation_of, renewed
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.registration import Version, parse_registration
from gatewayd.wire.lwm2m.values import Record

logger = logging.getLogger(__name__)

_MAX_BIRTHS = 32  # devices read at once; protects the loop while a fleet registers
_TICK_S = 0.5
_QUIET_S = 20.0  # a device heard of so lately is not pinged: its battery pays for every answer
_COME_LATER_S = 5
_UP_WITHIN_S = 2.0
# How a device refuses to run a slot that runs no model.
_RUNS_NOTHING = (Code.METHOD_NOT_ALLOWED, Code.NOT_FOUND)


@record
class LinkOptions:
    """`most`: devices at one time. `newcomers_per_s` and `newcomers_burst` bound registrations of new ones.

    `profiles`: what is known of devices without our objects. `ways`: how packages get to devices with them, the first one
    first. `patience`: how long each wait of a push may take on a device.
    """

    most: int = 1000
    newcomers_per_s: float = 50.0
    newcomers_burst: float = 1000.0
    line: LineLimits = field(default_factory=LineLimits)
    access: Access = field(default_factory=Access)
    profiles: tuple[Profile, ...] = ()
    ways: tuple[Way, ...] = WAYS
    patience: Patience = field(default_factory=Patience)


Guard = Callable[[Coroutine[object, object, None], Callable[[Exception], None]], Coroutine[object, object, None]]
"""Wraps a task of one device: what it raises by mistake is handed over, and ends nothing else."""


class Lwm2mDeviceLink:
    """See the module. `on_event` and `on_refused(where, code, message)` must return at once; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        exchange: Exchange,
        rows: Rows,
        *,
        options: LinkOptions,
        on_event: Callable[[DeviceEvent], None],
        on_refused: Callable[[str, str, str], None],
        clock: Callable[[], float],
        guard: Guard,
    ) -> None:
        self._exchange = exchange
        self._rows = rows
        self._options = options
        self._on_event = on_event
        self._clock = clock
        self._guard = guard
        self._tasks: asyncio.TaskGroup | None = None
        self._serving = asyncio.Event()
        self._given: dict[DeviceId, dict[int, StoredPackage]] = {}
        self.quarantine = Quarantine(clock)
        self._around = Surroundings(
            self._spawn_for(DeviceId("")),
            clock,
            asyncio.Semaphore(_MAX_BIRTHS),
            Prior(options.profiles, lambda device: self._given.get(device, {})),
            on_event,
            on_refused,
        )
        chooser = Chooser(self._given, options.ways)
        self._pushes = DevicePushes(chooser, self._given, rows.save_package, on_event, options.patience)
        self._attached: dict[DeviceId, Attachment] = {}
        self._saving = Saving(rows)
        self._registrations = Registrations(most=options.most, access=options.access)
        self._interface = Interface(
            self._registrations,
            self,
            definitions=STANDARD,
            newcomers=Bucket(options.newcomers_per_s, options.newcomers_burst, clock),
            on_refused=on_refused,
            clock=clock,
        )

    def resources(self) -> Mapping[str, Serve]:
        """Return what is served to devices, by the first segment of its path."""
        served = {"rd": self._interface.serve_rd, "dp": self._interface.serve_dp, "pkg": self._pushes.packages.serve}
        return {segment: self._when_running(serve) for segment, serve in served.items()}

    def registered_count(self) -> int:
        """Return how many devices are registered."""
        return len(self._registrations)

    async def run(self) -> None:
        """Take up the registrations of an earlier process, then watch lifetimes and save, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._restore()
                self._serving.set()
                tasks.create_task(self._saving.run(), name="lwm2m: save")
                await self._expire()
            finally:
                self._tasks = None  # what ends starts nothing new
                self._serving.clear()

    # what devices did: `interface.Listener`

    def admit(self, device: DeviceId) -> None:
        """See `interface.Listener`."""
        self.quarantine.check(device)

    def registered(self, device: Registered, came: Came) -> None:
        """See `interface.Listener`."""
        attachment = self._attached.get(device.device)
        if attachment is None:
            attachment = self._attach(device)
        else:
            attachment.registered = device
            attachment.unwatch()  # who registers anew observes nothing any more
            attachment.operations.negotiation = renewed(attachment.operations.negotiation, device.registration)
        self._follow(attachment)
        if came is not Came.AGAIN:
            self._saving.save(device.device, device)
        level = logging.DEBUG if came is Came.AGAIN else logging.INFO  # who registers again and again fills no disk
        pairs = {"device": device.device, "how": came.value, "lwm2m": device.registration.version.value}
        logger.log(level, "device registered", extra={"fields": pairs})
        attachment.want_birth()
        self._heard(attachment, device)

    def updated(self, device: Registered, *, changed: bool, objects: bool) -> None:
        """See `interface.Listener`."""
        attachment = self._attached[device.device]
        if changed:
            self._follow(attachment)
            self._saving.save(device.device, device)
        self._heard(attachment, device)
        if objects or attachment.birth is None:
            attachment.want_birth()

    def deregistered(self, device: Registered) -> None:
        """See `interface.Listener`."""
        self._detach(device, "it said that it leaves")

    def sent(self, device: Registered, records: tuple[Record, ...]) -> None:
        """See `interface.Listener`."""
        self._attached[device.device].runs.saw(records, is_news=True)

    def heard(self, device: Registered, peer: Peer) -> None:
        """See `interface.Listener`."""
        self._attached[device.device].line.heard(peer)

    def silent(self) -> Registered | None:
        """See `interface.Listener`."""
        found = (each for each in self._attached.values() if each.birth is None and not each.line.queue_mode)
        return next((each.registered for each in found), None)

    # what the services want: `services.ports.DeviceLink`

    async def run_model(
        self,
        device: DeviceId,
        *,
        slot: int,
        version: int,
        content: bytes | None,
        sensor: int,
        timeout_s: float,
        below: bytes | None = None,  # noqa: ARG002 - no device says over LwM2M that it sends samples with its answers
        is_trial: bool = False,
    ) -> RunResult:
        """See `services.ports.DeviceLink`."""
        attachment, until_s = self._of(device), self._clock() + timeout_s
        if not attachment.is_ours:
            raise DeviceRefused(f"device {device} has no ML Model object (/26242): it runs nothing on request")

        async def errand() -> RunResult:
            if not is_trial:  # while it waited for its turn, the device may have let that model go
                attachment.check_holds(slot, version)
            return await attachment.runs.run(slot, version=version, content=content, sensor=sensor, until_s=until_s)

        try:
            urgency = Urgency.TRIAL if is_trial else Urgency.INFERENCE
            return await attachment.errands.do(errand, timeout_s=timeout_s, urgency=urgency)
        except Refusal as refusal:
            if refusal.response in _RUNS_NOTHING and not is_trial:
                await attachment.look_again(timeout_s=(until_s - self._clock()) / 2)
            raise

    async def read_sensor(self, device: DeviceId, *, sensor: int, timeout_s: float) -> SampleResult:
        """See `services.ports.DeviceLink`."""
        attachment, until_s = self._of(device), self._clock() + timeout_s

        async def errand() -> SampleResult:
            return await attachment.runs.sample(sensor, until_s=until_s)

        return await attachment.errands.do(errand, timeout_s=timeout_s)

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        """See `services.ports.DeviceLink`. Who sleeps, or was just heard, is not asked: what was measured last counts."""
        line = self._of(device).line
        known_s = line.trips.mean_s
        if known_s is not None and (not line.listens or self._clock() - line.heard_s < _QUIET_S):
            return known_s
        asked_s = self._clock()
        await line.ask(Ask(Method.GET, ("3", "0", "0")), timeout_s=timeout_s)  # any answer is one
        return self._clock() - asked_s

    async def drop_model(self, drop: Drop, *, timeout_s: float) -> None:
        """See `services.ports.DeviceLink`."""
        await dropped(self._of(drop.device), self._given.get(drop.device, {}), drop, timeout_s=timeout_s)

    def send_offer(self, device: DeviceId, offer: Offer) -> None:
        """See `services.ports.DeviceLink`. A device that is not registered is offered to again when it is.

        Raises: DeviceUnreachable when it sleeps: the push ends, its wish stays, and is met when the device wakes.
        """
        attachment = self._attached.get(device)
        if attachment is None:
            return
        if not attachment.line.listens and not self._pushes.is_on(device):
            attachment.sleeps()
            raise DeviceUnreachable(f"device {device} sleeps: it is pushed to when it wakes")
        self._pushes.offer(attachment, offer)

    def send_chunk(self, device: DeviceId, push: PushId, *, offset: int, content: bytes) -> None:
        """See `services.ports.DeviceLink`."""
        self._pushes.chunk(device, push, offset, content)

    def send_activate(self, device: DeviceId, push: PushId) -> None:
        """See `services.ports.DeviceLink`."""
        self._tell(device, push, terms.ActivateWanted())

    def send_accept(self, device: DeviceId, push: PushId) -> None:
        """See `services.ports.DeviceLink`."""
        self._tell(device, push, terms.AcceptWanted())

    def send_cancel(self, device: DeviceId, push: PushId, reason: str) -> None:
        """See `services.ports.DeviceLink`."""
        logger.info("push cancelled", extra={"fields": {"device": device, "push": push, "reason": reason}})
        self._tell(device, push, terms.CancelWanted())

    def _tell(self, device: DeviceId, push: PushId, heard: terms.Heard) -> None:
        attachment = self._attached.get(device)
        if attachment is not None:
            self._pushes.tell(attachment, push, heard)

    def forget(self, device: DeviceId, *, wholly: bool) -> None:
        """See `services.ports.DeviceLink`. Its registration ends; when it comes with its next update it has to register anew."""
        self.quarantine.release(device)
        if wholly:
            self._given.pop(device, None)
        registered = self._registrations.of(device)
        if registered is not None:
            self._registrations.remove(registered)
            self._detach(registered, "it was taken out")

    def _of(self, device: DeviceId) -> Attachment:
        found = self._attached.get(device)
        if found is None:
            raise DeviceUnreachable(f"device {device} is not registered")
        return found

    def _attach(self, device: Registered) -> Attachment:
        spawn = self._spawn_for(device.device)
        line = Line(device.device, self._exchange, self._clock, self._options.line, spawn)
        line.slept = lambda: self._slept(device.device)
        operations = Operations(line, STANDARD, negotiation_of(device.registration))
        attachment = self._attached[device.device] = Attachment(
            device, line, operations, replace(self._around, spawn=spawn)
        )
        return attachment

    def _slept(self, device: DeviceId) -> None:
        """A device fell asleep in mid-question; a push that is under way goes on when it wakes."""
        attachment = self._attached.get(device)
        if attachment is not None and self._pushes.is_on(device):
            attachment.sleeps()

    def _follow(self, attachment: Attachment) -> None:
        """Have the line do as the registration says now."""
        registration = attachment.registered.registration
        attachment.operations.composes = registration.version is not Version.V1_0
        attachment.line.queue_mode = registration.binding.is_queued
        attachment.operations.root = tuple(each for each in registration.root.split("/") if each)

    def _heard(self, attachment: Attachment, device: Registered) -> None:
        if device.peer is not None:
            attachment.line.heard(device.peer)
        attachment.heard()

    def _detach(self, device: Registered, reason: str) -> None:
        attachment = self._attached.pop(device.device, None)
        if attachment is not None:
            attachment.leave()
        self._saving.save(device.device, None)
        self._on_event(Lost(device.device, reason))

    def _spawn_for(self, device: DeviceId) -> Spawn:
        """Return what starts a device's tasks."""

        def spawn(work: Coroutine[object, object, None], name: str) -> "asyncio.Task[None]":
            if self._tasks is None:
                work.close()
                raise Overloaded("the LwM2M server is not running")
            guarded = self._guard(work, lambda error: self._failed(device, name, error))
            task = self._tasks.create_task(guarded, name=name)
            task.add_done_callback(lambda _: work.close())  # a task that is cancelled before it began never saw it
            return task

        return spawn

    def _failed(self, device: DeviceId, task: str, error: Exception) -> None:
        why = self.quarantine.failed(device, task, error)
        registered = self._registrations.of(device)
        if why is not None and registered is not None:
            self._registrations.remove(registered)
            self._detach(registered, why)

    def _when_running(self, serve: Serve) -> Serve:
        async def served(request: Incoming) -> Reply:
            if not await self._is_up():
                return Reply(Code.UNAVAILABLE, max_age_s=_COME_LATER_S)
            try:
                self._options.access.check_protection(request.peer.identity)
            except Forbidden as error:  # before anything is read: nothing of it may cost more than this
                self._around.on_refused("lwm2m", error.code, str(error))
                return Reply(Code.FORBIDDEN)
            return await serve(request)

        return served

    async def _is_up(self) -> bool:
        """Wait a moment for the registrations to be read: who is told 5.03, or that its own is gone, may be away for minutes."""
        if not self._serving.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_UP_WITHIN_S):
                    await self._serving.wait()
        return self._serving.is_set()

    async def _restore(self) -> None:
        for package in await self._rows.load_packages():
            self._given.setdefault(package.device, {})[package.instance] = package
        for stored in await self._rows.load_registrations():
            try:
                self._options.access.check(stored.device, stored.identity)
                registration = parse_registration(stored.query.split("&"), stored.links.encode())
            except (BadRequest, Forbidden) as error:  # of another version of this program, or of another config
                self._saving.save(stored.device, None)
                pairs = {"device": stored.device, "reason": str(error)}
                logger.warning("registration dropped", extra={"fields": pairs})
                continue
            peer = self._exchange.peer(stored.address, stored.identity) if stored.address else None
            device = self._registrations.restore(stored, registration, peer, self._clock())
            attachment = self._attach(device)
            self._follow(attachment)
            attachment.line.peer = peer
            attachment.want_birth()

    async def _expire(self) -> None:
        while True:
            for device, why in self._registrations.ended(self._clock()):
                self._detach(device, why)
            await asyncio.sleep(_TICK_S)
