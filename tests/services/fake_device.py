"""A device behind the services' port: it answers as docs/device-protocol-mqtt.md says, at once or not at all."""

import hashlib
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gatewayd.core.device import (
    Born,
    Capabilities,
    EnergySource,
    LinkKind,
    Lost,
    PushPhase,
    PushReport,
    Report,
    RunResult,
    SampleResult,
    Sensor,
    Slot,
    SlotState,
)
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import DeviceRefused, DeviceTimeout
from gatewayd.core.module import Deflate
from gatewayd.core.names import DeviceId, PushId
from gatewayd.core.push import Offer
from gatewayd.core.tensor import DType, Quantization, TensorSpec

DEVICE = DeviceId("dev-1")
EXPECTED = bytes([1, 2, 3])
MIC = Sensor("mic", TensorSpec("mic", DType.INT16, (4,), Quantization(0.25, 0)))
CAPABILITIES = Capabilities(
    board="board-a", cpu="m4", clock_mhz=120, ram_bytes=2**18, flash_bytes=2**20, runtime="tflm", runtime_version="1",
    runtime_abi=3, arena_bytes=8192, slot_bytes=65536, chunk_bytes=1024, energy_source=EnergySource.BATTERY, operators=None,
    sensors=(MIC,),
)  # fmt: skip
EMPTY = (Slot(0, SlotState.EMPTY), Slot(1, SlotState.EMPTY))


