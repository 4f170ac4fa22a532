"""What tests of pushes over LwM2M need: an engine that answers the link like the real one, and a software management client."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import DeviceEvent, Lwm2mTraits, Profile, PushPhase, PushReport
from gatewayd.core.module import Manifest, Raw
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.push import Offer
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.links.lwm2m.patience import Patience
from tests.lwm2m_client import Path, ScriptedDevice, scripted_device
from tests.lwm2m_server import FakeRows, Server, running_server

CONTENT = bytes(each * 7 & 0xFF for each in range(20_000))
SIGNED = b"\xd2\x84" + bytes(300)
STRANGER_LINKS = "</1/0>,</3/0>,</9/0>,</9/1>"
DEVICE = DeviceId("stock-1")
TRAITS = Lwm2mTraits(endpoint="stock-*", block_bytes=1024)
SHORT = Patience(
    clear_s=0.4, transfer_s=4.0, deliver_s=0.8, install_s=0.8, activate_s=0.8, refusal_s=0.3, restart_pause_s=0.1
)  # fmt: skip
PATIENT = Patience(restart_pause_s=0.1)
"""For pushes that end well: a busy machine may take its time."""


def profile(traits: Lwm2mTraits) -> Profile:
    """A kind of board that has only standard objects."""
    return Profile("acme", "cortex-m4", 64, 2**18, 2**20, "acme", 1e7, 1.0, 0.001, "a test", traits)


def offer(push: int = 1, content: bytes = CONTENT, version: int = 2) -> Offer:
    digest = Digest(hashlib.sha256(content).hexdigest())
    manifest = Manifest(ModelName("kws"), version, "int8", digest, len(content), Raw(), 3, (), 1000, (), (), None)
    return Offer(PushId(push), manifest, SIGNED)


@dataclass
class Engine:
    """Answers the link's reports as the update engine does; `phases` are what it was told, without repetition."""

    server: Server
    device: DeviceId
    offer: Offer
    content: bytes = CONTENT
    phases: list[PushPhase] = field(default_factory=list)
    reason: str = ""
    wants: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.listeners.append(self._told)

    async def push(self) -> PushPhase:
        """Offer, and go on until the push ended."""
        self.server.link.send_offer(self.device, self.offer)
        ends = {PushPhase.ACCEPTED, PushPhase.REJECTED, PushPhase.FAILED}
        await self.server.until(lambda: self.phases and self.phases[-1] in ends)
        return self.phases[-1]

    def _told(self, event: DeviceEvent) -> None:
        if not isinstance(event, PushReport) or event.push != self.offer.push:
            return
        link = self.server.link
        if event.phase is PushPhase.WANT:
            self.wants.append((event.offset, event.length))
            part = self.content[event.offset : event.offset + event.length]
            link.send_chunk(self.device, event.push, offset=event.offset, content=part)
        elif event.phase is PushPhase.TESTED:
            link.send_activate(self.device, event.push)
        elif event.phase is PushPhase.TRIAL:
            link.send_accept(self.device, event.push)
        if not self.phases or self.phases[-1] is not event.phase:
            self.phases.append(event.phase)
        self.reason = event.reason


