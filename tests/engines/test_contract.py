"""What every engine must do, the same on each that is here: LiteRT, TFLM, tflite-runtime and OpenVINO in environments
of their own."""

import asyncio
import os
import random
import signal
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gatewayd.adapters.worker_process import LoadedModel, WorkerProcess
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import BadRequest, DeadlineExceeded, GatewayError, ModelRefused, WorkerDied
from gatewayd.core.selftest import self_test_input
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.wire.tflite import read_model
from tests import tiny_models
from tests.engine_environments import require_engine

_MEMORY_BYTES = 256 * 1024 * 1024
_OPENVINO_BYTES = 768 * 1024 * 1024  # its libraries alone map more than the other engines and their models together
_PATIENCE_S = 20.0


@pytest.fixture(params=["litert", "tflite-runtime", "tflm", "openvino"])
def spec(request: pytest.FixtureRequest) -> EngineSpec:
    return require_engine(str(request.param))


async def _start(spec: EngineSpec, *, memory_limit_bytes: int | None = _MEMORY_BYTES) -> WorkerProcess:
    if spec.name == "openvino" and memory_limit_bytes is not None:
        memory_limit_bytes = max(memory_limit_bytes, _OPENVINO_BYTES)
    return await WorkerProcess.start(spec, memory_limit_bytes=memory_limit_bytes, start_timeout_s=_PATIENCE_S)


@pytest_asyncio.fixture
async def worker(spec: EngineSpec) -> AsyncIterator[WorkerProcess]:
    running = await _start(spec)
    yield running
    await running.close()


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    for name, make in tiny_models.ALL.items():
        (tmp_path / name).write_bytes(make())
    return {name: tmp_path / name for name in tiny_models.ALL}


def _as_told(loaded: LoadedModel, spec: EngineSpec) -> LoadedModel:
    """OpenVINO makes quantisation part of the graph and does not tell it; what callers are promised comes from the file."""
    if spec.name != "openvino":
        return loaded
    inputs, outputs = (tuple(replace(each, quantization=None) for each in specs) for specs in loaded_specs(loaded))
    return LoadedModel(inputs, outputs)


def loaded_specs(loaded: LoadedModel) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    return loaded.inputs, loaded.outputs


def _inputs(loaded: LoadedModel, seed: int = 1) -> list[bytes]:
    return [self_test_input(seed + index, spec.byte_count, spec.dtype) for index, spec in enumerate(loaded.inputs)]


def _int8_answer(content: bytes) -> list[float]:
    """The exact real answer of the int8 model, in stored units and not yet rounded."""
    weights, inputs = tiny_models.int8_weights(), struct.unpack("<64b", content)
    sums = [
        sum(w * (x - 3) for w, x in zip(weights[row * 64 : row * 64 + 64], inputs, strict=True)) for row in range(4)
    ]
    return [(total + 100 * row) / 8192 * 8 - 5 for row, total in enumerate(sums)]


async def test_it_says_what_it_is(worker: WorkerProcess, spec: EngineSpec) -> None:
    assert worker.engine_version[0].isdigit()
    assert worker.spec is spec
    assert not worker.died


async def test_specs_of_a_quantised_model(worker: WorkerProcess, models: dict[str, Path]) -> None:
    loaded = await worker.load(models["int8"], timeout_s=_PATIENCE_S)
    wanted = LoadedModel(
        (TensorSpec("in", DType.INT8, (1, 64), Quantization(1 / 64, 3)),),
        (TensorSpec("out", DType.INT8, (1, 4), Quantization(1 / 8, -5)),),
    )
    assert loaded == _as_told(wanted, worker.spec)


@pytest.mark.parametrize("name", ["float", "int8", "two-inputs"])
async def test_specs_are_what_reading_the_file_says(worker: WorkerProcess, models: dict[str, Path], name: str) -> None:
    loaded = await worker.load(models[name], timeout_s=_PATIENCE_S)
    structure = read_model(models[name].read_bytes())
    assert loaded == _as_told(LoadedModel(structure.inputs, structure.outputs), worker.spec)


