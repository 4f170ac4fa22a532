from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.adapters.worker_process import WorkerProcess
from gatewayd.core.arena import CORTEX_M, CORTEX_M_CMSIS_NN, HOST, MAX_PLANNED, predict
from gatewayd.core.graph import Graph, GraphNode, GraphTensor, Subgraph
from gatewayd.wire.tflite import read_graph, read_model
from tests.engine_environments import require_engine

networks = pytest.importorskip("bench.networks")
ROOT = Path(__file__).parents[2]
MADE_UP = [
    ("CONV_2D", "INT8"), ("FULLY_CONNECTED", "FLOAT32"), ("TRANSPOSE_CONV", "INT8"), ("SVDF", "INT8"),
    ("UNIDIRECTIONAL_SEQUENCE_LSTM", "FLOAT32"), ("STREAM", "INT8"), ("WHILE", "FLOAT32"), ("IF", "INT8"), ("MEAN", "INT8"),
    ("BATCH_MATMUL", "FLOAT32"), ("BATCH_MATMUL live", "INT8"), ("ADD_N", "INT8"),
]  # fmt: skip


def _models() -> list[tuple[str, bytes]]:
    own = [(file.stem, file.read_bytes()) for file in sorted((ROOT / "models").rglob("*.tflite"))]
    single = [(name, networks.single(name, kind, 3)) for name, kind in MADE_UP]
    chains = [(f"chain {seed} {kind}", networks.chain(kind, seed)) for seed in range(4) for kind in networks.KINDS]
    return own + single + chains


async def test_the_prediction_is_never_below_what_tflm_needs_and_hardly_above(tmp_path: Path) -> None:
    worker = await WorkerProcess.start(require_engine("tflm"), memory_limit_bytes=None, start_timeout_s=20)
    errors: dict[str, int] = {}
    try:
        for name, content in _models():
            (tmp_path / "model").write_bytes(content)
            needed = await worker.measure_arena(tmp_path / "model", max_bytes=2**22, timeout_s=60)
            predicted = predict(read_graph(content), HOST).arena_bytes
            assert predicted is not None
            errors[name] = predicted - needed
    finally:
        await worker.close()
    assert all(0 <= error <= 64 for error in errors.values()), errors
    assert list(errors.values()).count(0) > 0.8 * len(errors)


@pytest.mark.parametrize("seed", range(4))
def test_a_microcontroller_needs_less_and_faster_kernels_more(seed: int) -> None:
    graph = read_graph(networks.chain("INT8", seed))
    host, plain, fast = (predict(graph, runtime).arena_bytes for runtime in (HOST, CORTEX_M, CORTEX_M_CMSIS_NN))
    assert host is not None
    assert plain is not None
    assert fast is not None
    assert plain < host
    assert plain <= fast


def test_the_structure_carries_the_forecast() -> None:
    content = networks.single("CONV_2D", "INT8", 1)
    forecast = read_model(content).forecast
    assert forecast is not None
    assert forecast.host_bytes == predict(read_graph(content), HOST).arena_bytes
    assert forecast.objections == ()


def _graph(*nodes: GraphNode, tensors: int = 2) -> Graph:
    tensor = GraphTensor("x", "FLOAT32", (1, 4), 16, 0, is_constant=False, is_variable=False)
    return Graph((Subgraph((tensor,) * tensors, nodes, (0,), (1,)),))


RELU = GraphNode("RELU", 1, (0,), (1,), 0)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (_graph(replace(RELU, operator="MyOp")), "nobody measured what MyOp takes"),
        (replace(_graph(RELU), has_offline_plan=True), "a memory plan of its own"),
        (_graph(RELU, tensors=MAX_PLANNED + 1), "601 tensors have to be placed"),
        (_graph(replace(RELU, inputs=(0,) * 60_000)), "name 60001 tensors"),
        (_graph(replace(RELU, operator="IF", calls=(0, 0))), "call each other too deeply"),
        (_graph(replace(RELU, operator="IF", calls=(1, 1))), "call each other too deeply, or one that is not there"),
    ],
)
def test_what_cannot_be_predicted_says_why(graph: Graph, reason: str) -> None:
    found = predict(graph, HOST)
    assert found.arena_bytes is None
    assert reason in found.reason


def test_an_unknown_size_is_not_predicted() -> None:
    graph = _graph(RELU)
    tensors = (replace(graph.main.tensors[0], shape=(-1, 4), byte_count=0), graph.main.tensors[1])
    assert "is not known before a run" in predict(Graph((replace(graph.main, tensors=tensors),)), HOST).reason
