"""Answers that count as right, from the real engines that are installed here."""

import struct
from pathlib import Path

import pytest

from gatewayd.adapters.artifacts import open_artifacts
from gatewayd.adapters.reference_runs import EngineRuns
from gatewayd.adapters.worker_process import EngineSpec
from gatewayd.core.errors import EngineMissing, GatewayError
from gatewayd.core.selftest import matches
from gatewayd.core.tensor import DType
from gatewayd.wire.tflite import read_model
from tests.engine_environments import LITERT, TFLM, require_engine
from tests.tiny_models import FLOAT_INPUTS, float_model, float_weights, node_only_model

INPUTS = [struct.pack(f"<{FLOAT_INPUTS}f", *([value] * FLOAT_INPUTS)) for value in (0.0, 0.5)]


def right_answer(value: float) -> bytes:
    weights = float_weights()
    sums = [sum(weights[row * FLOAT_INPUTS : (row + 1) * FLOAT_INPUTS]) for row in range(4)]
    return struct.pack("<4f", *(value * total + bias for total, bias in zip(sums, (1, 2, 3, 4), strict=True)))


@pytest.mark.parametrize("device_engine", [TFLM, None])
async def test_each_input_gets_its_answer(tmp_path: Path, device_engine: EngineSpec | None) -> None:
    require_engine("tflm" if device_engine else "litert")
    async with open_artifacts(tmp_path) as artifacts:
        digest = await artifacts.put(float_model())
        runs = EngineRuns(artifacts.path, [LITERT], device_engine=device_engine)
        outputs = await runs.outputs(digest, read_model(float_model()), INPUTS)
    for value, output in zip((0.0, 0.5), outputs, strict=True):
        assert matches(right_answer(value), output, 1, DType.FP32)


async def test_what_the_first_engine_refuses_the_next_may_run(tmp_path: Path) -> None:
    require_engine("tflm")
    require_engine("litert")
    async with open_artifacts(tmp_path) as artifacts:
        digest = await artifacts.put(node_only_model())
        runs = EngineRuns(artifacts.path, [LITERT])
        (output,) = await runs.outputs(digest, read_model(node_only_model()), [struct.pack("<4f", 1, 2, 3, 4)])
        assert struct.unpack("<4f", output) == pytest.approx((1, 4, 9, 16))
        with pytest.raises(GatewayError):
            await EngineRuns(artifacts.path, []).outputs(digest, read_model(node_only_model()), [bytes(16)])


async def test_no_engine_at_all(tmp_path: Path) -> None:
    async with open_artifacts(tmp_path) as artifacts:
        digest = await artifacts.put(float_model())
        with pytest.raises(EngineMissing, match="pip install ai-edge-litert"):
            await EngineRuns(artifacts.path, [], device_engine=None).outputs(digest, read_model(float_model()), INPUTS)
