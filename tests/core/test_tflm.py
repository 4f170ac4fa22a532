from dataclasses import replace

import pytest

from gatewayd.core.graph import Graph, GraphNode, GraphTensor, Subgraph
from gatewayd.core.tflm import objections
from gatewayd.wire.tflite import read_graph

networks = pytest.importorskip("bench.networks")
FLOAT = GraphTensor("x", "FLOAT32", (1, 4), 16, 0, is_constant=False, is_variable=False)
INT8 = replace(FLOAT, kind="INT8", byte_count=4, scales=1)


def _graph(operator: str, *tensors: GraphTensor) -> Graph:
    count = len(tensors)
    node = GraphNode(operator, 1, tuple(range(count - 1)), (count - 1,), 0)
    return Graph((Subgraph(tensors, (node,), (0,), (count - 1,)),))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (_graph("POW", FLOAT, FLOAT, FLOAT), "has no POW"),
        (_graph("FULLY_CONNECTED", FLOAT, INT8, FLOAT), "FULLY_CONNECTED is hybrid (FLOAT32 with INT8 weights)"),
        (_graph("DEQUANTIZE", replace(FLOAT, kind="FLOAT16"), FLOAT), "DEQUANTIZE takes no FLOAT16"),
        (_graph("SIN", INT8, INT8), "SIN takes FLOAT32, not INT8"),
        (_graph("CONV_2D", replace(INT8, kind="UINT8"), INT8, INT8), "CONV_2D takes no UINT8"),
        (_graph("GATHER", replace(INT8, kind="INT16"), INT8, INT8), "GATHER takes no INT16"),
        (_graph("SOFTMAX", replace(INT8, shape=(1, 512)), INT8), "a row of 512 overflows"),
        (_graph("SOFTMAX", replace(INT8, shape=(1, 4096)), replace(INT8, kind="INT16")), "a row of 4096 overflows"),
    ],
)
def test_what_tflm_refuses(graph: Graph, reason: str) -> None:
    assert any(reason in each for each in objections(graph))


@pytest.mark.parametrize(
    "graph",
    [
        _graph("SOFTMAX", replace(INT8, shape=(1, 511)), INT8),
        _graph("SOFTMAX", replace(INT8, shape=(1, 4095)), replace(INT8, kind="INT16")),
        _graph("SOFTMAX", replace(FLOAT, shape=(1, 5000)), FLOAT),
    ],
)
def test_rows_that_a_softmax_takes(graph: Graph) -> None:
    assert objections(graph) == ()


@pytest.mark.parametrize("kind", networks.KINDS)
def test_nothing_is_said_against_what_runs(kind: str) -> None:
    for name in networks.LAYERS:
        if kind == "FLOAT32" or name not in networks.FLOAT_ONLY:
            assert objections(read_graph(networks.single(name, kind, 2))) == (), name


def test_only_a_few_reasons_are_given() -> None:
    nodes = tuple(GraphNode(f"OP_{number}", 1, (0,), (0,), 0) for number in range(50))
    assert len(objections(Graph((Subgraph((FLOAT,), nodes, (0,), (0,)),)))) == 4
