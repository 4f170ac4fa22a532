"""A small world for the services: real store, real artifacts, real core; the runtime, the trial and the devices are fakes.

The fakes keep their ports' contracts; `FakeDevice` answers as docs/device-protocol-mqtt.md says, at once or not at all.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gatewayd.adapters.artifacts import Artifacts, open_artifacts
from gatewayd.adapters.store import Store, open_store
from gatewayd.core.airtime import AirRules
from gatewayd.core.device import (
    Born,
    Lost,
    Profile,
    PushReport,
)
from gatewayd.core.errors import ModelRefused
from gatewayd.core.events import GatewayEvent
from gatewayd.core.model import NodeRun, Operator, Place, SelfTest, Structure, Trial, Variant, Verdict, Version
from gatewayd.core.names import Digest, ModelName, RequestId, parse_model_ref
from gatewayd.core.push import Limits, Push
from gatewayd.core.request import InferenceRequest, Privacy, SensorRef, Target
from gatewayd.core.retry import Retry
from gatewayd.core.tensor import DType, Quantization, Tensor, TensorSpec
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.services.decisions import Decisions
from gatewayd.services.desires import DesirePorts, Desires
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Inference, Served
from gatewayd.services.ports import ModelReader, ReferenceRuns
from gatewayd.services.push_ports import PushOptions, PushPorts
from gatewayd.services.pushes import Pushes
from gatewayd.services.running import Runner
from gatewayd.services.tracking import Tracking, TrackingOptions
from tests.services.fake_device import CAPABILITIES, DEVICE, EMPTY, EXPECTED, MIC, FakeDevice
from tests.services.finding import finder_of
from tests.signing import FakeSigner

MODEL = ModelName("kws")
__all__ = ["CAPABILITIES", "DEVICE", "EMPTY", "EXPECTED", "MIC", "FakeDevice", "World", "world"]
INPUT = TensorSpec("x", DType.INT8, (1, 4), Quantization(0.5, 0))
OUTPUT = TensorSpec("y", DType.INT8, (1, 3), Quantization(0.25, -1))
STRUCTURE = Structure((Operator("FULLY_CONNECTED", 1, 1),), (INPUT,), (OUTPUT,), macs=12_000, weights_bytes=64)
NODE_RUNS = Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001)
DEVICE_RUNS = Verdict(Place.DEVICE, "tflm", runs=True, reason="")
PROFILE = Profile("board-a", "m4", 120, 2**18, 2**20, "tflm", 60e6, 0.5, 1e-4, "test")
AIR = AirRules(burst_s=60)
RETRY = Retry(tries=3, first_s=100, most_s=1000, quarantine_after=4)
LIMITS = Limits(offer_s=5, stall_s=5, verify_s=5, self_test_s=5, trial_s=5, absence_s=20)


@dataclass(slots=True)
class ManualClock:
    """Seconds that pass only when told."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(slots=True)
