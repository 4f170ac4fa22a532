"""Driving one push to one device: what is heard goes through the tables of `slots`, what they say to the engine and the device.

The update engine (`core.update`, over the services) decides about offers, deadlines and trials; this drives what it sees of an
LwM2M device. One task per push, one bounded inbox; the transfer is a task beside it, so that a cancel is heard meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from gatewayd.core.device import PushPhase, PushReport
from gatewayd.core.errors import DeviceError, DeviceRefused, GatewayError, NodeError
from gatewayd.core.module import Raw
from gatewayd.core.names import Digest, PushId
from gatewayd.core.push import Offer
from gatewayd.core.registration import NOT_WHOLE
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.attachment import Attachment
from gatewayd.links.lwm2m.coap import Observation, Peer, Refusal
from gatewayd.links.lwm2m.feed import Feed
from gatewayd.links.lwm2m.packages import Fetched, Packages
from gatewayd.links.lwm2m.patience import Patience
from gatewayd.links.lwm2m.places import Place
from gatewayd.links.lwm2m.slot_terms import Action, Answered, Course, Heard, Now, Said, Stage, TimePassed
from gatewayd.links.lwm2m.slots import Kind, step
from gatewayd.links.lwm2m.transfer import Writing, write_package
from gatewayd.wire.lwm2m.values import Record

logger = logging.getLogger(__name__)

Choose = Callable[[Attachment, Offer], Awaitable[tuple[Place, Course]]]
"""Finds where a push goes. Raises: DeviceRefused when there is no place for it."""
MAX_INBOX = 64
"""Protects memory: what waits to be taken by one push. One more is dropped: values are read again, the engine asks again."""
# Between two looks while the device works; a notification makes it sooner.
_FIRST_LOOK_S, _MOST_LOOK_S = 0.1, 2.0
# Nothing is looked at while a transfer comes forward: a look costs the time of a block. After so long a silence, and so many
# times what a question usually takes (a block may just be repeated), the device's state may say what is wrong.
_TRANSFER_LOOK_S, _TRANSFER_LOOK = 5.0, 8.0
_WORKING = frozenset({Stage.WRITTEN, Stage.INSTALLING, Stage.INSTALLED, Stage.ACTIVATING, Stage.TRIAL})
_ENGINE_STAGES = frozenset(
    {Stage.INSTALLED, Stage.TRIAL}
)  # the engine's turn: the device is looked at now and then only


@dataclass(slots=True)
class Driver:
    """One push. `report` hands reports to the engine; `remember` that the device gets the package, then that it has it whole."""

    attachment: Attachment
    offer: Offer
    choose: Choose
    packages: Packages
    report: Callable[[PushReport], None]
    remember: Callable[[Course, Digest], Awaitable[None]]
    patience: Patience = field(default_factory=Patience)
    feed: Feed = field(init=False)
    place: Place = field(init=False)
    course: Course = field(init=False)
    _inbox: "asyncio.Queue[Heard | None]" = field(default_factory=lambda: asyncio.Queue(MAX_INBOX))
    _transfer: "asyncio.Task[None] | None" = None
    _observation: Observation | None = None
    _has_observed: bool = False
    _is_observable: bool = False
    _look_s: float = _FIRST_LOOK_S
    _look_at_s: float = 0.0
    _served: int = -1

    def __post_init__(self) -> None:
        self.feed = Feed(b"", self.offer.manifest.transfer_bytes, self._want, self.attachment.around.clock)

    @property
    def push(self) -> PushId:
        """Which push it is."""
        return self.offer.push

    @property
    def _patience(self) -> Patience:
        return self.patience.on(self.attachment.line.trips.usual_s)

    def tell(self, heard: Heard) -> None:
        """Hand in what happened; never blocks."""
        if not self._inbox.full():
            self._inbox.put_nowait(heard)

    async def run(self) -> None:
        """Find the push's place on the device, then drive until its course is over."""
        try:
            self.place, self.course = await self.choose(self.attachment, self.offer)
        except DeviceRefused as error:
            self.report(PushReport(self.attachment.device, self.push, PushPhase.FAILED, reason=str(error)))
            return
        except (DeviceError, NodeError) as error:  # nothing is known of the device: the engine's deadline decides
            logger.info("push not begun", extra={"fields": {"push": self.push, "reason": str(error)}})
            return
        self.feed.prefix = self.place.prefix(self.offer)
        await self._drive()

    async def _drive(self) -> None:
        try:
            while True:
                heard = await self._next()
                await self._take(heard)
                if self.course.is_over and self._inbox.empty():
                    break
        finally:
            self._stop_transfer()
            if self._observation is not None:
                self._observation.forget()

    async def _next(self) -> Heard:
        """Return what is heard next: from outside, the deadline, or a look at the device."""
        clock = self.attachment.around.clock
        while True:
            heard = None
            try:
                async with asyncio.timeout(max(0.0, min(self._look_at_s, self.course.deadline_s) - clock())):
                    heard = await self._inbox.get()
            except TimeoutError:
                if clock() >= self.course.deadline_s:
                    return TimePassed()
            heard = heard or await self._looked()
            if heard is not None:
                return heard

    async def _take(self, heard: Heard) -> None:
        before = self.course.stage
        now = Now(self.attachment.around.clock(), self._patience)
        turn = step(self.place.kind, self.course, heard, now)
        self.course = turn.course
        if turn.course.stage is not before or isinstance(heard, terms.Progressed):
            self._look_s = _FIRST_LOOK_S
            self._plan_look()
        if turn.course.stage is not before:
            pairs = {"push": self.push, "device": self.attachment.device, "stage": turn.course.stage.value}
            logger.debug("push stage", extra={"fields": pairs})
        for said in turn.events:
            await self._say(said)
        for action in turn.actions:
            await self._act(action)
        if turn.course.stage in _WORKING and not self._has_observed:
            await self._observe()
        if turn.events and self.course.is_over:
            await self._tell_slots()

    async def _say(self, said: Said) -> None:
        """Tell the engine; before a trial it is told what the slots hold, because there it looks for the new model."""
        if said.phase is (PushPhase.ACCEPTED if self.place.kind is Kind.FIRMWARE else PushPhase.WRITTEN):
            await self.remember(self.course, self.offer.manifest.digest)
        if said.phase is PushPhase.TRIAL:
            await self._tell_slots()
        self.report(PushReport(self.attachment.device, self.push, said.phase, reason=said.reason))

    async def _claim(self) -> None:
        """Remember before the first byte that what the instance will hold is ours; /5 holds nothing but what runs."""
        if self.place.kind is Kind.SOFTWARE:
            await self.remember(self.course, NOT_WHOLE)

    async def _tell_slots(self) -> None:
        try:
            await self.attachment.renew_slots()
        except GatewayError as error:
            pairs = {"device": self.attachment.device, "reason": str(error)}
            logger.info("slots not read", extra={"fields": pairs})
            self.attachment.want_birth()

    async def _act(self, action: Action) -> None:
        """Do what the table says; what a device answers to it is heard in its turn."""
        match action:
            case terms.WritePackage(offset=offset, after_s=after_s):
                await self._claim()
                self._begin(self._write(offset, after_s))
            case terms.WriteUri(after_s=after_s):
                await self._claim()
                self._begin(self._have_fetched(action, after_s))
            case terms.AskAgain():
                self.feed.again()
            case terms.StopTransfer():
                self._stop_transfer()
            case terms.Look():
                seen = await self._looked()
                if seen is not None:
                    self.tell(seen)
            case terms.WriteOffer():
                await self._answered(action, self._offered())
            case (
                terms.Reset()
                | terms.Uninstall()
                | terms.Install()
                | terms.Activate()
                | terms.Deactivate()
                | terms.Accept()
                | terms.Cancel()
            ):
                await self._answered(action, self._obeyed(action))
            case _:
                assert_never(action)

    async def _answered(self, action: Action, doing: Coroutine[object, object, None]) -> None:
        """Await what a device is asked to do, and have the table hear its answer."""
        code: tuple[int, int] | None = (2, 4)
        try:
            await doing
        except Refusal as refusal:
            code = (refusal.response >> 5, refusal.response & 31)
        except (DeviceError, NodeError):
            code = None
        self.tell(Answered(action, code))
        self._look_at_s = 0.0  # what it was told shows in its state, or does not

    async def _offered(self) -> None:
        await self.place.write_offer(self.attachment.operations, self.offer, timeout_s=self._patience.ask_s)

    async def _obeyed(self, action: Action) -> None:
        await self.place.obey(self.attachment.operations, action, timeout_s=self._patience.ask_s)

    async def _observe(self) -> None:
        """Have the device tell when something changes; where it does not, looks have to do."""
        self._has_observed = True
        if self._observation is not None:
            return
        try:
            self._observation = await self.attachment.operations.observe(
                self.place.observed, self._notified, timeout_s=self._patience.look_s
            )
        except (DeviceError, NodeError):
            self._observation, self._is_observable = None, False

    def _notified(self, records: Sequence[Record] | None) -> None:
        """A change is looked at at once; an observation that ended is made again by the next look."""
        if records is None:
            self._observation, self._is_observable = None, True
        elif self._inbox.empty():
            self._inbox.put_nowait(None)

    async def _looked(self) -> Heard | None:
        try:
            records = await self.place.look(self.attachment.operations, timeout_s=self._patience.look_s)
        except (DeviceError, NodeError):
            return None
        finally:
            self._look_s = min(_MOST_LOOK_S, 2 * self._look_s)
            self._plan_look()
        if self._observation is None and self._is_observable:
            await self._observe()
        return self.place.seen(records)

    def _plan_look(self) -> None:
        """Set when the device is looked at next if nothing is heard of it: soon after something began, then less often."""
        stage = self.course.stage
        calm_s = _MOST_LOOK_S if stage in _ENGINE_STAGES else 0.0
        if stage is Stage.TRANSFERRING:
            calm_s = max(_TRANSFER_LOOK_S, _TRANSFER_LOOK * self.attachment.line.trips.usual_s)
        self._look_at_s = self.attachment.around.clock() + max(calm_s, self._look_s)

    # the transfer

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        self._stop_transfer()
        self._transfer = self.attachment.around.spawn(work, f"lwm2m transfer of push {self.push}")

    async def _write(self, offset: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.feed.begin(offset)
        writing = Writing(self.place.package_path(), self.place.size_exponent, lambda: self._patience.block_s)
        ended = await write_package(
            self.attachment.operations, self.feed, writing, offset=offset, progressed=self._progressed
        )
        self._transfer = None
        self.tell(ended)

    async def _have_fetched(self, action: terms.WriteUri, after_s: float) -> None:
        await asyncio.sleep(after_s)
        peer = self.attachment.line.peer
        if peer is None:
            self.tell(Answered(action, None))
            return
        self._served = -1
        self.feed.begin(action.offset)
        self.feed.ahead(action.offset)
        fetched = Fetched(
            self.feed,
            _stream_digest(self.offer),
            self.place.size_exponent,
            self._is_device,
            self._fetching,
            self._was_fetched,
        )
        uri = f"{peer.gateway}{self.packages.offer(self.push, fetched)}"
        await self._answered(
            action, self.place.write_uri(self.attachment.operations, uri, timeout_s=self._patience.ask_s)
        )

    def _is_device(self, peer: Peer) -> bool:
        ours = self.attachment.line.peer
        if ours is None or peer.identity != ours.identity:
            return False
        return bool(peer.identity) or peer.address.rpartition("|")[0] == ours.address.rpartition("|")[0]

    def _fetching(self, offset: int) -> None:
        self.attachment.line.stirs()
        if offset == 0 < self._served:
            self._served = 0
            self.feed.begin(0)
            self.tell(terms.BegunAnew())
        elif offset > self._served:
            self._served = offset
            self._progressed()

    def _was_fetched(self) -> None:
        self.tell(terms.TransferEnded((2, 5)))

    def _progressed(self) -> None:
        self.tell(terms.Progressed())

    def _stop_transfer(self) -> None:
        self.packages.withdraw(self.push)
        if self._transfer is not None:
            self._transfer.cancel()
            self._transfer = None

    def _want(self, offset: int, length: int) -> None:
        self.report(PushReport(self.attachment.device, self.push, PushPhase.WANT, offset=offset, length=length))


def _stream_digest(offer: Offer) -> Digest:
    """Return what names the bytes that travel: the artifact's in another encoding are others."""
    encoding = offer.manifest.encoding
    return offer.manifest.digest if isinstance(encoding, Raw) else encoding.digest