async def test_a_float_answer_is_right(worker: WorkerProcess, models: dict[str, Path]) -> None:
    loaded = await worker.load(models["float"], timeout_s=_PATIENCE_S)
    (content,) = _inputs(loaded)
    done = await worker.invoke([content], timeout_s=_PATIENCE_S)
    values, weights = struct.unpack("<256f", content), tiny_models.float_weights()
    wanted = [row + 1 + sum(w * x for w, x in zip(weights[row * 256 :], values, strict=False)) for row in range(4)]
    assert struct.unpack("<4f", done.outputs[0]) == pytest.approx(wanted, abs=1e-4)
    assert 0 < done.compute_s < _PATIENCE_S


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_an_int8_answer_is_right_within_one_unit(
    worker: WorkerProcess, models: dict[str, Path], seed: int
) -> None:
    (content,) = _inputs(await worker.load(models["int8"], timeout_s=_PATIENCE_S), seed)
    done = await worker.invoke([content], timeout_s=_PATIENCE_S)
    wanted = [min(127.0, max(-128.0, value)) for value in _int8_answer(content)]
    assert struct.unpack("<4b", done.outputs[0]) == pytest.approx(wanted, abs=1.0)
    assert any(abs(value) < 127 for value in wanted)  # or saturation would hide a wrong answer


async def test_inputs_keep_their_order(worker: WorkerProcess, models: dict[str, Path]) -> None:
    await worker.load(models["two-inputs"], timeout_s=_PATIENCE_S)
    done = await worker.invoke([struct.pack("<2f", 1, 2), struct.pack("<2f", 10, 20)], timeout_s=_PATIENCE_S)
    assert struct.unpack("<2f", done.outputs[0]) == (11, 22)


async def test_many_calls_on_their_way_come_back_to_who_asked(worker: WorkerProcess, models: dict[str, Path]) -> None:
    await worker.load(models["two-inputs"], timeout_s=_PATIENCE_S)
    calls = [worker.invoke([struct.pack("<2f", n, 0), bytes(8)], timeout_s=_PATIENCE_S) for n in range(50)]
    answers = await asyncio.gather(*calls)
    assert [struct.unpack("<2f", answer.outputs[0])[0] for answer in answers] == list(range(50))


async def test_another_model_takes_the_place_of_the_first(worker: WorkerProcess, models: dict[str, Path]) -> None:
    await worker.load(models["float"], timeout_s=_PATIENCE_S)
    loaded = await worker.load(models["int8"], timeout_s=_PATIENCE_S)
    done = await worker.invoke(_inputs(loaded), timeout_s=_PATIENCE_S)
    assert len(done.outputs[0]) == 4


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([bytes(63)], r"input 0 \('in'\): INT8 of shape \[1, 64\] is 64 bytes, got 63"),
        ([bytes(65)], "is 64 bytes, got 65"),
        ([], "takes 1 inputs, got 0"),
        ([bytes(64)] * 2, "takes 1 inputs, got 2"),
    ],
)
async def test_wrong_inputs_are_told_and_do_no_harm(
    worker: WorkerProcess, models: dict[str, Path], inputs: list[bytes], message: str
) -> None:
    loaded = await worker.load(models["int8"], timeout_s=_PATIENCE_S)
    with pytest.raises(BadRequest, match=message):
        await worker.invoke(inputs, timeout_s=_PATIENCE_S)
    assert await worker.invoke(_inputs(loaded), timeout_s=_PATIENCE_S)


async def test_what_is_no_model_is_refused(worker: WorkerProcess, tmp_path: Path, models: dict[str, Path]) -> None:
    (tmp_path / "text").write_bytes(b"this is no model at all, only a sentence of some length" * 5)
    with pytest.raises(ModelRefused, match=worker.spec.name):
        await worker.load(tmp_path / "text", timeout_s=_PATIENCE_S)
    with pytest.raises(ModelRefused):
        await worker.load(tmp_path / "missing", timeout_s=_PATIENCE_S)
    assert await worker.load(models["int8"], timeout_s=_PATIENCE_S)


async def test_a_corrupted_model_harms_nothing_but_its_worker(
    spec: EngineSpec, worker: WorkerProcess, models: dict[str, Path]
) -> None:
    inputs = _inputs(await worker.load(models["int8"], timeout_s=_PATIENCE_S))
    for seed in range(4):
        broken = models["int8"].with_name(f"broken-{seed}")
        broken.write_bytes(_corrupted(models["int8"].read_bytes(), seed))
        victim = await _start(spec)
        with suppress(ModelRefused, WorkerDied, DeadlineExceeded, BadRequest):  # or it runs, and answers nonsense
            await victim.load(broken, timeout_s=5)
            await victim.invoke(inputs, timeout_s=5)
        await victim.close()
        assert await worker.invoke(inputs, timeout_s=_PATIENCE_S)


