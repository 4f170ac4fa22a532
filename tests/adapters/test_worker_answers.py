import math

import pytest

from gatewayd.adapters.worker_answers import check_promised, read_arena, read_error, read_model
from gatewayd.core.errors import BadRequest, EngineMissing, ModelRefused, WorkerDied
from gatewayd.core.model import Structure
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.worker.framing import Frame

_SPEC: dict[str, object] = {"name": "in", "dtype": "INT8", "shape": [1, 4], "scale": 0.5, "zero_point": -3}


def test_specs_are_read() -> None:
    loaded = read_model(Frame({"inputs": [_SPEC], "outputs": [{**_SPEC, "scale": 0, "dtype": "FP32"}]}))
    assert loaded.inputs == (TensorSpec("in", DType.INT8, (1, 4), Quantization(0.5, -3)),)
    assert loaded.outputs == (TensorSpec("in", DType.FP32, (1, 4)),)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "FP8"},
        {"dtype": []},
        {"shape": "1x4"},
        {"shape": [1, -4]},
        {"shape": [True]},
        {"shape": [1] * 17},
        {"scale": math.nan},
        {"scale": "half"},
        {"scale": 10**400},
        {"zero_point": 0.5},
    ],
)
def test_a_spec_that_makes_no_sense_is_the_workers_fault(change: dict[str, object]) -> None:
    with pytest.raises(WorkerDied, match="nonsense"):
        read_model(Frame({"inputs": [{**_SPEC, **change}], "outputs": []}))


@pytest.mark.parametrize("inputs", [None, {}, [1], [_SPEC] * 65])
def test_a_list_of_specs_that_makes_no_sense_is_too(inputs: object) -> None:
    with pytest.raises(WorkerDied, match="nonsense"):
        read_model(Frame({"inputs": inputs, "outputs": []}))


def test_an_arena_must_be_a_whole_number() -> None:
    assert read_arena(Frame({"arena_bytes": 1024})) == 1024
    with pytest.raises(WorkerDied, match="nonsense"):
        read_arena(Frame({"arena_bytes": 1.5}))


@pytest.mark.parametrize(
    ("kind", "error"),
    [("engine_missing", EngineMissing), ("bad_input", BadRequest), ("model_refused", ModelRefused), (7, ModelRefused)],
)
def test_errors_keep_whose_fault_it_is(kind: object, error: type[Exception]) -> None:
    found = read_error(Frame({"error": kind, "message": "x" * 10_000}), "litert")
    assert type(found) is error
    assert len(str(found)) < 5000


def test_an_answer_without_an_error_is_none() -> None:
    assert read_error(Frame({"id": 1}), "litert") is None


def test_what_was_promised_must_be_seen() -> None:
    loaded = read_model(Frame({"inputs": [_SPEC], "outputs": []}))
    spec = TensorSpec("other name", DType.INT8, (4,))
    check_promised(loaded, Structure((), (spec,), (), 0, 0))
    with pytest.raises(ModelRefused, match=r"sees outputs none, the file says INT8\[4\]"):
        check_promised(loaded, Structure((), (spec,), (spec,), 0, 0))