@dataclass
class SoftwareClient:
    """A software management client as the standard has it; what clients do otherwise is switched on by its fields.

    `fails_blocks`: codes that the n-th block is answered with (once). `result`: of the installation. `stuck_at`: a state
    it never leaves. `execute_does_nothing`: a 2.04, and that was all. `pull_only`: a package write answers 4.05. `falls_to`: the
    state that it goes to when a resource is executed, whatever that should do. `rejects`: the result that it shows of a package
    that it took with 2.04. `by_itself`: it installs and activates what it was given, and shows nothing in between.
    """

    device: ScriptedDevice
    name: str = "kws"
    version: str = "2"
    result: int = 2
    fails_blocks: dict[int, int] = field(default_factory=dict)
    stuck_at: int | None = None
    activates: bool = True
    execute_does_nothing: bool = False
    pull_only: bool = False
    push_only: bool = False
    packages: dict[int, bytes] = field(default_factory=dict)
    uris: list[str] = field(default_factory=list)
    blocks: int = 0
    falls_to: dict[int, int] = field(default_factory=dict)
    rejects: int | None = None
    by_itself: bool = False
    activated: list[int] = field(default_factory=list)
    uninstalled: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for instance in (0, 1):
            self.show(instance, state=0, result=0)
        self.device.tree.values |= {(3, 0, 0): "Acme", (3, 0, 1): "Stock", (3, 0, 16): "U"}
        self.device.answer = self.answer
        self.device.on_execute = self._execute

    def show(
        self, instance: int, *, state: int, result: int, active: bool = False, name: str = "", version: str = ""
    ) -> None:
        """Have an instance show this."""
        self.device.tree.values |= {
            (9, instance, 0): name, (9, instance, 1): version, (9, instance, 7): state, (9, instance, 9): result,
            (9, instance, 12): active,
        }  # fmt: skip

    def state(self, instance: int) -> int:
        return int(self.device.tree.values[9, instance, 7])

    def running(self) -> list[int]:
        """Return the instances that are installed and active."""
        return [each for each in (0, 1) if self.device.tree.values[9, each, 12] and self.state(each) == 4]

    def answer(self, message: Message) -> Message | None:
        path = tuple(int(each) for each in message.opt.uri_path)
        if message.code == codes.PUT and len(path) == 3 and path[2] in {2, 3}:
            return self._package(path, message) if path[2] == 2 else self._uri(path, message)
        return self.device.well_behaved(message)

    def _package(self, path: Path, message: Message) -> Message:
        if self.pull_only or self.state(path[1]) > 1:
            return Message(code=codes.METHOD_NOT_ALLOWED)
        number, self.blocks = self.blocks, self.blocks + 1
        failure = self.fails_blocks.pop(number, None)
        if failure is not None:
            return Message(code=failure)
        reply = self.device.write(path, message)
        if reply.code == codes.CHANGED:
            self.delivered(path[1], self.device.writes[path])
        elif message.opt.block1 is not None and message.opt.block1.start == 0:
            self.show(path[1], state=1, result=0)
        return reply

    def _uri(self, path: Path, message: Message) -> Message:
        if message.opt.content_format != 0:
            return Message(code=codes.UNSUPPORTED_CONTENT_FORMAT)  # it reads text only, and says so
        uri = message.payload.decode()
        if not uri and self.state(path[1]) < 3:
            self.show(path[1], state=0, result=0)
            return Message(code=codes.CHANGED)
        if self.push_only or self.state(path[1]) > 0:
            return Message(code=codes.METHOD_NOT_ALLOWED)
        self.uris.append(uri)
        self.show(path[1], state=1, result=0)
        return Message(code=codes.CHANGED)

    def delivered(self, instance: int, content: bytes) -> None:
        """The package is there, whole."""
        self.packages[instance] = content
        if self.rejects is not None:
            self.show(instance, state=0, result=self.rejects)
            return
        if self.by_itself:
            self._move(instance, 4, 2, active=True)
            return
        self._move(instance, 2)
        self._move(instance, 3)

    def _move(self, instance: int, state: int, result: int = 0, *, active: bool = False) -> None:
        if self.stuck_at is None or state <= self.stuck_at:
            named = state > 2
            name, version = (self.name, self.version) if named else ("", "")
            self.show(instance, state=state, result=result, active=active, name=name, version=version)

    def _execute(self, path: Path, _: str) -> Message | None:
        instance, resource = path[1], path[2]
        if self.execute_does_nothing:
            return None
        if resource in self.falls_to:
            self.show(instance, state=self.falls_to[resource], result=0)
        elif resource == 4:
            if self.state(instance) != 3:
                return Message(code=codes.METHOD_NOT_ALLOWED)
            self._move(instance, 4 if self.result == 2 else 3, self.result)
        elif resource == 6:
            self.uninstalled.append(instance)
            self._move(instance, 0)
        elif resource == 10 and self.activates:
            self.activated.append(instance)
            self._move(instance, 4, 2, active=True)
        elif resource == 11:
            self.device.tree.values[9, instance, 12] = False
        return None


@asynccontextmanager
async def stranger(
    traits: Lwm2mTraits = TRAITS, rows: FakeRows | None = None, patience: Patience = SHORT
) -> AsyncIterator[tuple[Server, ScriptedDevice, SoftwareClient]]:
    """A device with standard objects only, registered and read."""
    options = LinkOptions(profiles=(profile(traits),), patience=patience)
    async with running_server(options, rows=rows) as server, scripted_device(server.address) as device:
        client = SoftwareClient(device)
        await device.register(DEVICE, STRANGER_LINKS)
        await server.born()
        yield server, device, client