def _corrupted(content: bytes, seed: int) -> bytes:
    """Change a dozen bytes, and cut the end off every other time."""
    changed = bytearray(content)
    chance = random.Random(seed)  # noqa: S311 # the same corruption every time is wanted
    for _ in range(12):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: len(changed) - (seed % 2) * 300])


async def _kill_when_called(worker: WorkerProcess, number: signal.Signals) -> None:
    os.kill(worker.pid, number)


async def test_a_kill_in_mid_call_is_told_to_everybody_who_waits(
    worker: WorkerProcess, models: dict[str, Path]
) -> None:
    inputs = _inputs(await worker.load(models["int8"], timeout_s=_PATIENCE_S))
    os.kill(worker.pid, signal.SIGSTOP)  # so that the calls are surely in the middle when it dies
    calls = [worker.invoke(inputs, timeout_s=_PATIENCE_S) for _ in range(3)]
    *answers, _ = await asyncio.gather(*calls, _kill_when_called(worker, signal.SIGKILL), return_exceptions=True)
    assert [type(answer) for answer in answers] == [WorkerDied] * 3
    assert "SIGKILL" in str(answers[0])
    assert worker.died
    with pytest.raises(WorkerDied, match="SIGKILL"):
        await worker.invoke(inputs, timeout_s=_PATIENCE_S)


async def test_a_crash_names_its_signal(worker: WorkerProcess) -> None:
    os.kill(worker.pid, signal.SIGSEGV)
    assert "SIGSEGV" in await asyncio.wait_for(worker.wait_died(), _PATIENCE_S)


async def test_a_hang_past_the_deadline_is_killed(worker: WorkerProcess, models: dict[str, Path]) -> None:
    inputs = _inputs(await worker.load(models["int8"], timeout_s=_PATIENCE_S))
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded, match=r"did not invoke within 0.1 s and was killed"):
        await worker.invoke(inputs, timeout_s=0.1)
    assert "was killed" in await asyncio.wait_for(worker.wait_died(), _PATIENCE_S)
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


async def test_the_memory_limit_stops_a_model_that_wants_more(spec: EngineSpec, tmp_path: Path) -> None:
    hungry = tmp_path / "hungry"
    hungry.write_bytes(tiny_models.hungry_model())
    limited = await _start(spec)
    with pytest.raises((ModelRefused, WorkerDied)):
        await limited.load(hungry, timeout_s=_PATIENCE_S)
    await limited.close()


@pytest.mark.parametrize("name", ["litert", "tflite-runtime"])
async def test_it_is_the_limit_that_stops_it(name: str, tmp_path: Path) -> None:
    hungry = tmp_path / "hungry"
    hungry.write_bytes(tiny_models.hungry_model(2**24))
    for limit, is_enough in ((_MEMORY_BYTES, False), (None, True)):
        worker = await _start(require_engine(name), memory_limit_bytes=limit)
        try:
            await worker.load(hungry, timeout_s=_PATIENCE_S)
            assert is_enough
        except GatewayError:
            assert not is_enough
        finally:
            await worker.close()


async def test_engines_agree_within_one_unit(models: dict[str, Path]) -> None:
    answers = {}
    for name in ("litert", "tflite-runtime", "tflm", "openvino"):
        try:
            spec = require_engine(name)
        except pytest.skip.Exception:
            continue
        worker = await _start(spec)
        loaded = await worker.load(models["int8"], timeout_s=_PATIENCE_S)
        done = await worker.invoke(_inputs(loaded, 5), timeout_s=_PATIENCE_S)
        answers[name] = struct.unpack("<4b", done.outputs[0])
        await worker.close()
    if len(answers) < 2:
        pytest.skip(f"nothing to compare: only {list(answers)} here")
    first, *others = answers.values()
    assert all(abs(a - b) <= 1 for other in others for a, b in zip(first, other, strict=True)), answers
