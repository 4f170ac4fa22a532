"""One attached device: its registration with the line, the errands and the memory that go with it, and its births.

A birth is wanted after a registration, after its objects changed, and after a push moved its slots; it is read when the device
listens, and again with growing pauses while that fails.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gatewayd.core.device import RUNNING, Born, DeviceEvent, Inferred, LinkKind, Lost, Report, RunResult
from gatewayd.core.errors import BadRequest, DeviceError, DeviceRefused, GatewayError, NodeError
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.links.lwm2m.births import Birth, Prior, has_our_objects, read_birth, read_reception, read_slots
from gatewayd.links.lwm2m.errands import Errands
from gatewayd.links.lwm2m.interface import Bucket
from gatewayd.links.lwm2m.line import Line, Spawn
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.reception import Reception
from gatewayd.links.lwm2m.registrations import Registered
from gatewayd.links.lwm2m.runs import Runs
from gatewayd.links.lwm2m.turns import Urgency

logger = logging.getLogger(__name__)

_BIRTH_S = 60.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 2.0, 300.0
_OWN_PER_S = 50.0
"""Results of a device's own accord that are passed on in a second. Protects the loop: no standing order asks more often."""


@record
class Surroundings:
    """What every attachment is given. `births` bounds how many are read at once: a fleet registers after a power cut."""

    spawn: Spawn
    clock: Callable[[], float]
    births: asyncio.Semaphore
    prior: Prior
    on_event: Callable[[DeviceEvent], None]
    on_refused: Callable[[str, str, str], None]


