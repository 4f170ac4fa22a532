"""How long a decision takes at 1,000 devices x 20 models, with the candidate index in it, and what a pair weighs.

Real trackers, index, finder and `place`; devices are handed in as events, as a link would. Between any two decisions something
changes (a birth, a loss, a round trip, a run), so no decision meets an index at rest. Timed: gathering the facts, ranking, and
the first option with its costs: all that a request waits for. `late` decisions find the change not yet worked in and do that
too; `upkeep` is that work where it belongs, at the end of the event loop's turn.

Times are of the wall clock; `cpu` is the thread's own. `reference` is a fixed sum of a few microseconds, taken after every
decision: on a quiet machine its p99 is near its p50, and where it is not, the other p99s are stretched as it is.
"""

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Self

from bench.common import Report
from gatewayd.core.arena_need import Beliefs
from gatewayd.core.command import Record
from gatewayd.core.device import (
    Born,
    Capabilities,
    Departure,
    EnergySource,
    KnownDevice,
    LinkKind,
    Lost,
    Profile,
    Sensor,
    Slot,
    SlotState,
)
from gatewayd.core.device import Report as DeviceReport
from gatewayd.core.model import Operator, Place, Signature, Structure, Variant, Verdict, Version
from gatewayd.core.names import DeviceId, Digest, ModelName, ModelRef, RequestId
from gatewayd.core.placement import place
from gatewayd.core.presets import PRESETS
from gatewayd.core.reasons import reason_of
from gatewayd.core.request import InferenceRequest, SensorRef
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.frugal import COLLECT_AFTER
from gatewayd.services.candidates import Candidates
from gatewayd.services.estimates import DevicePair, Estimates
from gatewayd.services.options import OptionFinder
from gatewayd.services.preflight import Fits
from gatewayd.services.tracking import Tracking, TrackingOptions

DEVICES, MODELS, HELD = 1000, 20, 3
DECISIONS = 120_000
ROUNDS = 10
CLASSES = {name: PRESETS[name] for name in ("default", "battery")}
_INPUT = TensorSpec("x", DType.INT8, (1, 490), Quantization(0.5, 0))
_OUTPUT = TensorSpec("y", DType.INT8, (1, 12), Quantization(0.25, -1))


class NoStore:
    """Remembers nothing."""

    async def load_devices(self) -> Sequence[KnownDevice]:
        """Return none."""
        return ()

    def noting(self, record: Record | None) -> Self:
        """Note nothing."""
        assert record is None
        return self

    async def save_device(self, device: KnownDevice) -> None:
        """Forget it."""

    async def depart(self, departure: Departure) -> None:
        """There is nothing to forget."""


class Queue:
    """A node whose queue is as long as a request finds it."""

    def expected_wait_s(self, variant: Variant) -> float:
        """Return a wait that grows with the name's last letter, so that some decisions go to the node and some do not."""
        return 0.01 * (ord(variant.digest[-1]) % 7)


