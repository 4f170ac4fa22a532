"""The gateway of the proof with the real service: `services.pushes` over the real store, in simulated time.

`prove.gateway` drives the same table and the same rows in a tenth of the time; this shows that the service around them keeps
the promise, too. SIGKILL is a store that takes nothing more and a process that says nothing more.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gatewayd.adapters import store_rows as rows
from gatewayd.adapters.store import Store
from gatewayd.core.airtime import AirRules
from gatewayd.core.device import Born, DeviceEvent, Inferred, Lost, PushReport, RunResult, SampleResult
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import Conflict, DeviceTimeout, UnknownDevice
from gatewayd.core.model import Place, SelfTest, Signature, Structure, Trial, Variant, Verdict, Version
from gatewayd.core.names import DeviceId, Digest, ModelRef, PushId
from gatewayd.core.push import Offer, Push
from gatewayd.core.retry import Retry
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.services.desires import DesirePorts, Desires
from gatewayd.services.estimates import Estimates
from gatewayd.services.push_ports import PushOptions, PushPorts
from gatewayd.services.pushes import Pushes
from gatewayd.services.tracking import Tracking, TrackingOptions
from gatewayd.wire import mqttdevice as wire
from prove.bits import Disk, Signer
from prove.device import ANSWER_BYTES, MODEL, digest_of
from prove.gateway import DEVICE, LIMITS, Killed
from prove.models import Artifact
from prove.virtual import VirtualLoop

T = TypeVar("T")
_SETTLED_S = 5.0
"""After the last push ended, wishes are looked at again within this."""
_SPEC = TensorSpec("x", DType.INT8, (1, ANSWER_BYTES))


class ServiceGateway:
    """One process of the gateway; it drives like `prove.gateway.Gateway`."""

    def __init__(
        self,
        artifacts: dict[int, Artifact],
        *,
        journal: sqlite3.Connection,
        send: Callable[[str, bytes], None],
        on_commit: Callable[[bool], None],
        disk: Disk,
    ) -> None:
        self.now_s = 0.0
        for artifact in artifacts.values():
            disk.held[digest_of(artifact.content)] = artifact.content
        self._loop = VirtualLoop()
        self._journal = journal
        self._store = _Store(journal, on_commit)
        self._link = _Link(lambda kind, payload: None if self._store.is_dead else send(kind, payload))
        self._busy_until_s = 0.0
        self._main: asyncio.Task[None] | None = None
        self._parts = _Parts(disk, self._store, self._link, lambda: self._loop.now_s)
        if not rows.load_versions(journal):
            for version in map(_version_of, artifacts.values()):
                rows.add_version(journal, version, ())
            journal.commit()

    @property
    def live(self) -> Push | None:
        """The push that runs."""
        return next(iter(self._parts.pushes.live()), None)

    def begin(self, now_s: float) -> None:
        """Start the process."""
        self._do(now_s, self._parts.load())
        self._main = self._loop.enter(self._parts.pushes.run(), name="pushes")
        self._turn(now_s)

    def restart(self) -> None:
        """Come up again with nothing but the journal. Raises: Killed."""
        self.begin(self.now_s)

    def push(self, version: int) -> bool:
        """Begin a push; False: the device is not there. Raises: Killed."""
        if self._store.is_dead:
            return False
        ref = ModelRef(MODEL, version=version)
        try:
            self._do(self.now_s, self._parts.pushes.start(DEVICE, ref, who="proof"))
        except (Conflict, UnknownDevice):
            return False
        return True

    def ended(self) -> list[Push]:
        """Return the journal's pushes that have ended, oldest first."""
        return [push for push in reversed(rows.recent_pushes(self._journal, 100)) if push.state.is_end]

    def due_s(self) -> float | None:
        """Return when time alone matters next."""
        is_busy = self.live is not None or self.now_s < self._busy_until_s
        return self._loop.next_s() if is_busy else None

    def tick(self) -> None:
        """Let time have passed. Raises: Killed."""
        self._turn(self.now_s)

    def hear(self, kind: str, payload: bytes) -> None:
        """Take a message of the device. Raises: Killed."""
        heard = wire.decode_up(kind, payload, DEVICE)
        if isinstance(heard, Born | Lost | PushReport):
            self._parts.take(heard)
        elif isinstance(heard, wire.ResultFrame):
            self._link.answer(heard)
        self._turn(self.now_s)

    def close(self) -> None:
        """Be gone; again is no harm."""
        self._store.is_dead = True
        if not self._loop.is_closed():
            self._loop.quit()

    def _do(self, now_s: float, work: Coroutine[object, object, T]) -> T | None:
        task = self._loop.enter(work, name="operator")
        self._turn(now_s)
        return task.result()

    def _turn(self, now_s: float) -> None:
        self._loop.settle(now_s)
        if self.live is not None:
            self._busy_until_s = now_s + _SETTLED_S
        if self._store.is_dead:
            raise Killed
        if self._main is not None and self._main.done():
            self._main.result()  # a loop that ended by itself is a fault, and says which