@dataclass(slots=True)
class Attachment:
    """See the module."""

    registered: Registered
    line: Line
    operations: Operations
    around: Surroundings
    errands: Errands = field(init=False)
    runs: Runs = field(init=False)
    reception: Reception = field(init=False)
    birth: Birth | None = None
    has_left: bool = False
    is_asleep: bool = False
    _is_wanted: bool = False
    _carer: "asyncio.Task[None] | None" = None
    _waker: asyncio.Event = field(default_factory=asyncio.Event)
    _running: tuple[int, ...] = ()
    _is_watchable: bool = False
    _watcher: "asyncio.Task[None] | None" = None
    _looker: "asyncio.Task[None] | None" = None
    _receiver: "asyncio.Task[None] | None" = None
    _renewer: "asyncio.Task[None] | None" = None
    _own: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self.errands = Errands(self.device, self.around.spawn)
        self.runs = Runs(self.operations, self._inferred, self._look)
        self.reception = Reception(self.operations, self._connected)
        self.line.moved = self._moved
        self._own = Bucket(_OWN_PER_S, _OWN_PER_S, self.around.clock)

    @property
    def device(self) -> DeviceId:
        """Its id, which is its endpoint name."""
        return self.registered.device

    @property
    def is_ours(self) -> bool:
        """Whether it has our two objects."""
        return has_our_objects(self.registered.registration)

    def want_birth(self) -> None:
        """Have the device read soon."""
        self._is_wanted = True
        self._waker.set()
        if self._carer is None:
            self._carer = self.around.spawn(self._care(), f"lwm2m birth {self.device}")

    def heard(self) -> None:
        """The device spoke: a birth that waits for a better moment has it now, and so has a push."""
        self._waker.set()
        if self.is_asleep and self.birth is not None:
            self._born(self.birth)
        self._watch()

    def sleeps(self) -> None:
        """Have it told that the device cannot be pushed to now; its next message is as good as a return."""
        if not self.is_asleep:
            self.is_asleep = True
            self.around.on_event(Lost(self.device, "it sleeps, and is heard of when it wakes"))

    def leave(self) -> None:
        """End what runs for the device."""
        self.has_left = True
        self._is_wanted = False
        self._waker.set()
        self.unwatch()

    async def renew(self) -> Report:
        """Read the device now, and tell it to all. Raises: GatewayError."""
        return self._born(await self.errands.do(self._read, timeout_s=_BIRTH_S, urgency=Urgency.CONTROL))

    async def renew_slots(self) -> Report:
        """Read what the slots hold now, and tell it to all. Raises: GatewayError."""
        if self.birth is None:
            return await self.renew()
        return self._born(await self.errands.do(self._read_slots, timeout_s=_BIRTH_S, urgency=Urgency.CONTROL))

    def check_holds(self, slot: int, version: int) -> None:
        """Raises: DeviceRefused when the device said since that the slot runs another version, or none."""
        if self.birth is None:
            return
        held = next((each for each in self.birth.report.slots if each.index == slot), None)
        if held is not None and (held.state not in RUNNING or held.version != version):
            raise DeviceRefused(f"device {self.device}: slot {slot} does not run version {version} (any more)")

    async def look_again(self, *, timeout_s: float) -> None:
        """It refused a run as if its slot ran nothing: have the slots read, once for all who were refused. Never raises."""
        if self._renewer is None and not self.has_left:
            self._renewer = self.around.spawn(self._looked_again(), f"lwm2m slots {self.device}")
        if self._renewer is not None:
            await asyncio.wait({self._renewer}, timeout=max(0.0, timeout_s))

    async def _looked_again(self) -> None:
        try:
            await self.renew_slots()
        except GatewayError as error:
            logger.debug("slots not read", extra={"fields": {"device": self.device, "reason": str(error)}})
        finally:
            self._renewer = None

    def _born(self, birth: Birth) -> Report:
        if not self.has_left:
            self.birth, self.is_asleep = birth, False
            slots, said = birth.report.slots if self.is_ours else (), birth.report.connectivity
            self._running = tuple(each.index for each in slots if each.state in RUNNING)
            self._is_watchable = bool(self._running or self.runs.has_watches or (said is not None and said.has_choice))
            self.runs.saw(birth.records)
            self.around.on_event(Born(self.device, LinkKind.LWM2M, birth.report))
            self._watch()
        return birth.report

    def _watch(self) -> None:
        """Have the slots that run a model observed, where they are not, and which of its bearers the device uses."""
        if (
            not self._is_watchable
            or self.birth is None
            or self.has_left
            or self._is_wanted
            or self._watcher is not None
        ):
            return
        is_unwatched = self.runs.is_unwatched(self._running) or self.reception.is_unwatched(self.birth.report)
        if is_unwatched and self.line.listens:
            self._watcher = self.around.spawn(self._watched(self._running), f"lwm2m watch {self.device}")

    async def _watched(self, slots: Sequence[int]) -> None:
        """Observe in turn with what else is asked of the device; what does not come off is tried again when it speaks."""

        async def errand() -> None:
            await self.runs.watch(slots)
            if self.birth is not None:
                await self.reception.watch(self.birth.report)

        try:
            await self.errands.do(errand, timeout_s=_BIRTH_S, urgency=Urgency.CONTROL)
        except (DeviceError, NodeError) as error:
            logger.debug("device not observed", extra={"fields": {"device": self.device, "reason": str(error)}})
        finally:
            self._watcher = None

    def _look(self, slot: int) -> None:
        """A slot told that it changed, in more bytes than a message holds: read it, once for all that it tells meanwhile."""
        if self._looker is None and not self.has_left:
            self._looker = self.around.spawn(self._looked(slot), f"lwm2m look {self.device}")

    async def _looked(self, slot: int) -> None:
        try:
            await self.errands.do(lambda: self.runs.look(slot), timeout_s=_BIRTH_S, urgency=Urgency.CONTROL)
        except (DeviceError, NodeError) as error:
            logger.debug("slot not read", extra={"fields": {"device": self.device, "reason": str(error)}})
        finally:
            self._looker = None

    def _moved(self) -> None:
        """What it tells comes from its new address, where nothing was observed; the device is told so by a reset."""
        self.runs.unwatch()
        self.reception.unwatch()
        self.reception.may_have_changed()

    def unwatch(self) -> None:
        """Take every observation for ended: the device registered anew."""
        self.runs.unwatch()
        self.reception.unwatch()

    def _connected(self) -> None:
        """Read how the device is connected now."""
        if self._receiver is None and not self.has_left and self.birth is not None:
            self._receiver = self.around.spawn(self._received(), f"lwm2m reception {self.device}")

    async def _received(self) -> None:
        registration = self.registered.registration
        try:
            now = await self.errands.do(
                lambda: read_reception(self.operations, registration), timeout_s=_BIRTH_S, urgency=Urgency.CONTROL
            )
            if now is not None and self.birth is not None:
                self._born(replace(self.birth, report=replace(self.birth.report, connectivity=now), records=()))
        except (DeviceError, NodeError) as error:
            logger.debug("reception not read", extra={"fields": {"device": self.device, "reason": str(error)}})
        finally:
            self._receiver = None

    def _inferred(self, slot: int, version: int, sensor: int, result: RunResult) -> None:
        if self._own.take():
            self.around.on_event(Inferred(self.device, slot, version, sensor, result))

    async def _care(self) -> None:
        """Read the device until that was done once since it was wanted."""
        pause_s = _FIRST_PAUSE_S
        try:
            while self._is_wanted and not self.has_left:
                self._is_wanted = False
                if await self._tried():
                    pause_s = _FIRST_PAUSE_S
                    continue
                self._is_wanted = True
                await self._pause(pause_s)
                pause_s = min(_MOST_PAUSE_S, 2 * pause_s)
        finally:
            self._carer = None

    async def _tried(self) -> bool:
        async with self.around.births:
            if not self.line.listens:
                return False
            try:
                await self.renew()
            except BadRequest as error:
                self.around.on_refused("lwm2m", error.code, f"{self.device}: {error}")
                return True  # asking again gives the same; its next registration may say something else
            except (DeviceError, NodeError, GatewayError) as error:
                logger.info("device not read", extra={"fields": {"device": self.device, "reason": str(error)}})
                return False
        return True

    async def _pause(self, pause_s: float) -> None:
        """Wait, but no longer than until the device speaks."""
        self._waker.clear()
        try:
            async with asyncio.timeout(pause_s):
                await self._waker.wait()
        except TimeoutError:
            return

    async def _read(self) -> Birth:
        self.runs.forget()
        self.reception.unwatch()
        return await read_birth(self.operations, self.registered.registration, self.around.prior)

    async def _read_slots(self) -> Birth:
        if self.birth is None:
            return await self._read()
        return await read_slots(self.operations, self.registered.registration, self.around.prior, self.birth)
