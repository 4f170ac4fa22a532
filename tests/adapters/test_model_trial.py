import asyncio
import hashlib
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.model_trial import ModelTrials, TrialLimits
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.core.engine import EngineSpec
from gatewayd.core.model import Place, Structure, Trial, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.selftest import matches, self_test_input
from gatewayd.core.tensor import DType
from gatewayd.core.tflm import OPERATORS
from gatewayd.wire.tflite import read_model
from gatewayd.wire.tflite_ops import OPERATOR_NAMES
from tests import tiny_models
from tests.engine_environments import LITERT, TFLM, require_engine

_NO_TFLM = EngineSpec("tflm", "/nowhere/python")
_LIMITS = TrialLimits(engine_s=20.0)


def _trials(folder: Path, *engines: EngineSpec, device: EngineSpec | None = TFLM) -> ModelTrials:
    return ModelTrials(lambda digest: folder / digest, engines, device_engine=device, limits=_LIMITS)


def _store(folder: Path, content: bytes) -> Digest:
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    return digest


async def _try(trials: ModelTrials, folder: Path, content: bytes, structure: Structure | None = None) -> Trial:
    return await trials.try_model(_store(folder, content), structure or read_model(content))


def _verdict(trial: Trial, place: Place) -> Verdict:
    (found,) = (verdict for verdict in trial.verdicts if verdict.place is place)
    return found


async def test_a_good_model_runs_everywhere_and_is_measured(tmp_path: Path) -> None:
    require_engine("tflm")
    trial = await _try(_trials(tmp_path, require_engine("litert")), tmp_path, tiny_models.int8_model())
    node, device = _verdict(trial, Place.NODE), _verdict(trial, Place.DEVICE)
    assert (node.engine, node.runs) == ("litert", True)
    assert node.latency_s is not None
    assert 0 < node.latency_s < 1
    assert (device.engine, device.runs, device.latency_s) == ("tflm", True, None)
    assert trial.arena_bytes is not None
    assert 64 + 4 < trial.arena_bytes < 8192  # input and output at least
    assert trial.self_test is not None
    assert (len(trial.self_test.expected), trial.self_test.tolerance) == (4, 2)


@pytest.mark.parametrize("name", ["int8", "float"])
async def test_the_self_test_passes_on_another_engine_and_fails_on_another_model(tmp_path: Path, name: str) -> None:
    require_engine("tflm")
    content = tiny_models.ALL[name]()
    trial = await _try(_trials(tmp_path), tmp_path, content)
    assert trial.self_test is not None
    (spec,) = read_model(content).inputs
    worker = await WorkerProcess.start(require_engine("litert"), memory_limit_bytes=None, start_timeout_s=20)
    await worker.load(tmp_path / _store(tmp_path, content), timeout_s=20)
    given = self_test_input(trial.self_test.seed, spec.byte_count, spec.dtype)
    right = await worker.invoke([given], timeout_s=20)
    wrong = await worker.invoke([bytes(spec.byte_count)], timeout_s=20)
    await worker.close()
    assert matches(trial.self_test.expected, right.outputs[0], trial.self_test.tolerance, spec.dtype)
    assert not matches(trial.self_test.expected, wrong.outputs[0], trial.self_test.tolerance, spec.dtype)


async def test_an_operator_only_the_node_has_is_a_verdict(tmp_path: Path) -> None:
    require_engine("tflm")
    trial = await _try(_trials(tmp_path, require_engine("litert")), tmp_path, tiny_models.node_only_model())
    assert _verdict(trial, Place.NODE).runs
    device = _verdict(trial, Place.DEVICE)
    assert not device.runs
    assert "Didn't find op for builtin opcode 'POW'" in device.reason
    assert (trial.arena_bytes, trial.self_test) == (None, None)


