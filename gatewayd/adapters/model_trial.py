"""The trial of a model file: load and run it, on every engine present, in processes made for it. What happens is a verdict.

Several runs per engine, since a model is known that kills both node runtimes only when it is invoked again.
"""

import asyncio
import math
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median

from gatewayd.adapters.worker_answers import check_promised
from gatewayd.adapters.worker_process import MEMORY_LIMIT_BYTES, WorkerProcess
from gatewayd.core.engine import EngineSpec, Format, format_of
from gatewayd.core.errors import EngineMissing, GatewayError, ModelRefused
from gatewayd.core.model import Place, SelfTest, Structure, Trial, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.core.selftest import matches, self_test_input
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.core.tflm import OPERATORS

_SEED = 1
_EXPECTED_BYTES = 256  # of the first output, so that the offer of a module stays under 1 KB
_MADE_BYTES = (
    1024 * 1024
)  # of an input, then repeated: making 1 MiB takes 0.3 s, and no microcontroller holds that much
_TOLERANCE = 2  # stored units: kernels round differently, by ±1 in a few % of the elements of an 8-bit output
_FLOAT_TOLERANCE = 1  # FLOAT_UNIT, 1e-3: float kernels differ by about 1e-5


@record
class TrialLimits:
    """What a trial may take. `engine_s` bounds everything on one engine, `input_bytes` what is made up for all inputs."""

    memory_limit_bytes: int | None = MEMORY_LIMIT_BYTES
    engine_s: float = 30.0
    runs: int = 10
    input_bytes: int = 16 * 1024 * 1024
    arena_bytes: int = 16 * 1024 * 1024


