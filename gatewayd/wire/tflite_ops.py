"""TensorFlow Lite's tables: operator and element type names by number, and how many multiply-accumulates an operator costs.

Source of the numbers: tensorflow/lite/schema/schema.fbs as generated in ai-edge-litert 2.3.0 (`schema_py_generated`,
classes `BuiltinOperator` and `TensorType`). Both enums are append-only.
"""

from collections.abc import Callable, Sequence
from math import prod

from gatewayd.core.errors import ModelRefused
from gatewayd.core.tensor import DType

Shape = Sequence[int]

CUSTOM = 32
"""The builtin code that says: look at the custom code."""

# fmt: off
OPERATOR_NAMES: tuple[str, ...] = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP", "L2_NORMALIZATION", "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION", "LSTM", "MAX_POOL_2D", "MUL", "RELU",
    "RELU_N1_TO_1", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH",
    "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL", "CUSTOM", "EMBEDDING_LOOKUP_SPARSE", "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN", "SUB",
    "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN", "EXP",
    "TOPK_V2", "SPLIT", "LOG_SOFTMAX", "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU", "MAXIMUM",
    "ARG_MAX", "MINIMUM", "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL", "SELECT", "SLICE",
    "SIN", "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL", "LOG", "SUM", "SQRT",
    "RSQRT", "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX", "PACK", "LOGICAL_OR", "ONE_HOT",
    "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV", "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL",
    "FLOOR_MOD", "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU", "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS",
    "SPLIT_V", "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND", "COS", "WHERE", "RANK", "ELU",
    "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE", "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF", "WHILE",
    "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2", "DENSIFY", "SEGMENT_SUM",
    "BATCH_MATMUL", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM", "CALL_ONCE", "BROADCAST_TO", "RFFT2D", "CONV_3D",
    "IMAG", "REAL", "COMPLEX_ABS", "HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE",
    "REDUCE_ALL", "CONV_3D_TRANSPOSE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "BROADCAST_ARGS",
    "RANDOM_STANDARD_NORMAL", "BUCKETIZE", "RANDOM_UNIFORM", "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE",
    "RELU_0_TO_1", "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2",
    "UNSORTED_SEGMENT_MIN", "SIGN", "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT", "STABLEHLO_LOGISTIC", "STABLEHLO_ADD",
    "STABLEHLO_DIVIDE", "STABLEHLO_MULTIPLY", "STABLEHLO_MAXIMUM", "STABLEHLO_RESHAPE", "STABLEHLO_CLAMP",
    "STABLEHLO_CONCATENATE", "STABLEHLO_BROADCAST_IN_DIM", "STABLEHLO_CONVOLUTION", "STABLEHLO_SLICE",
    "STABLEHLO_CUSTOM_CALL", "STABLEHLO_REDUCE", "STABLEHLO_ABS", "STABLEHLO_AND", "STABLEHLO_COSINE",
    "STABLEHLO_EXPONENTIAL", "STABLEHLO_FLOOR", "STABLEHLO_LOG", "STABLEHLO_MINIMUM", "STABLEHLO_NEGATE",
    "STABLEHLO_OR", "STABLEHLO_POWER", "STABLEHLO_REMAINDER", "STABLEHLO_RSQRT", "STABLEHLO_SELECT",
    "STABLEHLO_SUBTRACT", "STABLEHLO_TANH", "STABLEHLO_SCATTER", "STABLEHLO_COMPARE", "STABLEHLO_CONVERT",
    "STABLEHLO_DYNAMIC_SLICE", "STABLEHLO_DYNAMIC_UPDATE_SLICE", "STABLEHLO_PAD", "STABLEHLO_IOTA",
    "STABLEHLO_DOT_GENERAL", "STABLEHLO_REDUCE_WINDOW", "STABLEHLO_SORT", "STABLEHLO_WHILE", "STABLEHLO_GATHER",
    "STABLEHLO_TRANSPOSE", "DILATE", "STABLEHLO_RNG_BIT_GENERATOR", "REDUCE_WINDOW", "STABLEHLO_COMPOSITE",
    "STABLEHLO_SHIFT_LEFT", "STABLEHLO_CBRT", "STABLEHLO_CASE",
)
"""Builtin operators; the index is the code."""

