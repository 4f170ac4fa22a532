"""Five hundred broken and insane files through the real admission; `make fuzz-models` takes thousands."""

from pathlib import Path

import pytest

from gatewayd.adapters.worker_process import EngineSpec
from tests.engine_environments import require_engine

fuzz_models = pytest.importorskip("bench.fuzz_models")
insane = pytest.importorskip("bench.insane")


@pytest.mark.parametrize(("first", "count", "is_node"), [(0, 420, True), (420, 80, False)], ids=["node", "device"])
async def test_admission_survives_every_file(tmp_path: Path, first: int, count: int, is_node: bool) -> None:  # noqa: FBT001 # a case
    engine: EngineSpec = require_engine("litert" if is_node else "tflm")
    numbers = range(first, first + count)
    found = await fuzz_models.fuzz(
        numbers, 20261122, tmp_path, engines=[engine] if is_node else [], device_engine=None if is_node else engine
    )
    assert sum(found.outcomes.values()) == len(numbers)
    assert found.outcomes["refused: ModelRefused"] > count // 2
    assert found.outcomes["admitted"] > count // 20
    assert found.slow == 0
    assert found.left_processes == 0
    assert found.left_descriptors <= 0  # fewer: what earlier tests left open was collected
    assert found.grown_bytes < 32 * 2**20


def test_the_same_number_and_seed_give_the_same_file() -> None:
    assert [insane.model(number, 1) for number in range(30)] == [insane.model(number, 1) for number in range(30)]
    assert insane.model(3, 1) != insane.model(3, 2)
