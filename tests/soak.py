"""The soak of the node's runtime: many requests while versions are swapped, real workers, real registry. No failure, no growth.

Sixteen callers ask without pause for `soak:stable` while the alias moves to and fro between two versions. Each move loads
the other version in a new process, moves, and lets the old process go when its last request is answered.
"""

import asyncio
import gc
import struct
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from gatewayd.adapters.artifacts import open_artifacts
from gatewayd.adapters.model_trial import ModelTrials
from gatewayd.adapters.store import open_store
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import GatewayError
from gatewayd.core.names import STABLE, DeviceId, ModelName, RequestId, parse_model_ref
from gatewayd.core.request import InferenceRequest
from gatewayd.services.catalog import Catalog, CatalogPorts
from gatewayd.services.decisions import Decisions
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Inference
from gatewayd.services.ports import DeviceLink
from gatewayd.services.running import Runner
from gatewayd.services.tracking import Tracking, TrackingOptions
from gatewayd.wire.tflite import read_model
from tests import tiny_models
from tests.services.finding import finder_of

CALLERS = 16
MODEL = ModelName("soak")
_WARM_SHARE = 0.2
_LATENCIES = 16_384  # the latest; room for them is there from the start, or they would be the growth
_RAW = struct.pack("<256f", *([0.5] * 256))


@dataclass
class Soak:
    """Counts and memory of one run."""

    requests: int
    swaps: int
    served: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[str] = field(default_factory=list)
    latencies_s: "array[float]" = field(default_factory=lambda: array("d", bytes(8 * _LATENCIES)))
    memory_bytes: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """How much more memory the daemon's process holds in the last fifth than in the fifth after warm-up, as a share."""
        samples = self.memory_bytes[int(len(self.memory_bytes) * _WARM_SHARE) :]
        part = max(1, len(samples) // 4)
        return median(samples[-part:]) / median(samples[:part]) - 1


def pss_bytes() -> int:
    """Return the memory of this process, shared pages by share."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


async def soak(requests: int, swaps: int) -> Soak:
    """Run it. What fails is in `failures`."""
    run = Soak(requests, swaps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            open_store(folder / "db") as store,
            open_artifacts(folder / "artifacts", max_bytes=2**20) as artifacts,
        ):
            engines = [EngineSpec("litert")]
            async with Workers(artifacts.path, engines, clock=time.monotonic) as workers:
                trials = ModelTrials(artifacts.path, engines, device_engine=None)
                ports = CatalogPorts(store, artifacts, read_model, trials, _ignore, time.time, workers)
                catalog = Catalog(ports)
                for version in (b"one", b"two"):
                    await catalog.add(
                        model=MODEL,
                        files=[tiny_models.float_model() + version],
                        labels=(),
                        preprocessing="",
                        note="",
                        who="soak",
                    )
                estimates = Estimates()
                tracking = Tracking(
                    store=store, estimates=estimates, profiles={}, options=TrackingOptions(), notify=_ignore,
                    clock=time.monotonic, wall_clock=time.time,
                )  # fmt: skip
                inference = Inference(
                    catalog=catalog,
                    finder=finder_of(tracking, estimates, workers),
                    runner=Runner(runtime=workers, link_of=_no_link, tracking=tracking, estimates=estimates),
                    decisions=Decisions(100),
                    notify=_ignore,
                    clock=time.monotonic,
                    on_served=_ignore,
                )
                await _press(run, inference, catalog)
    return run


def _ignore(what: object) -> None:
    assert what


def _no_link(device: DeviceId) -> DeviceLink:
    message = f"no link to {device}: there are no devices here"
    raise AssertionError(message)


async def _press(run: Soak, inference: Inference, catalog: Catalog) -> None:
    async with asyncio.TaskGroup() as tasks:
        swapper = tasks.create_task(_swap(run, catalog), name="swapper")
        for _ in range(CALLERS):
            tasks.create_task(_call(run, inference, swapper), name="caller")


async def _swap(run: Soak, catalog: Catalog) -> None:
    """Move the alias at even distances in the number of requests."""
    for number in range(run.swaps):
        while run.served + len(run.failures) < number * run.requests // run.swaps:
            await run.progress.wait()
            run.progress.clear()
        await catalog.move_alias(MODEL, STABLE, 2 - number % 2, who="soak", why="")
        if number % max(1, run.swaps // 100) == 0:
            gc.collect()
            run.memory_bytes.append(pss_bytes())


async def _call(run: Soak, inference: Inference, swapper: asyncio.Task[None]) -> None:
    reference = parse_model_ref(f"{MODEL}:stable")
    while run.served + len(run.failures) < run.requests or not swapper.done():
        started = time.monotonic()
        request = InferenceRequest(RequestId("soak"), reference, started + 30, raw=_RAW)
        try:
            result = await inference.infer(request)
        except GatewayError as error:
            run.failures.append(str(error))
            run.progress.set()
            continue
        run.served += 1
        run.progress.set()
        assert len(result.outputs[0].content) == 16
        run.latencies_s[run.served % len(run.latencies_s)] = time.monotonic() - started