@dataclass
class World:
    """The trackers with every device in, and what each device reports."""

    versions: Sequence[Version]
    reports: Sequence[DeviceReport]
    random: Random = field(default_factory=lambda: Random(8))
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        """Wire and fill."""
        self.estimates = Estimates()
        profile = Profile("board-a", "m4", 120, 2**18, 2**20, "tflm", 60e6, 0.5, 1e-4, "bench")
        self.tracking = Tracking(
            store=NoStore(),
            estimates=self.estimates,
            profiles={"board-a": profile},
            options=TrackingOptions(open_join=True, max_devices=DEVICES),
            notify=lambda _: None,
            clock=lambda: self.now_s,
            wall_clock=lambda: 1.7e9,
        )
        self.candidates = Candidates(tracking=self.tracking, estimates=self.estimates, fitter=Fits(Beliefs()).fit)
        self.finder = OptionFinder(
            estimates=self.estimates,
            runtime=Queue(),  # type: ignore[arg-type]  # the finder asks for nothing but the wait
            classes=CLASSES,
            candidates=self.candidates,
        )
        for index in range(DEVICES):
            self.born(index)
            self.run(index)
            self.ping(index)

    def index(self) -> None:
        """Ask once for each version in each class, as the first requests do."""
        for version in self.versions:
            for name in CLASSES:
                self.decide(version, name)
        self.candidates.settle()

    def born(self, index: int) -> None:
        """Have a device report."""
        self.now_s += 60.0  # so that nobody is held off
        self.tracking.handle(Born(_device(index), LinkKind.MQTT, self.reports[index]))

    def lost(self, index: int) -> None:
        """Have a device go, and come back."""
        self.tracking.handle(Lost(_device(index), "will"))
        self.born(index)

    def ping(self, index: int) -> None:
        """Measure its link."""
        self.estimates.saw_ping(_device(index), self.random.uniform(0.01, 0.08))

    def run(self, index: int) -> None:
        """Measure a run of each model it holds."""
        for slot in self.reports[index].slots:
            variant = self.versions[int(str(slot.model)[-2:])].variants[0]
            before = self.estimates.on_device(
                _device(index),
                variant,
                capabilities=self.reports[index].capabilities,
                profile=None,
            )
            self.estimates.saw_device_run(
                _device(index),
                variant,
                before=DevicePair(before.compute, before.energy),
                compute_s=self.random.uniform(0.002, 0.05),
                energy_uj=self.random.uniform(20, 200),
            )

    def request(self, version: Version, request_class: str, source: DeviceId | None = None) -> InferenceRequest:
        """Return a request as an edge makes it."""
        return InferenceRequest(
            RequestId("r"),
            ModelRef(version.model),
            self.now_s + 5.0,
            raw=None if source else b"",
            source=SensorRef(source, "mic") if source else None,
            request_class=request_class,
        )

    def decide(self, version: Version, request_class: str, source: DeviceId | None = None) -> Callable[[], str]:
        """Decide once; return what tells the reason."""
        return self.timed(self.request(version, request_class, source), version)[1]

    def timed(
        self, request: InferenceRequest, version: Version, clock: Callable[[], int] = time.perf_counter_ns
    ) -> tuple[int, Callable[[], str]]:
        """Return the nanoseconds of a decision, and what tells its reason."""
        started = clock()
        options = self.finder.find(request, version, now_s=self.now_s)
        placement = place(options.question, options.node, options.devices)
        placement.ranked_option(placement.ranked[0])
        return clock() - started, lambda: reason_of(placement)


def _device(index: int) -> DeviceId:
    return DeviceId(f"device-{index:04}")


def _version(index: int) -> Version:
    structure = Structure((Operator("CONV_2D", 1, 1),), (_INPUT,), (_OUTPUT,), macs=2_600_000, weights_bytes=50_000)
    verdicts = (
        Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001 + 0.002 * index),
        Verdict(Place.DEVICE, "tflm", runs=True, reason=""),
    )
    digest = Digest(f"{index:064x}")
    return Version(
        ModelName(f"model-{index:02}"),
        1,
        Signature((_INPUT,), (_OUTPUT,)),
        (Variant("tflite-int8", digest, 52_000, structure, verdicts, 20_000),),
        1.7e9,
    )


def _report(versions: Sequence[Version], index: int, held: int) -> DeviceReport:
    told = Capabilities(
        board="board-a", cpu="m4", clock_mhz=120, ram_bytes=2**18, flash_bytes=2**20, runtime="tflm", runtime_version="1",
        runtime_abi=3, arena_bytes=2**16, slot_bytes=2**16, chunk_bytes=1024,
        energy_source=EnergySource.BATTERY if index % 2 else EnergySource.MAINS, operators=None,
        sensors=(Sensor("mic", TensorSpec("mic", DType.INT16, (1, 490), Quantization(0.25, 0))),),
    )  # fmt: skip
    on_it = [versions[(index + step) % MODELS] for step in range(held)]
    slots = [
        Slot(slot, SlotState.ACTIVE, version.model, 1, version.variants[0].digest) for slot, version in enumerate(on_it)
    ]
    return DeviceReport(told, tuple(slots), 0.9)