TYPE_NAMES: tuple[str, ...] = (
    "FLOAT32", "FLOAT16", "INT32", "UINT8", "INT64", "STRING", "BOOL", "INT16", "COMPLEX64", "INT8", "FLOAT64",
    "COMPLEX128", "UINT64", "RESOURCE", "VARIANT", "UINT32", "UINT16", "INT4", "BFLOAT16", "INT2", "UINT4",
    "FLOAT8_E4M3FN", "FLOAT8_E5M2",
)
"""Element types; the index is the code."""
# fmt: on

DTYPES: dict[str, DType] = {
    "FLOAT32": DType.FP32,
    "INT8": DType.INT8,
    "UINT8": DType.UINT8,
    "INT16": DType.INT16,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "BOOL": DType.BOOL,
}
"""The element types an input or output may have."""

ITEM_BITS: dict[str, int] = {
    "FLOAT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT64": 64, "BOOL": 8,
    "INT2": 2, "INT4": 4, "INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64,
    "UINT4": 4, "UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64,
    "COMPLEX64": 64, "COMPLEX128": 128, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8,
}  # fmt: skip
"""Bits of one element as a constant buffer packs it; STRING, RESOURCE and VARIANT have no fixed size."""


def count_macs(operator: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None]) -> int:
    """Return the multiply-accumulates of one call, 0 for operators that are not dominated by them.

    Shapes stand in the operator's own order; None is an optional tensor that was left out.

    Raises: ModelRefused when a tensor is missing or its rank or size is impossible.
    """
    rule = _RULES.get(operator)
    if rule is None:
        return 0
    first, second = _required(inputs, 0), _required(inputs, 1)
    third = _required(inputs, 2) if operator == "TRANSPOSE_CONV" else ()
    return rule(first, second, third, _required(outputs, 0))


def _required(shapes: Sequence[Shape | None], index: int) -> Shape:
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise ModelRefused("an operand is missing")
    if any(size < 0 for size in shape):
        raise ModelRefused(
            f"an operand has the unknown shape {list(shape)}: convert the model with a fixed input shape"
        )
    return shape


def _ranked(shape: Shape, rank: int) -> Shape:
    if len(shape) != rank:
        raise ModelRefused(f"its weights must have {rank} dimensions, they have the shape {list(shape)}")
    return shape


def _conv_2d(_: Shape, weights: Shape, __: Shape, output: Shape) -> int:
    """Weights [out, height, width, in/groups]."""
    return prod(output) * prod(_ranked(weights, 4)[1:])


def _depthwise_conv_2d(_: Shape, weights: Shape, __: Shape, output: Shape) -> int:
    """Weights [1, height, width, out]."""
    return prod(output) * prod(_ranked(weights, 4)[1:3])


def _fully_connected(_: Shape, weights: Shape, __: Shape, output: Shape) -> int:
    """Weights [out, in]."""
    return prod(output) * _ranked(weights, 2)[1]


def _transpose_conv(_: Shape, weights: Shape, source: Shape, __: Shape) -> int:
    """Weights [out, height, width, in]; each element of the source is spread over a window of all out channels."""
    return prod(source) * prod(_ranked(weights, 4)[:3])


def _batch_matmul(left: Shape, _: Shape, __: Shape, output: Shape) -> int:
    """Left [..., m, k] or, transposed, [..., k, m]; output [..., m, n]: k follows from the output's m."""
    if len(left) < 2 or len(output) < 2:  # noqa: PLR2004 - a matrix has two dimensions
        raise ModelRefused(f"a matrix is needed, its operand has the shape {list(left)}")
    return prod(output) * (prod(left[-2:]) // max(output[-2], 1))


_RULES: dict[str, Callable[[Shape, Shape, Shape, Shape], int]] = {
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    "BATCH_MATMUL": _batch_matmul,
}
