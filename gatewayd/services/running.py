"""Running one chosen option, on the node or on a device, and learning from what it cost."""

import math
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from gatewayd.core.device import RunResult, SampleResult
from gatewayd.core.errors import DeviceError, DeviceTimeout, NodeError, Overloaded
from gatewayd.core.model import Variant
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import RADIO_UJ_PER_BYTE
from gatewayd.core.record import record
from gatewayd.core.request import Measured
from gatewayd.core.tensor import DType, Tensor, converted
from gatewayd.services.candidates import Candidate, Source
from gatewayd.services.estimates import DevicePair, Estimates
from gatewayd.services.options import Options
from gatewayd.services.ports import DeviceLink, NodeRuntime
from gatewayd.services.settling import Settling
from gatewayd.services.speech import Speech
from gatewayd.services.tracking import Tracking

# A device computes one at a time: what waits behind so many is late, and a mute device must not hold up everybody.
MAX_RUNNING = 16
_MOST_I32 = 2**31 - 1

T = TypeVar("T")

LinkOf = Callable[[DeviceId], DeviceLink]
"""Which link reaches a device."""


@record
class Ran:
    """One successful run: outputs in the variant's own dtypes; `measured.total_s` is filled in by the caller.

    `returned` is the sample it was about, where a device sent that along (None: it did not).
    """

    variant: Variant
    outputs: tuple[Tensor, ...]
    measured: Measured
    sample: int | None
    returned: SampleResult | None = None


@record
class NodeState:
    """Which state of a model that keeps one a run continues ("": the one all share), and whether it begins anew."""

    stream: str = ""
    is_reset: bool = False


NO_STATE = NodeState()


class Runner:
    """Runs options and feeds the estimators."""

    def __init__(
        self,
        *,
        runtime: NodeRuntime,
        link_of: LinkOf,
        tracking: Tracking,
        estimates: Estimates,
        settling: Settling | None = None,
    ) -> None:
        self._runtime = runtime
        self._link_of = link_of
        self._tracking = tracking
        self._estimates = estimates
        self._settling = settling or Settling()

    async def on_node(
        self,
        options: Options,
        speech: Speech,
        *,
        timeout_s: float,
        state: NodeState = NO_STATE,
        sample: SampleResult | None = None,
    ) -> Ran:
        """Run on the node; data by reference is fetched from its sensor first, unless its `sample` is here already.

        Raises: DeviceError when the sensor cannot be read, NodeError when the runtime fails.
        """
        variant = options.node_variant
        if variant is None:
            raise NodeError("no variant of this version runs on the node")
        if options.source is not None and sample is None:
            sample = await self._sample(options.source, timeout_s=timeout_s)
        given = _sampled(options.source, sample) if options.source and sample else speech
        run = await self._runtime.run(
            variant,
            _stored(given, variant),
            timeout_s=timeout_s - (sample.elapsed_s if sample else 0.0),
            stream=state.stream,
            is_reset=state.is_reset,
        )
        self._settling.enter(partial(self._estimates.saw_node_run, variant, run.compute_s))
        measured = Measured(
            total_s=0.0,
            queue_s=run.queue_s,
            transfer_s=sample.elapsed_s if sample else 0.0,
            compute_s=run.compute_s,
            energy_uj=sample.energy_uj if sample else 0.0,
            link_bytes=len(sample.content) if sample else 0,
        )
        return Ran(variant, run.outputs, measured, sample.sample if sample else None)

    async def on_device(
        self,
        options: Options,
        candidate: Candidate,
        speech: Speech,
        *,
        timeout_s: float,
        unsure_below: float | None = None,
    ) -> Ran:
        """Run on a device that holds the model. With less confidence than `unsure_below` the sample is to come, too.

        Raises: DeviceError.
        """
        variant, slot, facts = candidate.holding.variant, candidate.holding.slot, candidate.facts
        if variant is None or slot is None or slot.version is None:
            raise DeviceError(f"{facts.device} does not hold the model")
        content = _stored(speech, variant)[0].content if options.source is None else None
        below = _below(unsure_below, variant, options.source, facts.device)
        run = await self._guarded(
            facts.device,
            lambda link: link.run_model(
                facts.device,
                slot=slot.index,
                version=slot.version or 0,
                content=content,
                sensor=options.source.index if options.source else 0,
                timeout_s=timeout_s,
                below=below,
            ),
        )
        run, returned = _parted(run, variant.structure.outputs[0].byte_count)
        sent_bytes = len(content or b"")
        ran = self._learned(candidate, variant, run, sent_bytes=sent_bytes, by_sensor=content is None, extra=returned)
        return replace(ran, returned=_checked(returned, options.source))

    def told(self, candidate: Candidate, run: RunResult) -> Ran:
        """Return what a device inferred by itself, on its sensor, as a run.

        Raises: DeviceError when it does not hold the model, or told something else than the model's output.
        """
        variant = candidate.holding.variant
        if variant is None:
            raise DeviceError(f"{candidate.facts.device} does not hold the model")
        return self._learned(candidate, variant, run, sent_bytes=0, by_sensor=True)

    def _learned(
        self,
        candidate: Candidate,
        variant: Variant,
        run: RunResult,
        *,
        sent_bytes: int,
        by_sensor: bool,
        extra: SampleResult | None = None,
    ) -> Ran:
        facts = candidate.facts
        spec = variant.structure.outputs[0]
        if len(run.output) != spec.byte_count:
            raise DeviceError(f"{facts.device} answered {len(run.output)} bytes where {spec.byte_count} were due")
        sample_bytes = 0 if extra is None else len(extra.content)
        moved = sent_bytes + len(run.output) + sample_bytes
        transfer_s = max(0.0, run.elapsed_s - run.compute_s)
        self._estimates.saw_device_run(
            facts.device,
            variant,
            before=DevicePair(facts.compute, facts.energy),
            compute_s=run.compute_s,
            energy_uj=max(0.0, run.energy_uj - (sample_bytes if by_sensor else moved) * RADIO_UJ_PER_BYTE),
        )
        if run.elapsed_s > 0.0:  # what nobody asked for tells nothing about the way
            self._estimates.saw_transfer(facts.device, byte_count=moved, elapsed_s=transfer_s)
        measured = Measured(
            total_s=0.0, transfer_s=transfer_s, compute_s=run.compute_s, energy_uj=run.energy_uj, link_bytes=moved
        )
        output = Tensor(spec.name, spec.dtype, spec.shape, run.output)
        return Ran(variant, (output,), measured, run.sample if by_sensor else None)

    async def _sample(self, source: Source, *, timeout_s: float) -> SampleResult:
        device = source.view.id
        sample = await self._guarded(
            device, lambda link: link.read_sensor(device, sensor=source.index, timeout_s=timeout_s)
        )
        due = source.sensor.spec.byte_count
        if len(sample.content) != due:
            raise DeviceError(f"{device} sent a sample of {len(sample.content)} bytes where {due} were due")
        self._estimates.saw_transfer(device, byte_count=due, elapsed_s=sample.elapsed_s)
        self._estimates.saw_sample(device, sensor=source.index, sample_bytes=due, energy_uj=sample.energy_uj)
        return sample

    async def _guarded(self, device: DeviceId, ask: Callable[[DeviceLink], Awaitable[T]]) -> T:
        """Ask the device; count it as busy meanwhile, and learn when it does not answer. Raises: Overloaded, DeviceError."""
        if self._tracking.running(device) >= MAX_RUNNING:
            raise Overloaded(f"{device} has {MAX_RUNNING} requests running: try again later")
        self._tracking.began(device)
        try:
            return await ask(self._link_of(device))
        except DeviceTimeout:
            self._estimates.saw_failure(device)
            raise
        finally:
            self._tracking.ended(device)


