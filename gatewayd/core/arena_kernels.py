"""What each operator of TensorFlow Lite Micro takes from the arena, as numbers: options, its own data, buffers, scratch.

Sizes are those of a 64-bit build and so bounds for a 32-bit one, where pointers are half as large.

Source: the allocations of tflite-micro 0.dev20261023182759 (commit 8f6596d), observed one by one on networks of one operator
each; which tensor a size follows is from its kernels, tensorflow/lite/micro/kernels (github.com/tensorflow/tflite-micro).
Scratch of CMSIS-NN: arm_convolve_s8_get_buffer_size and its like, github.com/ARM-software/CMSIS-NN, the largest over cores.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

from gatewayd.core.graph import GraphNode, GraphTensor, Subgraph
from gatewayd.core.record import record


@record
class Operands:
    """A node with its tensors at hand; None where an optional one was left out. `is_optimized`: CMSIS-NN kernels."""

    node: GraphNode
    inputs: tuple[GraphTensor | None, ...]
    outputs: tuple[GraphTensor | None, ...]
    is_optimized: bool

    @classmethod
    def of(cls, node: GraphNode, subgraph: Subgraph, *, is_optimized: bool) -> "Operands":
        """Look the node's tensors up."""
        inputs, outputs = (
            tuple(subgraph.tensors[index] if index >= 0 else None for index in indices)
            for indices in (node.inputs, node.outputs)
        )
        return cls(node, inputs, outputs, is_optimized)

    def given(self, index: int) -> GraphTensor | None:
        """Return an input, None when it was left out or is not there at all."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def first(self) -> GraphTensor | None:
        """The first input."""
        return self.given(0)

    @property
    def result(self) -> GraphTensor | None:
        """The first output."""
        return self.outputs[0] if self.outputs else None

    @property
    def is_integer(self) -> bool:
        """Whether it computes in integers."""
        return self.first is not None and self.first.kind in {"INT8", "INT16", "UINT8"}


Sizes = Sequence[int]
Extra = Callable[[Operands], tuple[Sizes, Sizes]]
"""Returns what Prepare takes for good, in its order, and the scratch buffers it asks for."""


def _nothing(_: Operands) -> tuple[Sizes, Sizes]:
    return (), ()


@record
class Kernel:
    """One operator's share.

    `options` is its parsed options' size and alignment (0: none), `data` what Init takes for good (0: nothing). `temps` says
    which tensors Prepare looks at, each time one: digits are inputs, `o` the first output, `*` all inputs, `O` all outputs.
    """

    options: tuple[int, int] = (0, 1)
    data: int = 0
    temps: str = "0o"
    takes: Extra = _nothing


def _dims_bytes(shape: Sequence[int]) -> int:
    return 4 + 4 * len(shape)


def _elements(tensor: GraphTensor | None) -> int:
    return prod(tensor.shape) if tensor is not None else 0


def _size(tensor: GraphTensor | None, axis: int) -> int:
    shape = tensor.shape if tensor is not None else ()
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def _result_dims(operands: Operands) -> tuple[Sizes, Sizes]:
    """The output's dimensions are written anew, so they leave the file."""
    return ([_dims_bytes(operands.result.shape)] if operands.result else []), ()


def _channels(count: int) -> Sizes:
    """A multiplier and a shift for each output channel."""
    return 4 * count, 4 * count