class _Parts:
    """The services, wired as the daemon wires them."""

    def __init__(self, disk: Disk, store: "_Store", link: "_Link", clock: Callable[[], float]) -> None:
        estimates = Estimates()
        self.catalog = Catalog(CatalogPorts(store, disk, _never, _Never(), _ignore, clock))
        options = TrackingOptions(open_join=True, max_devices=1, ping_every_s=3600)
        self.tracking = Tracking(
            store=store,
            estimates=estimates,
            profiles={},
            options=options,
            notify=_ignore,
            clock=clock,
            wall_clock=clock,
        )
        ports = DesirePorts(store, _ignore, clock, clock, chance=lambda: 0.5)
        # One try: what is pushed, and how often, is the proof's business.
        self.desires = Desires(ports, tracking=self.tracking, retry=Retry(tries=1, quarantine_after=1000))
        self.pushes = Pushes(
            PushPorts(store, disk, Signer(), lambda _: link, _ignore, clock, clock),
            catalog=self.catalog, tracking=self.tracking, estimates=estimates, desires=self.desires,
            options=PushOptions(LIMITS, max_concurrent=1, air=AirRules()),
        )  # fmt: skip

    async def load(self) -> None:
        """Read what is stored, in the daemon's order."""
        await self.catalog.load()
        await self.tracking.load()
        await self.desires.load()
        await self.pushes.load()

    def take(self, event: DeviceEvent) -> None:
        """Take what the link saw."""
        if isinstance(event, Inferred):
            return  # nobody ordered anything here
        if not isinstance(event, PushReport):
            self.tracking.handle(event)
        self.pushes.handle(event)


class _Store(Store):
    """The real store; each commit that changes something may be the last."""

    def __init__(self, connection: sqlite3.Connection, on_commit: Callable[[bool], None]) -> None:
        super().__init__(Path("journal"), connection, ThreadPoolExecutor(1))
        self._on_commit = on_commit
        self.is_dead = False

    async def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.is_dead:
            raise Killed
        connection = self._connection
        before = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection)
        is_changed = connection.total_changes != before
        if is_changed:
            self._mortal(is_before=True)
        connection.commit()
        if is_changed:
            self._mortal(is_before=False)
        return result

    def _mortal(self, *, is_before: bool) -> None:
        try:
            self._on_commit(is_before)
        except Killed:
            self.is_dead = True
            if is_before:
                self._connection.rollback()
            raise


class _Link:
    """The device's link: encodes, and waits for what a run brings."""

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        self._send = send
        self._request = 0
        self._waiting: dict[int, asyncio.Future[wire.ResultFrame]] = {}

    def answer(self, frame: wire.ResultFrame) -> None:
        """Take what a run brought."""
        waiting = self._waiting.pop(frame.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    async def drop_model(self, drop: Drop, *, timeout_s: float) -> None:
        """See `DeviceLink`. Nobody drops anything here."""
        raise DeviceTimeout(f"{drop.device}: no answer within {timeout_s} s")

    async def run_model(
        self,
        device: DeviceId,
        *,
        slot: int,
        version: int,
        content: bytes | None,
        sensor: int,
        timeout_s: float,
        below: bytes | None = None,  # noqa: ARG002 - a trial brings its input
        is_trial: bool = False,  # noqa: ARG002 - all are
    ) -> RunResult:
        """See `DeviceLink`."""
        self._request += 1
        request = self._request
        self._waiting[request] = asyncio.get_running_loop().create_future()
        self._send("run", wire.encode_run(request, slot=slot, version=version, content=content, sensor=sensor))
        try:
            async with asyncio.timeout(timeout_s):
                frame = await self._waiting[request]
        except TimeoutError:
            raise DeviceTimeout(f"{device} did not answer") from None
        finally:
            self._waiting.pop(request, None)
        return RunResult(frame.content, 0.0, 0.0, 0, 0.0)

    async def read_sensor(self, device: DeviceId, *, sensor: int, timeout_s: float) -> SampleResult:
        """Not asked for here."""
        raise DeviceTimeout(f"{device}: sensor {sensor} was not read within {timeout_s} s")

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        """Not asked for here."""
        raise DeviceTimeout(f"{device} did not answer within {timeout_s} s")

    def send_offer(self, device: DeviceId, offer: Offer) -> None:  # noqa: ARG002 - there is one device
        """See `DeviceLink`."""
        self._send("offer", wire.encode_offer(offer.push, offer.signed))

    def send_chunk(self, device: DeviceId, push: PushId, *, offset: int, content: bytes) -> None:  # noqa: ARG002 - as above
        """See `DeviceLink`."""
        self._send("chunk", wire.encode_chunk(push, offset, content))

    def send_activate(self, device: DeviceId, push: PushId) -> None:  # noqa: ARG002 - as above
        """See `DeviceLink`."""
        self._send("activate", wire.encode_activate(push))

    def send_accept(self, device: DeviceId, push: PushId) -> None:  # noqa: ARG002 - as above
        """See `DeviceLink`."""
        self._send("accept", wire.encode_accept(push))

    def send_cancel(self, device: DeviceId, push: PushId, reason: str) -> None:  # noqa: ARG002 - as above
        """See `DeviceLink`."""
        self._send("cancel", wire.encode_cancel(push, reason))

    def forget(self, device: DeviceId, *, wholly: bool) -> None:
        """See `DeviceLink`: nothing is kept here."""


class _Never:
    """What admits models: nothing is admitted here."""

    async def describe(self, digest: Digest) -> Structure:
        """See `ModelTrial`."""
        raise AssertionError(digest)

    async def try_model(self, digest: Digest, structure: Structure) -> Trial:
        """See `ModelTrial`."""
        raise AssertionError(digest, structure)


def _never(content: bytes) -> Structure:
    raise AssertionError(len(content))


def _ignore(_event: object) -> None:
    """Nobody watches."""


def _version_of(artifact: Artifact) -> Version:
    structure = Structure((), (_SPEC,), (_SPEC,), macs=1, weights_bytes=1)
    verdict = Verdict(Place.DEVICE, "tflm", runs=True, reason="")
    content = artifact.content
    test = SelfTest(1, artifact.expected, 0)
    variant = Variant("tflite-int8", digest_of(content), len(content), structure, (verdict,), 1024, test)
    return Version(MODEL, artifact.version, Signature((_SPEC,), (_SPEC,)), (variant,), 0.0)