def _below(unsure_below: float | None, variant: Variant, source: Source | None, device: DeviceId) -> bytes | None:
    """Return the threshold as the device stores its first output; None when it is not to send the sample, or cannot."""
    if unsure_below is None or source is None or source.view.id != device or not returns(source):
        return None
    spec = variant.structure.outputs[0]
    if spec.dtype is DType.FP32:
        return struct.pack("<f", unsure_below)
    scale, zero = (spec.quantization.scale, spec.quantization.zero_point) if spec.quantization else (1.0, 0)
    return struct.pack("<i", max(-_MOST_I32, min(_MOST_I32, math.ceil(unsure_below / scale + zero))))


def returns(source: Source) -> bool:
    """Return whether the device sends samples of that sensor with its answers."""
    report = source.view.report
    return report is not None and report.capabilities.returns_bytes >= source.sensor.spec.byte_count


def _parted(run: RunResult, output_bytes: int) -> tuple[RunResult, SampleResult | None]:
    """Part the output from the sample behind it; what the sample cost is in the run's own figures."""
    if not run.has_sample:
        return run, None
    sample = SampleResult(run.output[output_bytes:], run.sample, 0.0, 0.0)
    return replace(run, output=run.output[:output_bytes]), sample


def _checked(sample: SampleResult | None, source: Source | None) -> SampleResult | None:
    """A sample that has not the sensor's size is none: the device is asked for a fresh one."""
    is_whole = sample is not None and source is not None and len(sample.content) == source.sensor.spec.byte_count
    return sample if is_whole else None


def _sampled(source: Source, sample: SampleResult) -> Speech:
    """Return a sample as inputs: its values mean what the sensor's description says."""
    spec = source.sensor.spec
    return Speech((Tensor(spec.name, spec.dtype, spec.shape, sample.content),), (spec,), ())


def _stored(speech: Speech, variant: Variant) -> list[Tensor]:
    """Re-express inputs as the variant stores them."""
    return [
        converted(tensor, source=spoken.quantization, target=spec)
        for tensor, spoken, spec in zip(speech.inputs, speech.input_specs, variant.structure.inputs, strict=True)
    ]
