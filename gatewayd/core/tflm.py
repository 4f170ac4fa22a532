"""What TensorFlow Lite Micro has kernels for: a refusal told without running it. Says too little rather than too much.

Source: AddAbs() to AddZerosLike() in tflite-micro's python/tflite_micro/python_ops_resolver.cc, its custom operators left out;
types: what the Prepare functions of tensorflow/lite/micro/kernels check, tried on tflite-micro 0.dev20261023182759.
"""

from collections.abc import Iterator

from gatewayd.core.graph import Graph, GraphNode, GraphTensor, Subgraph

OPERATORS = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO
    CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS
    FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION
    L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN
    MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX RELU RELU6 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905 # a hundred pairs of quotes would hide the names
)
"""The operators it has, by their names in files."""

MAX_OBJECTIONS = 4
"""Protects messages: a model that has more wrong with it is not helped by the rest."""

_FLOAT_ONLY = frozenset(
    "CEIL COS EXP FLOOR FLOOR_DIV FLOOR_MOD L2_POOL_2D LOG NEG ROUND SIN SQRT SQUARE".split()  # noqa: SIM905 # as above
)
_WEIGHTED = {
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "SVDF": 1, "BATCH_MATMUL": 1,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 1,
}  # fmt: skip
_NO_UINT8 = frozenset({*_WEIGHTED, "AVERAGE_POOL_2D", "MAX_POOL_2D", "ADD", "MUL", "SOFTMAX", "LOGISTIC"})
_NO_INT16 = frozenset(
    """
    ADD_N ARG_MAX ARG_MIN CUMSUM DIV ELU EQUAL NOT_EQUAL GREATER_EQUAL LESS LESS_EQUAL GATHER GATHER_ND HARD_SWISH
    L2_NORMALIZATION LOG_SOFTMAX PRELU REDUCE_MAX RESIZE_BILINEAR SVDF ZEROS_LIKE
    """.split()  # noqa: SIM905 # as above
)
_NO_KERNELS = frozenset(
    {"FLOAT16", "BFLOAT16", "FLOAT64", "COMPLEX64", "COMPLEX128", "STRING", "FLOAT8_E4M3FN", "FLOAT8_E5M2"}
)
# Rows from here on can end the process: when their values are close, each adds nearly 1 to the sum of exponentials. That sum has
# 12 integer bits, and its reciprocal is shifted to 8 bits, which works below 2**9 (tried: 511 runs on equal values, 512 aborts).
_SOFTMAX_ROWS = {"INT8": 512, "INT16": 4_096}


def objections(graph: Graph) -> tuple[str, ...]:
    """Return why it would refuse the graph, at most a few reasons; () when nothing speaks against it."""
    found: dict[str, None] = {}
    for subgraph in graph.subgraphs:
        for node in subgraph.nodes:
            for reason in _objections(node, subgraph):
                found[reason] = None
            if len(found) >= MAX_OBJECTIONS:
                return tuple(found)[:MAX_OBJECTIONS]
    return tuple(found)


def _objections(node: GraphNode, subgraph: Subgraph) -> Iterator[str]:
    if node.operator not in OPERATORS:
        yield f"has no {node.operator}"
        return
    tensors = [subgraph.tensors[index] for index in (*node.inputs[:32], *node.outputs[:32]) if index >= 0]
    odd = next((each.kind for each in tensors if each.kind in _NO_KERNELS), "")
    if odd:
        yield f"{node.operator} takes no {odd}"
    first = _input(node, subgraph, 2 if node.operator == "TRANSPOSE_CONV" else 0)
    if first is None:
        return
    yield from _type_objections(node, subgraph, first)


def _type_objections(node: GraphNode, subgraph: Subgraph, first: GraphTensor) -> Iterator[str]:
    if node.operator in _FLOAT_ONLY and first.kind in {"INT8", "INT16", "UINT8"}:
        yield f"{node.operator} takes FLOAT32, not {first.kind}"
    if node.operator in _NO_UINT8 and first.kind == "UINT8":
        yield f"{node.operator} takes no UINT8: quantise to INT8"
    if first.kind == "INT16" and node.operator in _NO_INT16:
        yield f"{node.operator} takes no INT16"
    weights = _input(node, subgraph, _WEIGHTED[node.operator]) if node.operator in _WEIGHTED else None
    if weights is not None and first.kind == "FLOAT32" and weights.kind in {"INT8", "UINT8", "INT4", "INT16"}:
        yield f"{node.operator} is hybrid (FLOAT32 with {weights.kind} weights): quantise its input too, or not its weights"
    if node.operator == "SOFTMAX" and first.kind == "INT8" and first.shape and node.outputs:
        kind = subgraph.tensors[node.outputs[0]].kind
        if first.shape[-1] >= _SOFTMAX_ROWS.get(kind, first.shape[-1] + 1):
            limit = _SOFTMAX_ROWS[kind] - 1
            yield f"SOFTMAX of a row of {first.shape[-1]} overflows when its values are close: to {kind} {limit} is the most"


def _input(node: GraphNode, subgraph: Subgraph, position: int) -> GraphTensor | None:
    index = node.inputs[position] if position < len(node.inputs) else -1
    return subgraph.tensors[index] if index >= 0 else None