async def test_a_broken_file_is_refused_everywhere(tmp_path: Path) -> None:
    content = tiny_models.int8_model()
    broken = content[: len(content) // 2]
    trials = _trials(tmp_path, require_engine("litert"), device=require_engine("tflm"))
    trial = await _try(trials, tmp_path, broken, read_model(content))
    assert [verdict.runs for verdict in trial.verdicts] == [False, False]
    assert all(verdict.reason for verdict in trial.verdicts)


async def test_a_death_is_a_verdict_with_the_signal(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho boom >&2\nkill -ABRT $$\n")
    script.chmod(0o755)
    trials = _trials(tmp_path, EngineSpec("litert", str(script)), device=EngineSpec("tflm", str(script)))
    trial = await _try(trials, tmp_path, tiny_models.int8_model())
    for verdict in trial.verdicts:
        assert not verdict.runs
        assert "died of SIGABRT; last words:\nboom" in verdict.reason


async def test_a_missing_engine_is_a_verdict(tmp_path: Path) -> None:
    trials = _trials(tmp_path, EngineSpec("litert", "/nowhere/python"), device=None)
    trial = await _try(trials, tmp_path, tiny_models.int8_model())
    (verdict,) = trial.verdicts
    assert (verdict.runs, verdict.place) == (False, Place.NODE)
    assert "cannot start /nowhere/python" in verdict.reason


async def test_without_tflm_the_operators_are_read(tmp_path: Path) -> None:
    trials = _trials(tmp_path, device=_NO_TFLM)
    known = _verdict(await _try(trials, tmp_path, tiny_models.int8_model()), Place.DEVICE)
    unknown = _verdict(await _try(trials, tmp_path, tiny_models.node_only_model()), Place.DEVICE)
    assert known.runs
    assert "were not measured" in known.reason
    assert not unknown.runs
    assert "has no POW" in unknown.reason


async def test_another_structure_than_the_file_has_is_refused(tmp_path: Path) -> None:
    structure = read_model(tiny_models.int8_model())
    wrong = replace(structure, inputs=(replace(structure.inputs[0], dtype=DType.UINT8),))
    trials = _trials(tmp_path, require_engine("litert"), device=None)
    trial = await _try(trials, tmp_path, tiny_models.int8_model(), wrong)
    assert "the engine sees inputs INT8[1, 64], the file says UINT8[1, 64]" in trial.verdicts[0].reason


async def test_inputs_beyond_the_limit_are_refused_without_making_them(tmp_path: Path) -> None:
    structure = read_model(tiny_models.float_model())
    vast = replace(structure, inputs=(replace(structure.inputs[0], shape=(2**40,)),))
    async with asyncio.timeout(2):
        trial = await _try(_trials(tmp_path, LITERT), tmp_path, tiny_models.float_model(), vast)
    assert [verdict.runs for verdict in trial.verdicts] == [False, False]
    assert "at most 16777216 are tried" in trial.verdicts[0].reason


async def test_a_vast_input_is_tried_and_gives_no_self_test(tmp_path: Path) -> None:
    content = tiny_models.hungry_model(600_000)
    structure = read_model(content)
    trials = _trials(tmp_path, require_engine("litert"), device=require_engine("tflm"))
    trial = await _try(trials, tmp_path, content, structure)
    assert [each.runs for each in trial.verdicts] == [True, True]
    assert trial.self_test is None


async def test_an_engine_that_never_comes_to_an_end_is_a_verdict(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    trials = ModelTrials(
        lambda digest: tmp_path / digest,
        [EngineSpec("litert", str(script))],
        device_engine=None,
        limits=TrialLimits(engine_s=0.2),
    )
    trial = await _try(trials, tmp_path, tiny_models.int8_model())
    assert not trial.verdicts[0].runs
    assert "0.2 s" in trial.verdicts[0].reason


async def test_what_was_compiled_for_an_accelerator_is_for_devices_only(tmp_path: Path) -> None:
    content = tiny_models.int8_model()
    structure = replace(read_model(content), accelerator="ethos-u")
    trials = _trials(tmp_path, EngineSpec("litert", "/nowhere/python"), device=TFLM)
    trial = await _try(trials, tmp_path, content, structure)
    assert [(each.place, each.engine, each.runs) for each in trial.verdicts] == [
        (Place.NODE, "litert", False), (Place.DEVICE, "ethos-u", True),
    ]  # fmt: skip
    assert "no engine here can try it" in trial.verdicts[1].reason


@pytest.mark.parametrize("layer", ["SIN", "L2_POOL_2D"])
async def test_without_tflm_the_types_are_read_and_agree_with_it(tmp_path: Path, layer: str) -> None:
    content = pytest.importorskip("bench.networks").single(layer, "INT8", 1)
    read = _verdict(await _try(_trials(tmp_path, device=_NO_TFLM), tmp_path, content), Place.DEVICE)
    assert not read.runs
    assert f"{layer} takes FLOAT32, not INT8" in read.reason
    tried = _verdict(await _try(_trials(tmp_path, device=require_engine("tflm")), tmp_path, content), Place.DEVICE)
    assert not tried.runs


async def test_a_model_that_remembers_runs_again_and_again_everywhere(tmp_path: Path) -> None:
    content = pytest.importorskip("bench.networks").single("STREAM", "FLOAT32", 1)
    trials = _trials(tmp_path, require_engine("litert"), device=require_engine("tflm"))
    trial = await _try(trials, tmp_path, content)
    assert all(each.runs for each in trial.verdicts)
    forecast = read_model(content).forecast
    assert forecast is not None
    assert forecast.host_bytes == trial.arena_bytes


async def test_a_worker_holds_no_socket_but_its_channel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(server.fileno(), True)  # noqa: FBT003 # the call has no name for it
        worker = await WorkerProcess.start(require_engine("litert"), memory_limit_bytes=None, start_timeout_s=20)
        held = _held_by(worker.pid)
        await worker.close()
    assert len([each for each in held if each.startswith("socket:")]) == 1


def _held_by(pid: int) -> list[str]:
    return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def test_the_operators_are_known_by_their_names_in_files() -> None:
    assert set(OPERATOR_NAMES) >= OPERATORS