class ModelTrials:
    """Tries stored artifacts. `engines` are the node's; `device_engine` stands for what runs on devices (None: do not try)."""

    def __init__(
        self,
        artifact_path: Callable[[Digest], Path],
        engines: Sequence[EngineSpec],
        *,
        device_engine: EngineSpec | None = EngineSpec("tflm"),  # noqa: B008 # a frozen value
        limits: TrialLimits | None = None,
    ) -> None:
        self._artifact_path = artifact_path
        self._engines = tuple(engines)
        self._device_engine = device_engine
        self._limits = limits or TrialLimits()

    async def try_model(self, digest: Digest, structure: Structure) -> Trial:
        """Try the artifact on one engine after the other.

        Never raises for a bad model: each engine's refusal, death or absence is a verdict with its reason.
        """
        wanted_bytes = sum(spec.byte_count for spec in structure.inputs)
        if wanted_bytes > self._limits.input_bytes:
            return self._refuse_all(f"inputs of {wanted_bytes} bytes; at most {self._limits.input_bytes} are tried")
        path = self._artifact_path(digest)
        inputs = await asyncio.to_thread(_make_inputs, structure)
        kind = await asyncio.to_thread(_format, path)
        verdicts = [
            await self._try_on_node(spec, path, structure, inputs)
            if spec.reads(kind)
            else Verdict(Place.NODE, spec.label, runs=False, reason=f"{spec.label} does not read {kind.value} files")
            for spec in self._engines
        ]
        if kind is not Format.TFLITE:
            return Trial(tuple(verdicts), None, None)
        on_device = await self._try_for_device(path, structure, inputs)
        return Trial((*verdicts, *on_device.verdicts), on_device.arena_bytes, on_device.self_test)

    async def describe(self, digest: Digest) -> Structure:
        """Return what an engine says of a file that only engines can read: its tensors; operators and size stay unknown.

        Raises: ModelRefused with each engine's reason; EngineMissing when no engine here reads such files.
        """
        path = self._artifact_path(digest)
        kind = await asyncio.to_thread(_format, path)
        reasons = []
        for spec in self._engines:
            if not spec.reads(kind):
                continue
            try:
                async with asyncio.timeout(self._limits.engine_s), self._worker(spec) as worker:
                    loaded = await worker.load(path, timeout_s=self._limits.engine_s)
                    return Structure((), loaded.inputs, loaded.outputs, 0, 0)
            except GatewayError as error:
                reasons.append(str(error))
            except TimeoutError:
                reasons.append(self._too_slow())
        if not reasons:
            raise EngineMissing(
                f"no engine of this node reads {kind.value} files: add onnxruntime or openvino to `engines`"
            )
        raise ModelRefused("; ".join(reasons))

    def _refuse_all(self, reason: str) -> Trial:
        verdicts = [Verdict(Place.NODE, spec.label, runs=False, reason=reason) for spec in self._engines]
        if self._device_engine is not None:
            verdicts.append(Verdict(Place.DEVICE, self._device_engine.name, runs=False, reason=reason))
        return Trial(tuple(verdicts), None, None)

    async def _try_on_node(self, spec: EngineSpec, path: Path, structure: Structure, inputs: list[bytes]) -> Verdict:
        try:
            async with asyncio.timeout(self._limits.engine_s), self._worker(spec) as worker:
                check_promised(await worker.load(path, timeout_s=self._limits.engine_s), structure)
                _, latency_s = await self._run(worker, inputs)
        except GatewayError as error:
            return Verdict(Place.NODE, spec.label, runs=False, reason=str(error))
        except TimeoutError:
            return Verdict(Place.NODE, spec.label, runs=False, reason=self._too_slow())
        reason = f"{spec.label} {worker.engine_version}: median of {self._limits.runs} runs"
        return Verdict(Place.NODE, spec.label, runs=True, reason=reason, latency_s=latency_s)

    async def _try_for_device(self, path: Path, structure: Structure, inputs: list[bytes]) -> Trial:
        spec = self._device_engine
        if spec is None:
            return Trial((), None, None)
        if structure.accelerator:
            return Trial((_trust_compiler(structure.accelerator),), None, None)
        try:
            async with asyncio.timeout(self._limits.engine_s), self._worker(spec) as worker:
                return await self._measure_for_device(worker, path, structure, inputs)
        except EngineMissing as error:
            return Trial((_judge_operators(structure, spec.name, str(error)),), None, None)
        except GatewayError as error:
            return Trial((Verdict(Place.DEVICE, spec.name, runs=False, reason=str(error)),), None, None)
        except TimeoutError:
            return Trial((Verdict(Place.DEVICE, spec.name, runs=False, reason=self._too_slow()),), None, None)

    async def _measure_for_device(
        self, worker: WorkerProcess, path: Path, structure: Structure, inputs: list[bytes]
    ) -> Trial:
        limits = self._limits
        arena_bytes = await worker.measure_arena(path, max_bytes=limits.arena_bytes, timeout_s=limits.engine_s)
        loaded = await worker.load(path, arena_bytes=arena_bytes, timeout_s=limits.engine_s)
        check_promised(loaded, structure)
        first_output, _ = await self._run(worker, inputs)
        reason = f"{worker.spec.name} {worker.engine_version}: runs in an arena of {arena_bytes} bytes"
        verdict = Verdict(Place.DEVICE, worker.spec.name, runs=True, reason=reason)
        test = _make_self_test(first_output, loaded.outputs[0].dtype) if _has_self_test(structure) else None
        return Trial((verdict,), arena_bytes, test)

    async def _run(self, worker: WorkerProcess, inputs: list[bytes]) -> tuple[bytes, float]:
        """Return the first output of the first run, and the median of the seconds all took."""
        runs = [await worker.invoke(inputs, timeout_s=self._limits.engine_s) for _ in range(self._limits.runs)]
        return runs[0].outputs[0] if runs[0].outputs else b"", median(each.compute_s for each in runs)

    @asynccontextmanager
    async def _worker(self, spec: EngineSpec) -> AsyncIterator[WorkerProcess]:
        limits = self._limits
        worker = await WorkerProcess.start(
            spec, memory_limit_bytes=limits.memory_limit_bytes, start_timeout_s=limits.engine_s
        )
        try:
            # Beside the clock: a model that spins in many threads burns no more than this.
            cpu_s = math.ceil(limits.engine_s) + 1
            with suppress(ProcessLookupError):  # it died at once: the first call tells of what
                resource.prlimit(worker.pid, resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
            yield worker
        finally:
            await worker.close()

    def _too_slow(self) -> str:
        return f"loading and {self._limits.runs} runs took more than {self._limits.engine_s:g} s"


def _format(path: Path) -> Format:
    try:
        with path.open("rb") as file:
            return format_of(file.read(8))
    except OSError:
        return Format.TFLITE  # each engine says in its own words what is wrong with the file


def _make_inputs(structure: Structure) -> list[bytes]:
    return [_make_input(_SEED + index, spec) for index, spec in enumerate(structure.inputs)]


def _make_input(seed: int, spec: TensorSpec) -> bytes:
    made = self_test_input(seed, min(spec.byte_count, _MADE_BYTES), spec.dtype)
    return (made * -(-spec.byte_count // _MADE_BYTES))[: spec.byte_count] if spec.byte_count > _MADE_BYTES else made


def _has_self_test(structure: Structure) -> bool:
    """An input that repeats itself is not what a device would generate."""
    return all(spec.byte_count <= _MADE_BYTES for spec in structure.inputs)


def _make_self_test(output: bytes, dtype: DType) -> SelfTest | None:
    """Return the test, or None when the output could never match (nothing, or what is not a number)."""
    expected = output[:_EXPECTED_BYTES]
    tolerance = _FLOAT_TOLERANCE if dtype is DType.FP32 else _TOLERANCE
    if not matches(expected, expected, tolerance, dtype):
        return None
    return SelfTest(_SEED, expected, tolerance)


def _trust_compiler(accelerator: str) -> Verdict:
    """What was compiled for an accelerator runs on nothing else; its devices try it before they use it."""
    reason = f"compiled for {accelerator}: runs on devices that have it, no engine here can try it"
    return Verdict(Place.DEVICE, accelerator, runs=True, reason=reason)


def _judge_operators(structure: Structure, engine: str, why_not_run: str) -> Verdict:
    unknown = sorted({operator.name for operator in structure.operators} - OPERATORS)
    objections = structure.forecast.objections if structure.forecast else tuple(f"has no {name}" for name in unknown)
    if objections:
        reason = f"TensorFlow Lite Micro {'; '.join(objections)} (read from the file, not run: {why_not_run})"
        return Verdict(Place.DEVICE, engine, runs=False, reason=reason)
    reason = f"every operator is one TensorFlow Lite Micro has; arena and output were not measured: {why_not_run}"
    return Verdict(Place.DEVICE, engine, runs=True, reason=reason)