def _conv(operands: Operands) -> tuple[Sizes, Sizes]:
    weights = operands.given(1)
    scratch: list[int] = []
    if operands.is_optimized and operands.is_integer and weights is not None:
        columns = -(-prod(weights.shape[1:]) // 16) * 16
        scratch.append(4 * columns + 8 * _size(weights, 0))
    return _channels(_size(weights, 0)), scratch


def _depthwise_conv(operands: Operands) -> tuple[Sizes, Sizes]:
    weights = operands.given(1)
    scratch: list[int] = []
    if operands.is_optimized and operands.is_integer and weights is not None:
        area = _size(weights, 1) * _size(weights, 2)
        scratch.append(max(2 * area * _size(operands.first, 3), 4 * 124 * area) + 4 * area)
    return _channels(_size(weights, 3)), scratch


def _transpose_conv(operands: Operands) -> tuple[Sizes, Sizes]:
    weights, source = operands.given(1), operands.given(2)
    wide = {"INT8": 4, "INT16": 8}.get(source.kind if source else "", 0)
    scratch = [wide * _elements(operands.result)] if wide else []
    if operands.is_optimized and wide:
        scratch.append(_elements(weights))
    return _channels(_size(weights, 0)), scratch


def _fully_connected(operands: Operands) -> tuple[Sizes, Sizes]:
    weights = operands.given(1)
    taken: Sizes = _channels(_size(weights, 0)) if weights and weights.scales > 1 and operands.is_integer else ()
    scratch = [4 * _size(weights, 0)] if operands.is_optimized and operands.is_integer else []
    return taken, scratch


def _pool(operands: Operands) -> tuple[Sizes, Sizes]:
    return (), ([4 * _size(operands.first, 3)] if operands.is_optimized and operands.is_integer else [])


def _svdf(operands: Operands) -> tuple[Sizes, Sizes]:
    features = _size(operands.given(1), 0)
    batches = _size(operands.first, 0)
    scratch = [4 * batches * features]
    if operands.is_integer:
        scratch.append(4 * _elements(operands.result))
    return (), scratch


def _lstm(operands: Operands) -> tuple[Sizes, Sizes]:
    cell = operands.given(19)
    width = 4 if cell is not None and cell.is_float else 2
    return (), [width * _elements(cell)] * 4


def _batch_matmul(operands: Operands) -> tuple[Sizes, Sizes]:
    # An operand that does not come transposed as the kernel wants it is copied: the copy's description, its dimensions and its
    # values, all for good.
    taken: list[int] = [28] if operands.is_integer else []
    wants = (operands.node.transposes[0], not operands.node.transposes[1])
    rank = max((len(each.shape) for each in operands.inputs[:2] if each), default=0)
    for tensor, is_copied in zip(operands.inputs[:2], wants, strict=False):
        if is_copied and tensor is not None:
            taken += [24, _dims_bytes(tensor.shape), tensor.byte_count]
    return [*taken, 4 + 4 * rank], ()


def _mean_or_sum(operands: Operands) -> tuple[Sizes, Sizes]:
    taken, scratch = _reduction(operands)
    sums = [4 * _elements(operands.result)] if operands.is_integer else []
    return taken, [*sums, *scratch]


def _reduction(operands: Operands) -> tuple[Sizes, Sizes]:
    rank = len(operands.first.shape) if operands.first else 0
    return (), [4 * rank, 4 * _elements(operands.given(1))]


def _mirror_pad(operands: Operands) -> tuple[Sizes, Sizes]:
    rank = len(operands.first.shape) if operands.first else 0
    return (), [4 * rank, 4 * rank]


def _add_n(operands: Operands) -> tuple[Sizes, Sizes]:
    return ([40] if operands.is_integer else []), [8 * len(operands.inputs)]


def _when_integer(size: int) -> Extra:
    def takes(operands: Operands) -> tuple[Sizes, Sizes]:
        return ([size] if operands.is_integer else []), ()

    return takes


_PLAIN_UNARY = Kernel()
_POOL = Kernel((40, 4), 32, "0o", _pool)
_REDUCE = Kernel((1, 1), 44, "00oo11", _mean_or_sum)
_COMPARE = Kernel(data=32, temps="01")

KERNELS: Mapping[str, Kernel] = {
    **dict.fromkeys(("CEIL", "COS", "EXP", "LOG", "ROUND", "SIN", "SQRT", "SQUARE", "ZEROS_LIKE"), _PLAIN_UNARY),
    **dict.fromkeys(("FLOOR", "NEG", "MAXIMUM", "MINIMUM", "LOGICAL_AND", "LOGICAL_OR"), Kernel(temps="")),
    **dict.fromkeys(("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"), _COMPARE),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _POOL),
    **dict.fromkeys(("MEAN", "SUM"), _REDUCE),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN"), Kernel((1, 1), 44, "00oo11", _reduction)),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), Kernel((4, 4), temps="")),
    **dict.fromkeys(("PACK", "UNPACK"), Kernel((8, 4), temps="")),
    **dict.fromkeys(("FLOOR_DIV", "FLOOR_MOD", "EXPAND_DIMS", "BROADCAST_TO", "TRANSPOSE", "REVERSE_V2"), Kernel(temps="01o")),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), Kernel((2, 1), temps="01o")),
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), Kernel((4, 4), takes=_result_dims)),
    **dict.fromkeys(("PAD", "PADV2"), Kernel(data=56, temps="*o")),
    "ABS": Kernel(data=28), "RSQRT": Kernel(data=28), "RELU": Kernel(data=28), "RELU6": Kernel(data=8, temps="0"),
    "ADD": Kernel((8, 4), 60, "01o"), "SUB": Kernel((8, 4), 52, "01o"), "MUL": Kernel((4, 4), 36, "01o"),
    "DIV": Kernel((4, 4), 28, "01o"), "SQUARED_DIFFERENCE": Kernel(data=112, temps="01o"), "PRELU": Kernel(data=28, temps="01o"),
    "ADD_N": Kernel(temps="*o", takes=_add_n), "CAST": Kernel((8, 4)), "CUMSUM": Kernel((2, 1), 0, "01o", _when_integer(36)),
    "CONCATENATION": Kernel((8, 4), 80, "*0o"), "ELU": Kernel(data=256), "FILL": Kernel(temps="01o"),
    "HARD_SWISH": Kernel(data=20), "LEAKY_RELU": Kernel((4, 4), 24), "LOGISTIC": Kernel(data=16),
    "TANH": Kernel(data=16, temps="00o"),
    "SOFTMAX": Kernel((4, 4), 80), "LOG_SOFTMAX": Kernel(takes=_when_integer(40)), "L2_NORMALIZATION": Kernel((4, 4), 4),
    "QUANTIZE": Kernel(data=32), "DEQUANTIZE": Kernel(data=32), "LOGICAL_NOT": Kernel(),
    "SELECT_V2": Kernel(data=1, temps="*o"), "RESHAPE": Kernel((36, 4)), "SQUEEZE": Kernel((36, 4)),
    "SLICE": Kernel(temps="*o"), "STRIDED_SLICE": Kernel((24, 4), 84, "*o"), "SPLIT": Kernel((4, 4), temps="0"),
    "SPLIT_V": Kernel((4, 4), temps="0"), "SPACE_TO_BATCH_ND": Kernel(data=4), "BATCH_TO_SPACE_ND": Kernel(),
    "GATHER": Kernel((8, 4), 0, "01o", _result_dims), "GATHER_ND": Kernel(temps="01o", takes=_result_dims),
    "MIRROR_PAD": Kernel((4, 4), 20, "01o", _mirror_pad), "L2_POOL_2D": Kernel((40, 4), takes=_result_dims),
    "CONV_2D": Kernel((28, 4), 80, "00112oo", _conv),
    "DEPTHWISE_CONV_2D": Kernel((28, 4), 80, "00112oo", _depthwise_conv),
    "TRANSPOSE_CONV": Kernel((20, 4), 88, "22113oo", _transpose_conv),
    "FULLY_CONNECTED": Kernel((32, 8), 72, "012o", _fully_connected), "BATCH_MATMUL": Kernel((3, 1), 32, "01o", _batch_matmul),
    "SVDF": Kernel((12, 4), 36, "*o", _svdf), "UNIDIRECTIONAL_SEQUENCE_LSTM": Kernel((16, 4), 688, "*o", _lstm),
    "CALL_ONCE": Kernel((4, 4), 8, ""), "VAR_HANDLE": Kernel((16, 8), 4, ""), "READ_VARIABLE": Kernel(temps="o"),
    "ASSIGN_VARIABLE": Kernel(data=4, temps="1"), "IF": Kernel((8, 4), 8, "0"), "WHILE": Kernel((8, 4), 8, ""),
}  # fmt: skip
"""By name; of an operator that is not here nobody knows what it takes."""