def churn(world: World) -> None:
    """Change something about some device."""
    index = world.random.randrange(DEVICES)
    kind = world.random.random()
    if kind < 0.1:
        world.lost(index)
    elif kind < 0.4:
        world.run(index)
    else:
        world.ping(index)


def reference() -> int:
    """Return the nanoseconds of a fixed piece of work."""
    started = time.perf_counter_ns()
    sum(number * 0.5 for number in range(100))
    return time.perf_counter_ns() - started


def measure(
    world: World, count: int, *, is_late: bool, clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return the nanoseconds of decisions, of upkeep, of the reason in words, and of the reference."""
    decisions: list[int] = []
    upkeep: list[int] = []
    reasons: list[int] = []
    references: list[int] = []
    for number in range(count):
        churn(world)
        if not is_late:
            started = time.perf_counter_ns()
            world.candidates.settle()
            upkeep.append(time.perf_counter_ns() - started)
        version = world.versions[number % MODELS]
        # A sensor feeds a model or two, not all.
        near = world.random.randrange(DEVICES // MODELS) * MODELS + number % MODELS
        source = _device(near) if number % 4 == 0 else None
        request = world.request(version, "battery" if number % 5 == 0 else "default", source)
        took, reason = world.timed(request, version, clock)
        decisions.append(took)
        references.append(reference())
        if is_late:
            world.candidates.settle()
        if number % 10 == 0:
            started = time.perf_counter_ns()
            reason()
            reasons.append(time.perf_counter_ns() - started)
    return decisions, upkeep, reasons, references


def pair_bytes(held: int) -> float:
    """Return what a pair weighs: all that trackers, estimators and index keep, but for the reports that devices sent."""
    versions = [_version(index) for index in range(MODELS)]
    reports = [_report(versions, index, held) for index in range(DEVICES)]
    gc.collect()
    tracemalloc.start()
    world = World(versions, reports)
    world.index()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / (DEVICES * held)


def _quantiles(report: Report, name: str, times: list[int], p99: tuple[str, float] | None) -> None:
    """Take the median over `ROUNDS` rounds: another program that runs meanwhile spoils a round's p99, not all of them."""
    length = len(times) // ROUNDS
    rounds = [sorted(times[start : start + length]) for start in range(0, length * ROUNDS, length)]
    report.add(f"{name}_p50_us", median(each[length // 2] for each in rounds) / 1000)
    report.add(f"{name}_p99_us", median(each[int(length * 0.99)] for each in rounds) / 1000, p99)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=DECISIONS)
    count = parser.parse_args(arguments).count
    report = Report("decision")
    for held in (HELD, MODELS):
        report.add(f"bytes_per_pair_{held}_per_device", pair_bytes(held), ("<=", 2048))
    for held in (HELD, MODELS):
        versions = [_version(index) for index in range(MODELS)]
        world = World(versions, [_report(versions, index, held) for index in range(DEVICES)])
        world.index()
        gc.collect()
        gc.freeze()  # this and the next as the daemon does once it has started
        gc.set_threshold(*COLLECT_AFTER)
        decisions, upkeep, reasons, references = measure(world, count, is_late=False)
        _quantiles(report, f"decision_{held}_per_device", decisions, ("<=", 50))
        _quantiles(report, f"upkeep_{held}_per_device", upkeep, None)
        cpu, *_ = measure(world, count // 4, is_late=False, clock=time.thread_time_ns)
        _quantiles(report, f"decision_{held}_per_device_cpu", cpu, ("<=", 50))
        late, *_ = measure(world, count // 4, is_late=True)
        _quantiles(report, f"late_decision_{held}_per_device", late, ("<=", 50) if held == HELD else None)
        _quantiles(report, f"reason_{held}_per_device", reasons, None)
        _quantiles(report, f"reference_{held}_per_device", references, None)
    report.add("decisions", float(count * 2 + count // 4 * 2), (">=", 100_000))
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