@dataclass(slots=True)
class FakeDevice:
    """One device that follows the protocol; `silent_at` is the phase from which on it says nothing."""

    id: DeviceId = DEVICE
    emit: Callable[[Born | Lost | PushReport], None] = lambda _: None
    capabilities: Capabilities = CAPABILITIES
    slots: tuple[Slot, ...] = EMPTY
    silent_at: PushPhase | None = None
    rejects: str = ""
    is_silent: bool = False
    answers: bool = True
    output: bytes = EXPECTED
    received: bytearray = field(default_factory=bytearray)
    offered: Offer | None = None
    send_fails: Exception | None = None
    sent: list[str] = field(default_factory=list)
    samples: int = 0
    asked: int = 0
    keeps: str = ""
    loses_drops: bool = False
    below: bytes | None = None
    returned_bytes: int = 8
    moves_to: tuple[Slot, ...] = ()
    on_move: Callable[[], Awaitable[object]] | None = None

    def birth(self) -> None:
        self.emit(Born(self.id, LinkKind.MQTT, Report(self.capabilities, self.slots, 0.9)))

    def leave(self) -> None:
        self.emit(Lost(self.id, "will"))

    async def run_model(
        self,
        device: DeviceId,
        *,
        slot: int,
        version: int,
        content: bytes | None,
        sensor: int,
        timeout_s: float,
        below: bytes | None = None,
        is_trial: bool = False,  # noqa: ARG002 - nothing waits here
    ) -> RunResult:
        assert (device, sensor) == (self.id, 0)
        self.asked += 1
        if not self.answers:
            raise DeviceTimeout(f"{device} did not answer within {timeout_s} s")
        if self.moves_to:  # since the request was placed it has accepted another model, and says so before it refuses
            self.slots, self.moves_to = self.moves_to, ()
            self.birth()
            if self.on_move is not None:
                await self.on_move()
            raise DeviceRefused(f"device {device}: slot {slot} runs nothing")
        assert self.slots[slot].version == version
        self.samples += content is None
        self.below = below
        if (
            below is not None
            and max(struct.unpack(f"{len(self.output)}b", self.output)) < struct.unpack("<i", below)[0]
        ):
            returned = struct.pack("<4h", 10, 12, 14, 16)[: self.returned_bytes]
            return RunResult(self.output + returned, 0.004, 60.0, self.samples, 0.02, has_sample=True)
        return RunResult(self.output, 0.004, 60.0, self.samples, 0.02)

    async def read_sensor(self, device: DeviceId, *, sensor: int, timeout_s: float) -> SampleResult:
        assert (device, sensor) == (self.id, 0)
        if not self.answers:
            raise DeviceTimeout(f"{device} did not answer within {timeout_s} s")
        self.samples += 1
        return SampleResult(struct.pack("<4h", 2, 4, 6, 8), self.samples, 700.0, 0.05)

    async def drop_model(self, drop: Drop, *, timeout_s: float) -> None:
        assert (drop.device, timeout_s > 0) == (self.id, True)
        if self.send_fails is not None:
            raise self.send_fails
        self.sent.append(f"drop: {drop.model}@{drop.version}")
        if self.keeps:
            raise DeviceRefused(self.keeps)
        gone = [slot.index for slot in self.slots if (slot.model, slot.version) == (drop.model, drop.version)]
        if not self.loses_drops:
            self.slots = tuple(Slot(each.index, SlotState.EMPTY) if each.index in gone else each for each in self.slots)
        if not self.answers:
            raise DeviceTimeout(f"{drop.device} did not answer within {timeout_s} s")
        self.birth()

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        assert timeout_s > 0
        if not self.answers:
            raise DeviceTimeout(f"{device} did not answer")
        return 0.02

    def send_offer(self, device: DeviceId, offer: Offer) -> None:
        assert device == self.id
        if self.offered is None or self.offered.push != offer.push:
            self.received.clear()
        self.sent.append("offer")
        self.offered = offer
        if self.rejects:
            self._report(PushPhase.REJECTED, reason=self.rejects)
        elif len(self.received) < offer.manifest.transfer_bytes:
            self._want(offer)

    def send_chunk(self, device: DeviceId, push: PushId, *, offset: int, content: bytes) -> None:
        assert self.offered is not None
        assert (device, push, offset) == (self.id, self.offered.push, len(self.received))
        self.sent.append("chunk")
        self.received += content
        if len(self.received) < self.offered.manifest.transfer_bytes:
            self._want(self.offered)
            return
        self._report(PushPhase.WRITTEN)
        encoding = self.offered.manifest.encoding
        named = encoding.digest if isinstance(encoding, Deflate) else self.offered.manifest.digest
        assert hashlib.sha256(self.received).hexdigest() == named
        self._report(PushPhase.VERIFIED)
        self._report(PushPhase.TESTED)

    def send_activate(self, device: DeviceId, push: PushId) -> None:
        self._hold(SlotState.TRIAL)
        self.sent.append("activate")
        assert self.offered is not None and (device, push) == (self.id, self.offered.push)  # noqa: PT018 - one fact
        self._report(PushPhase.TRIAL)

    def send_accept(self, device: DeviceId, push: PushId) -> None:
        assert (device, push > 0) == (self.id, True)
        self.sent.append("accept")
        self._hold(SlotState.ACTIVE)
        self._report(PushPhase.ACCEPTED)

    def send_cancel(self, device: DeviceId, push: PushId, reason: str) -> None:
        assert device == self.id
        assert push
        if self.send_fails is not None:
            raise self.send_fails
        self.sent.append(f"cancel: {reason}")

    def forget(self, device: DeviceId, *, wholly: bool) -> None:
        self.send_cancel(device, PushId(1), "forgotten" if wholly else "taken out")

    def _hold(self, state: SlotState) -> None:
        if self.silent_at is PushPhase.TRIAL or self.offered is None:
            return
        manifest = self.offered.manifest
        leaving = manifest.instead_of
        gone = None if leaving is None else (leaving.model, leaving.version)
        place = next((each.index for each in self.slots if each.model in {None, manifest.model}), 0)
        place = place if leaving is not None else 0
        held = Slot(place, state, manifest.model, manifest.version, manifest.digest)
        is_over = state is SlotState.ACTIVE
        kept = (Slot(e.index, SlotState.EMPTY) if is_over and (e.model, e.version) == gone else e for e in self.slots)
        self.slots = tuple(held if each.index == place else each for each in kept)
        self.birth()

    def _want(self, offer: Offer) -> None:
        length = min(1024, offer.manifest.transfer_bytes - len(self.received))
        self._report(PushPhase.WANT, offset=len(self.received), length=length)

    def _report(self, phase: PushPhase, *, offset: int = 0, length: int = 0, reason: str = "") -> None:
        self.is_silent |= phase is self.silent_at
        if not self.is_silent and self.offered is not None:
            self.emit(PushReport(self.id, self.offered.push, phase, offset, length, reason))
