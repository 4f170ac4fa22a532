""".onnx models: ONNX Runtime and OpenVINO, each in an environment of its own, and their admission."""

import hashlib
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.model_trial import ModelTrials
from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import EngineMissing, ModelRefused
from gatewayd.core.model import Variant
from gatewayd.core.names import Digest
from gatewayd.core.selftest import self_test_input
from gatewayd.core.tensor import DType, Tensor, TensorSpec
from tests import tiny_models, tiny_onnx
from tests.engine_environments import LITERT, require_engine

_PATIENCE_S = 20.0
_INPUT = TensorSpec("in", DType.FP32, (1, 256))


@pytest.fixture(params=["onnxruntime", "openvino"])
def spec(request: pytest.FixtureRequest) -> EngineSpec:
    return require_engine(str(request.param))


async def _start(spec: EngineSpec) -> WorkerProcess:
    return await WorkerProcess.start(spec, memory_limit_bytes=None, start_timeout_s=_PATIENCE_S)


def _stored(folder: Path, content: bytes) -> Digest:
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    return digest


def _wanted(content: bytes) -> list[float]:
    values, weights = struct.unpack("<256f", content), tiny_models.float_weights()
    return [row + 1 + sum(w * x for w, x in zip(weights[row * 256 :], values, strict=False)) for row in range(4)]


@pytest.mark.parametrize("batch", [1, "N"])
async def test_an_answer_is_right_and_an_open_batch_is_one(spec: EngineSpec, tmp_path: Path, batch: int | str) -> None:
    (tmp_path / "model").write_bytes(tiny_onnx.float_model(batch=batch))
    worker = await _start(spec)
    loaded = await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    assert loaded.inputs == (_INPUT,)
    assert loaded.outputs == (TensorSpec("out", DType.FP32, (1, 4)),)
    content = self_test_input(3, 1024, DType.FP32)
    done = await worker.invoke([content], timeout_s=_PATIENCE_S)
    assert struct.unpack("<4f", done.outputs[0]) == pytest.approx(_wanted(content), abs=1e-4)
    await worker.close()


async def test_what_is_no_model_is_refused(spec: EngineSpec, tmp_path: Path) -> None:
    worker = await _start(spec)
    for content in (b"\x08\x08 and then nothing of sense", tiny_onnx.float_model()[:-40]):
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(ModelRefused):
            await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    await worker.close()


async def test_providers_that_are_not_here_give_way_to_those_that_are(tmp_path: Path) -> None:
    jetson = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    (tmp_path / "model").write_bytes(tiny_onnx.float_model())
    worker = await _start(replace(require_engine("onnxruntime"), providers=jetson))
    assert "CPUExecutionProvider" in worker.devices
    assert await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    await worker.close()


async def test_without_any_of_its_providers_the_engine_is_missing() -> None:
    with pytest.raises(EngineMissing, match=r"has none of RocketExecutionProvider; it has .*CPUExecutionProvider"):
        await _start(replace(require_engine("onnxruntime"), providers=("RocketExecutionProvider",)))


async def test_openvinos_devices(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(tiny_models.float_model())
    worker = await _start(replace(require_engine("openvino"), device="CPU"))
    assert "CPU" in worker.devices
    assert await worker.load(tmp_path / "model", timeout_s=_PATIENCE_S)
    await worker.close()
    with pytest.raises(EngineMissing, match=r"OpenVINO sees no device MYRIAD; it sees CPU"):
        await _start(replace(require_engine("openvino"), device="MYRIAD"))


async def test_admission_reads_through_an_engine_and_the_fastest_runs_it(tmp_path: Path) -> None:
    engines = (LITERT, require_engine("onnxruntime"), require_engine("openvino"))
    trials = ModelTrials(lambda digest: tmp_path / digest, engines)
    digest = _stored(tmp_path, tiny_onnx.float_model(batch="N"))
    structure = await trials.describe(digest)
    assert structure.inputs == (_INPUT,)
    trial = await trials.try_model(digest, structure)
    by_engine = {verdict.engine: verdict for verdict in trial.verdicts}
    assert by_engine["litert"].reason == "litert does not read onnx files"
    assert by_engine["onnxruntime"].runs
    assert by_engine["openvino"].runs
    variant = Variant("onnx-float32", digest, 1, structure, trial.verdicts)
    best = min((v for v in trial.verdicts if v.runs), key=lambda v: v.latency_s or 0.0)
    limits = replace(WorkerLimits(), memory_limit_bytes=None)
    async with Workers(lambda digest: tmp_path / digest, engines, clock=time.monotonic, limits=limits) as workers:
        tensor = Tensor("in", DType.FP32, (1, 256), bytes(1024))
        assert (await workers.run(variant, (tensor,), timeout_s=_PATIENCE_S)).engine == best.engine


async def test_without_an_engine_for_it_an_onnx_file_is_refused_with_what_to_install(tmp_path: Path) -> None:
    trials = ModelTrials(lambda digest: tmp_path / digest, (LITERT,))
    with pytest.raises(EngineMissing, match="no engine of this node reads onnx files: add onnxruntime or openvino"):
        await trials.describe(_stored(tmp_path, tiny_onnx.float_model()))