class FakeRuntime:
    """Answers EXPECTED, or raises what it is told to."""

    failure: Exception | None = None
    wait_s: float = 0.0
    inputs: list[bytes] = field(default_factory=list)
    streams: list[tuple[str, bool]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    async def preload(self, variant: Variant, *, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.failure is not None:
            raise self.failure
        self.loaded.append(f"+{variant.digest[:8]}")

    def retire(self, digest: Digest) -> None:
        self.loaded.append(f"-{digest[:8]}")

    async def run(
        self, variant: Variant, inputs: Sequence[Tensor], *, timeout_s: float, stream: str = "", is_reset: bool = False
    ) -> NodeRun:
        self.streams.append((stream, is_reset))
        assert timeout_s > 0
        if self.failure is not None:
            raise self.failure
        self.inputs.append(inputs[0].content)
        output = variant.structure.outputs[0]
        return NodeRun((Tensor(output.name, output.dtype, output.shape, EXPECTED),), 0.0, 0.001)

    def expected_wait_s(self, variant: Variant) -> float:
        assert variant.digest
        return self.wait_s


@dataclass(slots=True)
class FakeTrial:
    """Finds that every model runs everywhere, unless told otherwise."""

    verdicts: tuple[Verdict, ...] = (NODE_RUNS, DEVICE_RUNS)
    expected: bytes = EXPECTED
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def describe(self, digest: Digest) -> Structure:
        assert digest
        return STRUCTURE

    async def try_model(self, digest: Digest, structure: Structure) -> Trial:
        assert digest
        if self.meanwhile is not None:
            await self.meanwhile()
        assert structure.inputs
        return Trial(self.verdicts, 4096, SelfTest(7, self.expected, 0))


@dataclass(slots=True)
class World:
    """Everything wired; `events` is what was announced, `served` what rent-or-buy would learn from."""

    clock: ManualClock
    store: Store
    artifacts: Artifacts
    runtime: FakeRuntime
    trial: FakeTrial
    device: FakeDevice
    events: list[GatewayEvent]
    served: list[Served]
    catalog: Catalog
    tracking: Tracking
    desires: Desires
    pushes: Pushes
    signer: FakeSigner
    inference: Inference
    decisions: Decisions
    estimates: Estimates

    async def add(self, *contents: bytes, labels: Sequence[str] = ()) -> Version:
        files = contents or (b"model one",)
        return await self.catalog.add(model=MODEL, files=files, labels=labels, preprocessing="", note="", who="test")

    async def join(self) -> None:
        """Bring the device online and let it in."""
        self.device.birth()
        await self.tracking.approve(self.device.id, who="test")

    def request(
        self,
        *,
        source: bool = False,
        raw: bytes | None = None,
        model: str = "kws",
        pin: Target | None = None,
        prefer: Target | None = None,
        privacy: Privacy = Privacy.ANY,
        request_class: str = "default",
        inputs: tuple[Tensor, ...] = (),
        sensor: str = "mic",
    ) -> InferenceRequest:
        inline = None if source or inputs else (struct.pack("<4f", 1, 2, 3, 4) if raw is None else raw)
        return InferenceRequest(
            RequestId("r1"),
            parse_model_ref(model),
            self.clock() + 5,
            inputs=inputs,
            raw=inline,
            source=SensorRef(self.device.id, sensor) if source else None,
            pin=pin,
            prefer=prefer,
            privacy=privacy,
            request_class=request_class,
        )

    async def seen(self, condition: Callable[[], bool], *, event_count: int = 200) -> None:
        """Let the tasks run until `condition` holds."""
        for _ in range(event_count):
            if condition():
                return
            await self.store.recent(1)
        raise AssertionError("did not happen")

    async def ended(self, push: Push, *, event_count: int = 200) -> Push:
        """Let the tasks run until the journal says that the push has ended."""
        for _ in range(event_count):
            row = next(row for row in await self.store.recent(10) if row.id == push.id)
            if row.state.is_end:
                return row
        raise AssertionError(f"{row} has not ended")


@asynccontextmanager
async def world(
    folder: Path,
    *,
    open_join: bool = False,
    max_devices: int = 10,
    read: ModelReader | None = None,
    reference: ReferenceRuns | None = None,
    busy_timeout_s: float = 5.0,
    air: AirRules = AIR,
) -> AsyncIterator[World]:
    """Open a world on the files of `folder`; opening it again is a restart of the gateway."""
    clock, events, served, estimates = ManualClock(), list[GatewayEvent](), list[Served](), Estimates()
    runtime, trial, device = FakeRuntime(), FakeTrial(), FakeDevice()
    async with (
        open_store(folder / "db.sqlite", busy_timeout_s=busy_timeout_s) as store,
        open_artifacts(folder / "artifacts") as artifacts,
    ):
        files = (store, artifacts, read or _read_model)
        catalog = Catalog(CatalogPorts(*files, trial, events.append, lambda: 1.7e9, runtime, reference))
        tracking = Tracking(
            store=store, estimates=estimates, profiles={"board-a": PROFILE},
            options=TrackingOptions(open_join=open_join, max_devices=max_devices, ping_every_s=30),
            notify=events.append, clock=clock, wall_clock=lambda: 1.7e9,
        )  # fmt: skip
        desires = Desires(
            DesirePorts(store, events.append, clock, lambda: 1.7e9, chance=lambda: 1.0), tracking=tracking, retry=RETRY
        )
        signer = FakeSigner()
        pushes = Pushes(
            PushPorts(store, artifacts, signer, lambda _: device, events.append, clock, lambda: 1.7e9),
            catalog=catalog, tracking=tracking, estimates=estimates, desires=desires,
            options=PushOptions(LIMITS, max_concurrent=4, air=air),
        )  # fmt: skip
        finder = finder_of(tracking, estimates, runtime)
        decisions = Decisions(10)
        inference = Inference(
            catalog=catalog, finder=finder, decisions=decisions, notify=events.append, clock=clock, on_served=served.append,
            runner=Runner(runtime=runtime, link_of=lambda _: device, tracking=tracking, estimates=estimates),
        )  # fmt: skip

        def emit(event: Born | Lost | PushReport) -> None:
            if not isinstance(event, PushReport):
                tracking.handle(event)
            pushes.handle(event)

        device.emit = emit
        await catalog.load()
        await tracking.load()
        await desires.load()
        await pushes.load()
        yield World(
            clock, store, artifacts, runtime, trial, device, events, served, catalog, tracking, desires, pushes, signer,
            inference, decisions, estimates,
        )  # fmt: skip


@asynccontextmanager
async def running(pushes: Pushes) -> AsyncIterator[None]:
    """Run the pushes' loop around a test."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(pushes.run(), name="pushes")
        yield
        task.cancel()


def _read_model(content: bytes) -> Structure:
    if content.startswith(b"bad"):
        raise ModelRefused("no TFL3 identifier")
    if content.startswith(b"wide"):
        return replace(STRUCTURE, inputs=(replace(INPUT, dtype=DType.FP32, quantization=None, shape=(1, 5)),))
    return STRUCTURE
