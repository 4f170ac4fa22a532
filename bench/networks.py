"""Networks made up from a seed, for benchmarks and tests: single operators, and chains with branches, in float and int8.

Written with the schema that LiteRT ships. What they compute is of no interest; sizes, lifetimes and operators are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_NUMPY = {"FLOAT32": np.float32, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}
_SAME, _VALID = 0, 1

Scale = tuple[float, int]
_PLAIN: Scale = (0.05, 0)


@dataclass(frozen=True)
class End:
    """A tensor of the network under construction: its number, element type and shape."""

    index: int
    kind: str
    shape: tuple[int, ...]

    @property
    def is_quantized(self) -> bool:
        """Whether its numbers are scaled."""
        return self.kind in {"INT8", "INT16"}


class Network:
    """One subgraph under construction; `kind` is the element type that its activations have."""

    def __init__(self, kind: str, rng: Random) -> None:
        self.kind = kind
        self.rng = rng
        self.inputs: list[End] = []
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._model.subgraphs = []
        self._codes: dict[tuple[str, int], int] = {}
        self.begin_subgraph()

    def begin_subgraph(self) -> int:
        """Let what follows go into another subgraph; return its number."""
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model.subgraphs.append(self._graph)
        return len(self._model.subgraphs) - 1

    def go_to_subgraph(self, number: int) -> None:
        """Go on with a subgraph begun before."""
        self._graph = self._model.subgraphs[number]

    def end_subgraph(self, inputs: Sequence[End], outputs: Sequence[End]) -> None:
        """Name the ends of the subgraph under construction."""
        self._graph.inputs, self._graph.outputs = [x.index for x in inputs], [x.index for x in outputs]

    def tensor(self, shape: Sequence[int], kind: str = "", *, scale: Scale | None = _PLAIN, variable: bool = False) -> End:
        """Add an activation; integers of 8 and 16 bits get `scale`."""
        return self._add(shape, kind or self.kind, scales=[scale] if scale else [], buffer=0, variable=variable)

    def input(self, shape: Sequence[int], kind: str = "") -> End:
        """Add an input of the model."""
        made = self.tensor(shape, kind)
        self.inputs.append(made)
        return made

    def constant(
        self, values: Any, kind: str, *, shape: Sequence[int] | None = None, scales: Sequence[Scale] = (_PLAIN,), axis: int = 0  # noqa: ANN401 # whatever numpy takes
    ) -> End:
        """Add a constant."""
        content = np.asarray(values, _NUMPY[kind])
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        held = tuple(content.shape) if shape is None else tuple(shape)
        return self._add(held, kind, scales=scales, buffer=len(self._model.buffers) - 1, axis=axis)

    def weights(self, shape: Sequence[int], *, channels_axis: int | None = None, bias_scale: bool = False) -> End:
        """Add random weights of the network's kind; int8 ones per channel along `channels_axis` (None: per tensor)."""
        if self.kind == "FLOAT32":
            return self.constant(np.full(tuple(shape), 0.01), "BOOL" if bias_scale else "FLOAT32")
        count = 1 if channels_axis is None else shape[channels_axis]
        values = np.frombuffer(self.rng.randbytes(prod(shape)), np.int8).reshape(tuple(shape))
        return self.constant(np.maximum(values, -127), "INT8", scales=[(0.01, 0)] * count, axis=channels_axis or 0)

    def bias(self, count: int, *, per_channel: bool) -> End:
        """Add a bias that fits `weights`."""
        if self.kind == "FLOAT32":
            return self.constant(np.zeros(count), "FLOAT32")
        scales = [(0.05 * 0.01, 0)] * (count if per_channel else 1)
        return self.constant(np.zeros(count), "INT64" if self.kind == "INT16" else "INT32", scales=scales)

    def node(
        self,
        operator: str,
        inputs: Sequence[End | None],
        outputs: Sequence[End],
        options: str = "",
        *,
        version: int = 1,
        **settings: object,
    ) -> End:
        """Add an operator; return its first output."""
        made = schema.OperatorT()
        made.opcodeIndex = self._code(operator, version)
        made.inputs = [-1 if x is None else x.index for x in inputs]
        made.outputs = [x.index for x in outputs]
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, options + "T")()
            for name, value in settings.items():
                setattr(made.builtinOptions, name, value)
        self._graph.operators.append(made)
        return outputs[0] if outputs else End(-1, "", ())

    def finish(self, *outputs: End) -> bytes:
        """Return the file."""
        self.go_to_subgraph(0)
        self.end_subgraph(self.inputs, outputs)
        builder = flatbuffers.Builder(4096)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add(
        self, shape: Sequence[int], kind: str, *, scales: Sequence[Scale], buffer: int, axis: int = 0, variable: bool = False
    ) -> End:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self._graph.tensors)}"
        tensor.shape, tensor.type = list(shape), getattr(schema.TensorType, kind)
        tensor.buffer, tensor.isVariable = buffer, variable
        if scales and (kind in {"INT8", "INT16"} or (buffer and kind in {"INT32", "INT64"} and scales[0] != _PLAIN)):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale for scale, _ in scales]
            tensor.quantization.zeroPoint = [zero for _, zero in scales]
            tensor.quantization.quantizedDimension = axis
        self._graph.tensors.append(tensor)
        return End(len(self._graph.tensors) - 1, kind, tuple(shape))

    def _code(self, operator: str, version: int) -> int:
        if (operator, version) not in self._codes:
            code = schema.OperatorCodeT()
            number = getattr(schema.BuiltinOperator, operator)
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            self._codes[operator, version] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[operator, version]


Layer = Callable[[Network, End], End]


def _out(size: int, stride: int) -> int:
    return -(-size // stride)


def conv_2d(net: Network, x: End) -> End:
    """Same-padded, random kernel, stride and channels."""
    kernel, stride, channels = net.rng.choice((1, 3, 5)), net.rng.choice((1, 1, 2)), net.rng.randrange(1, 33)
    height, width = x.shape[1:3]
    made = net.tensor((1, _out(height, stride), _out(width, stride), channels))
    weights = net.weights((channels, kernel, kernel, x.shape[3]), channels_axis=0)
    bias = net.bias(channels, per_channel=True)
    return net.node("CONV_2D", (x, weights, bias), (made,), "Conv2DOptions", version=3, strideW=stride, strideH=stride)


def depthwise_conv_2d(net: Network, x: End) -> End:
    """Multiplier 1 or 2."""
    stride, multiplier = net.rng.choice((1, 2)), net.rng.choice((1, 1, 2))
    channels = x.shape[3] * multiplier
    made = net.tensor((1, _out(x.shape[1], stride), _out(x.shape[2], stride), channels))
    weights = net.weights((1, 3, 3, channels), channels_axis=3)
    bias = net.bias(channels, per_channel=True)
    return net.node(
        "DEPTHWISE_CONV_2D", (x, weights, bias), (made,), "DepthwiseConv2DOptions",
        version=3, strideW=stride, strideH=stride, depthMultiplier=multiplier,
    )  # fmt: skip


def transpose_conv(net: Network, x: End) -> End:
    """Stride 2."""
    channels = net.rng.randrange(1, 17)
    shape = (1, x.shape[1] * 2, x.shape[2] * 2, channels)
    weights = net.weights((channels, 3, 3, x.shape[3]), channels_axis=0)
    operands = [net.constant(shape, "INT32"), weights, x]
    version = 1
    if net.rng.random() < 0.5:  # noqa: PLR2004 - a coin
        operands.append(net.bias(channels, per_channel=True))
        version = 3
    return net.node(
        "TRANSPOSE_CONV", operands, (net.tensor(shape),), "TransposeConvOptions", version=version, strideW=2, strideH=2
    )


def fully_connected(net: Network, x: End) -> End:
    """Flattens; with and without bias."""
    units = net.rng.randrange(1, 65)
    count = prod(x.shape)
    made = net.tensor((1, units))
    bias = net.bias(units, per_channel=False) if net.rng.random() < 0.7 else None  # noqa: PLR2004 - mostly
    return net.node(
        "FULLY_CONNECTED", (x, net.weights((units, count)), bias), (made,), "FullyConnectedOptions", version=4
    )


def fully_connected_per_channel(net: Network, x: End) -> End:
    """One scale per unit."""
    units = net.rng.randrange(2, 65)
    weights, bias = net.weights((units, prod(x.shape)), channels_axis=0), net.bias(units, per_channel=True)
    made = net.tensor((1, units))
    return net.node("FULLY_CONNECTED", (x, weights, bias), (made,), "FullyConnectedOptions", version=12)


def _pool(name: str) -> Layer:
    def pool(net: Network, x: End) -> End:
        made = net.tensor((1, _out(x.shape[1], 2), _out(x.shape[2], 2), x.shape[3]))
        sizes = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
        return net.node(name, (x,), (made,), "Pool2DOptions", version=2, **sizes)

    return pool


def _unary(name: str, options: str = "", *, scale: Scale = _PLAIN, version: int = 1, **settings: object) -> Layer:
    def unary(net: Network, x: End) -> End:
        made = net.node(name, (x,), (net.tensor(x.shape, x.kind, scale=scale),), options, version=version, **settings)
        if scale == _PLAIN or net.kind == "FLOAT32":
            return made
        return net.node("QUANTIZE", (made,), (net.tensor(x.shape),), "QuantizeOptions")  # what follows may want equal scales

    return unary


def _binary(name: str, options: str = "", *, version: int = 1) -> Layer:
    def binary(net: Network, x: End) -> End:
        if name.startswith("FLOOR") or net.rng.random() < 0.5:  # noqa: PLR2004 - a coin; nothing is divided by an input of zeros
            other = net.constant(np.ones(x.shape[-1:]), x.kind)
        else:
            other = net.input(x.shape, x.kind) if len(net.inputs) < 4 else x  # noqa: PLR2004 - a few inputs
        return net.node(name, (x, other), (net.tensor(x.shape, x.kind),), options, version=version)

    return binary


def _compare(name: str) -> Layer:
    def compare(net: Network, x: End) -> End:
        made = net.node(name, (x, net.constant(np.ones(x.shape[-1:]), x.kind)), (net.tensor(x.shape, "BOOL"),), name.title().replace("_", "") + "Options")
        other = net.node("LOGICAL_NOT", (made,), (net.tensor(x.shape, "BOOL"),), "LogicalNotOptions")
        both = net.node("LOGICAL_AND", (made, other), (net.tensor(x.shape, "BOOL"),), "LogicalAndOptions")
        return net.node("SELECT_V2", (both, x, x), (net.tensor(x.shape, x.kind),), "SelectV2Options")

    return compare


def prelu(net: Network, x: End) -> End:
    """One slope per channel."""
    return net.node("PRELU", (x, net.constant(np.ones((1,) * (len(x.shape) - 1) + x.shape[-1:]), x.kind)), (net.tensor(x.shape),))


def reshape(net: Network, x: End) -> End:
    """To a row."""
    shape = (1, prod(x.shape))
    return net.node("RESHAPE", (x, net.constant(shape, "INT32")), (net.tensor(shape),), "ReshapeOptions")


def squeeze(net: Network, x: End) -> End:
    """The first dimension away."""
    return net.node("SQUEEZE", (x,), (net.tensor(x.shape[1:]),), "SqueezeOptions", squeezeDims=[0])


def expand_dims(net: Network, x: End) -> End:
    """One more in front."""
    return net.node("EXPAND_DIMS", (x, net.constant(0, "INT32", shape=())), (net.tensor((1, *x.shape)),), "ExpandDimsOptions")


def transpose(net: Network, x: End) -> End:
    """The last two swapped."""
    order = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
    shape = [x.shape[axis] for axis in order]
    return net.node("TRANSPOSE", (x, net.constant(order, "INT32")), (net.tensor(shape),), "TransposeOptions")


def _pad(name: str, options: str) -> Layer:
    def pad(net: Network, x: End) -> End:
        before = [[0, 0]] + [[1, 1]] * (len(x.shape) - 1)
        shape = (x.shape[0], *(size + 2 for size in x.shape[1:]))
        operands = [x, net.constant(before, "INT32")]
        if name == "PADV2":
            operands.append(net.constant(np.zeros(1), x.kind))
        return net.node(name, operands, (net.tensor(shape),), options)

    return pad


def slice_(net: Network, x: End) -> End:
    """The first half of the last dimension."""
    shape = (*x.shape[:-1], max(1, x.shape[-1] // 2))
    begin, size = net.constant([0] * len(shape), "INT32"), net.constant(shape, "INT32")
    return net.node("SLICE", (x, begin, size), (net.tensor(shape),), "SliceOptions")


def strided_slice(net: Network, x: End) -> End:
    """The first half of the last dimension."""
    shape = (*x.shape[:-1], max(1, x.shape[-1] // 2))
    bounds = [net.constant(each, "INT32") for each in ([0] * len(shape), shape, [1] * len(shape))]
    return net.node("STRIDED_SLICE", (x, *bounds), (net.tensor(shape),), "StridedSliceOptions")


def concatenation(net: Network, x: End) -> End:
    """Itself, twice to four times."""
    times = net.rng.randrange(2, 5)
    made = net.tensor((*x.shape[:-1], x.shape[-1] * times))
    return net.node("CONCATENATION", (x,) * times, (made,), "ConcatenationOptions", axis=len(x.shape) - 1)


def split(net: Network, x: End) -> End:
    """In two along the last dimension, when it is even."""
    if x.shape[-1] % 2:
        return x
    halves = [net.tensor((*x.shape[:-1], x.shape[-1] // 2)) for _ in range(2)]
    axis = net.constant(len(x.shape) - 1, "INT32", shape=())
    net.node("SPLIT", (axis, x), halves, "SplitOptions", numSplits=2)
    return net.node("ADD", halves, (net.tensor(halves[0].shape),), "AddOptions")


def split_v(net: Network, x: End) -> End:
    """One element and the rest."""
    if x.shape[-1] < 2:  # noqa: PLR2004 - two parts
        return x
    parts = [net.tensor((*x.shape[:-1], size)) for size in (1, x.shape[-1] - 1)]
    sizes, axis = net.constant([1, x.shape[-1] - 1], "INT32"), net.constant(len(x.shape) - 1, "INT32", shape=())
    net.node("SPLIT_V", (x, sizes, axis), parts, "SplitVOptions", numSplits=2)
    return parts[1]


def pack_unpack(net: Network, x: End) -> End:
    """Together and apart."""
    stacked = net.node("PACK", (x, x), (net.tensor((2, *x.shape)),), "PackOptions", valuesCount=2, axis=0)
    parts = [net.tensor(x.shape) for _ in range(2)]
    return net.node("UNPACK", (stacked,), parts, "UnpackOptions", num=2, axis=0)


def gather(net: Network, x: End) -> End:
    """The first element of the last dimension."""
    made = net.tensor((*x.shape[:-1], 1))
    return net.node("GATHER", (x, net.constant([0], "INT32")), (made,), "GatherOptions", axis=len(x.shape) - 1)


def gather_nd(net: Network, x: End) -> End:
    """One row."""
    made = net.tensor((1, *x.shape[1:]))
    return net.node("GATHER_ND", (x, net.constant([[0]], "INT32")), (made,), "GatherNdOptions")


def space_to_batch(net: Network, x: End) -> End:
    """There and back, when the sides are even."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        return x
    block, none = net.constant([2, 2], "INT32"), net.constant([[0, 0], [0, 0]], "INT32")
    middle = net.tensor((4, x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
    net.node("SPACE_TO_BATCH_ND", (x, block, none), (middle,), "SpaceToBatchNDOptions")
    return net.node("BATCH_TO_SPACE_ND", (middle, block, none), (net.tensor(x.shape),), "BatchToSpaceNDOptions")


def space_to_depth(net: Network, x: End) -> End:
    """There and back, when the sides are even."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        return x
    middle = net.tensor((1, x.shape[1] // 2, x.shape[2] // 2, x.shape[3] * 4))
    net.node("SPACE_TO_DEPTH", (x,), (middle,), "SpaceToDepthOptions", blockSize=2)
    return net.node("DEPTH_TO_SPACE", (middle,), (net.tensor(x.shape),), "DepthToSpaceOptions", blockSize=2)


def broadcast_to(net: Network, x: End) -> End:
    """Twice as many batches."""
    shape = (2, *x.shape[1:])
    made = net.node("BROADCAST_TO", (x, net.constant(shape, "INT32")), (net.tensor(shape),), "BroadcastToOptions")
    return slice_first(net, made)


def slice_first(net: Network, x: End) -> End:
    """The first batch."""
    shape = (1, *x.shape[1:])
    begin, size = net.constant([0] * len(shape), "INT32"), net.constant(shape, "INT32")
    return net.node("SLICE", (x, begin, size), (net.tensor(shape),), "SliceOptions")


def _reduce(name: str) -> Layer:
    def reduce(net: Network, x: End) -> End:
        axes = [1, 2] if len(x.shape) == 4 else [len(x.shape) - 1]  # noqa: PLR2004 - an image
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        made = net.tensor(shape)
        return net.node(name, (x, net.constant(axes, "INT32")), (made,), "ReducerOptions", version=2, keepDims=True)

    return reduce


def cumsum(net: Network, x: End) -> End:
    """Along the last dimension."""
    axis = net.constant(len(x.shape) - 1, "INT32", shape=())
    return net.node("CUMSUM", (x, axis), (net.tensor(x.shape),), "CumsumOptions")


def _resize(name: str, options: str) -> Layer:
    def resize(net: Network, x: End) -> End:
        size = (x.shape[1] * 2, x.shape[2] * 2)
        made = net.tensor((1, *size, x.shape[3]))
        return net.node(name, (x, net.constant(size, "INT32")), (made,), options, version=2)

    return resize


def add_n(net: Network, x: End) -> End:
    """Of three."""
    return net.node("ADD_N", (x, x, x), (net.tensor(x.shape),), "AddNOptions")


def batch_matmul(net: Network, x: End) -> End:
    """By a constant matrix."""
    columns = net.rng.randrange(1, 17)
    right = net.weights((1,) * (len(x.shape) - 2) + (x.shape[-1], columns))
    made = net.tensor((*x.shape[:-1], columns))
    return net.node("BATCH_MATMUL", (x, right), (made,), "BatchMatMulOptions", version=2)


def batch_matmul_live(net: Network, x: End) -> End:
    """By its own transpose, from either side."""
    from_left = net.rng.random() < 0.5  # noqa: PLR2004 - a coin
    side = x.shape[-1 if from_left else -2]
    made = net.tensor((*x.shape[:-2], side, side))
    return net.node("BATCH_MATMUL", (x, x), (made,), "BatchMatMulOptions", version=2, adjX=from_left, adjY=not from_left)


def requantize(net: Network, x: End) -> End:
    """To another scale; or from float to int8 and back."""
    middle = net.node("QUANTIZE", (x,), (net.tensor(x.shape, "INT8", scale=(0.1, 3)),), "QuantizeOptions")
    if x.kind == "FLOAT32":
        return net.node("DEQUANTIZE", (middle,), (net.tensor(x.shape),), "DequantizeOptions", version=2)
    return net.node("QUANTIZE", (middle,), (net.tensor(x.shape),), "QuantizeOptions")


def dequantize(net: Network, x: End) -> End:
    """To float and back."""
    if x.kind == "FLOAT32":
        return requantize(net, x)
    middle = net.node("DEQUANTIZE", (x,), (net.tensor(x.shape, "FLOAT32"),), "DequantizeOptions", version=2)
    return net.node("QUANTIZE", (middle,), (net.tensor(x.shape),), "QuantizeOptions")


def cast(net: Network, x: End) -> End:
    """To INT32 and back."""
    middle = net.node("CAST", (x,), (net.tensor(x.shape, "INT32"),), "CastOptions")
    return net.node("CAST", (middle,), (net.tensor(x.shape),), "CastOptions")


def _arg(name: str, options: str) -> Layer:
    def arg(net: Network, x: End) -> End:
        axis = net.constant(len(x.shape) - 1, "INT32", shape=())
        made = net.node(name, (x, axis), (net.tensor(x.shape[:-1], "INT32"),), options, version=2, outputType=2)
        back = net.node("CAST", (made,), (net.tensor(x.shape[:-1]),), "CastOptions")
        return net.node("EXPAND_DIMS", (back, net.constant(-1, "INT32", shape=())), (net.tensor((*x.shape[:-1], 1)),), "ExpandDimsOptions")

    return arg


def fill(net: Network, x: End) -> End:
    """A tensor of its shape, added."""
    made = net.node("FILL", (net.constant(x.shape, "INT32"), net.constant(np.ones(()), x.kind, shape=())), (net.tensor(x.shape),), "FillOptions")
    return net.node("ADD", (x, made), (net.tensor(x.shape),), "AddOptions")


def reverse(net: Network, x: End) -> End:
    """The last dimension."""
    axes = net.constant([len(x.shape) - 1], "INT32")
    return net.node("REVERSE_V2", (x, axes), (net.tensor(x.shape),), "ReverseV2Options", version=2)


def svdf(net: Network, x: End) -> End:
    """With state."""
    units, memory, rank = net.rng.randrange(2, 20), net.rng.randrange(2, 12), net.rng.choice((1, 2))
    features, count = units * rank, prod(x.shape[1:])
    if len(x.shape) != 2:  # noqa: PLR2004 - a row
        x = reshape(net, x)
    by_time = net.constant(np.ones((features, memory)), "INT16" if net.kind == "INT8" else "FLOAT32", scales=[(0.01, 0)])
    by_feature = net.weights((features, count))
    bias = net.bias(units, per_channel=False)
    state = net.tensor((1, memory * features), "INT16" if net.kind == "INT8" else "FLOAT32", scale=(0.05, 0), variable=True)
    made = net.tensor((1, units))
    return net.node("SVDF", (x, by_feature, by_time, bias, state), (made,), "SVDFOptions", version=3, rank=rank)


def lstm(net: Network, x: End) -> End:
    """Over the next to last dimension as time."""
    count, units = x.shape[-1], net.rng.randrange(2, 17)
    times = prod(x.shape) // count
    x = net.node("RESHAPE", (x, net.constant((1, times, count), "INT32")), (net.tensor((1, times, count)),), "ReshapeOptions")
    by_input = [net.weights((units, count)) for _ in range(4)]
    by_state = [net.weights((units, units)) for _ in range(4)]
    biases = [net.bias(units, per_channel=False) for _ in range(4)]
    is_int = net.kind == "INT8"
    state = net.tensor((1, units), variable=True)
    cell = net.tensor((1, units), "INT16" if is_int else "FLOAT32", scale=(2.0**-11, 0), variable=True)
    operands = [x, *by_input, *by_state, None, None, None, *biases, None, None, state, cell, None, None, None, None]
    made = net.tensor((1, times, units))
    return net.node("UNIDIRECTIONAL_SEQUENCE_LSTM", operands, (made,), "UnidirectionalSequenceLSTMOptions", version=3, fusedActivationFunction=4)


def stream(net: Network, x: End) -> End:
    """Keep the newest values in a resource variable: how streaming models remember."""
    name = f"v{net.rng.randrange(10**6)}"
    here = len(net._model.subgraphs) and net._model.subgraphs.index(net._graph)  # noqa: SLF001 - of this module
    once = net.begin_subgraph()
    handle = net.node("VAR_HANDLE", (), (net.tensor((), "RESOURCE", scale=None),), "VarHandleOptions", sharedName=name, container="")
    net.node("ASSIGN_VARIABLE", (handle, net.constant(np.zeros(x.shape), x.kind)), (), "AssignVariableOptions")
    net.go_to_subgraph(here)
    net.node("CALL_ONCE", (), (), "CallOnceOptions", initSubgraphIndex=once)
    handle = net.node("VAR_HANDLE", (), (net.tensor((), "RESOURCE", scale=None),), "VarHandleOptions", sharedName=name, container="")
    before = net.node("READ_VARIABLE", (handle,), (net.tensor(x.shape),), "ReadVariableOptions")
    both = net.node("ADD", (x, before), (net.tensor(x.shape),), "AddOptions")
    net.node("ASSIGN_VARIABLE", (handle, both), (), "AssignVariableOptions")
    return both


def while_(net: Network, x: End) -> End:
    """Never entered: the condition is false at once."""
    here = net._model.subgraphs.index(net._graph)  # noqa: SLF001 - of this module
    condition = net.begin_subgraph()
    given = net.tensor(x.shape)
    flat = net.node("REDUCE_MAX", (given, net.constant(list(range(len(x.shape))), "INT32")), (net.tensor(()),), "ReducerOptions", version=2)
    net.end_subgraph([given], [net.node("GREATER", (flat, flat), (net.tensor((), "BOOL"),), "GreaterOptions")])
    body = net.begin_subgraph()
    given = net.tensor(x.shape)
    net.end_subgraph([given], [net.node("RELU", (given,), (net.tensor(x.shape),))])
    net.go_to_subgraph(here)
    made = net.tensor(x.shape)
    return net.node("WHILE", (x,), (made,), "WhileOptions", condSubgraphIndex=condition, bodySubgraphIndex=body)


def if_(net: Network, x: End) -> End:
    """Two ways."""
    here = net._model.subgraphs.index(net._graph)  # noqa: SLF001 - of this module
    ways = []
    for name in ("RELU", "ABS" if net.kind == "FLOAT32" else "RELU6"):
        ways.append(net.begin_subgraph())
        given = net.tensor(x.shape)
        net.end_subgraph([given], [net.node(name, (given,), (net.tensor(x.shape),))])
    net.go_to_subgraph(here)
    which = net.input((1,), "BOOL")
    return net.node("IF", (which, x), (net.tensor(x.shape),), "IfOptions", thenSubgraphIndex=ways[0], elseSubgraphIndex=ways[1])


_ANY = {
    "RELU": _unary("RELU"), "RELU6": _unary("RELU6"), "LEAKY_RELU": _unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.1),
    "LOGISTIC": _unary("LOGISTIC", scale=(1 / 256, -128)), "TANH": _unary("TANH", scale=(1 / 128, 0)),
    "SOFTMAX": _unary("SOFTMAX", "SoftmaxOptions", scale=(1 / 256, -128), beta=1.0),
    "LOG_SOFTMAX": _unary("LOG_SOFTMAX", "LogSoftmaxOptions", scale=(16 / 256, 127)),
    "HARD_SWISH": _unary("HARD_SWISH", "HardSwishOptions"), "ELU": _unary("ELU"), "ABS": _unary("ABS", "AbsOptions"),
    "L2_NORMALIZATION": _unary("L2_NORMALIZATION", "L2NormOptions", scale=(1 / 128, 0)),
    "ADD": _binary("ADD", "AddOptions"), "SUB": _binary("SUB", "SubOptions"), "MUL": _binary("MUL", "MulOptions"),
    "MAXIMUM": _binary("MAXIMUM", "MaximumMinimumOptions"), "MINIMUM": _binary("MINIMUM", "MaximumMinimumOptions"),
    "SQUARED_DIFFERENCE": _binary("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"), "PRELU": prelu,
    "RESHAPE": reshape, "TRANSPOSE": transpose, "PAD": _pad("PAD", "PadOptions"), "PADV2": _pad("PADV2", "PadV2Options"),
    "SLICE": slice_, "STRIDED_SLICE": strided_slice, "CONCATENATION": concatenation, "SPLIT": split, "SPLIT_V": split_v,
    "PACK": pack_unpack, "GATHER": gather, "GATHER_ND": gather_nd, "BROADCAST_TO": broadcast_to,
    "MEAN": _reduce("MEAN"), "SUM": _reduce("SUM"), "REDUCE_MAX": _reduce("REDUCE_MAX"), "CUMSUM": cumsum, "ADD_N": add_n,
    "QUANTIZE": requantize, "DEQUANTIZE": dequantize, "CAST": cast, "FILL": fill, "REVERSE_V2": reverse,
    "ARG_MAX": _arg("ARG_MAX", "ArgMaxOptions"), "ARG_MIN": _arg("ARG_MIN", "ArgMinOptions"), "MIRROR_PAD": _pad("MIRROR_PAD", "MirrorPadOptions"),
    "SQUEEZE": squeeze, "EXPAND_DIMS": expand_dims,
    "FULLY_CONNECTED": fully_connected, "FULLY_CONNECTED per channel": fully_connected_per_channel,
    "BATCH_MATMUL": batch_matmul, "BATCH_MATMUL live": batch_matmul_live, "SVDF": svdf, "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm, "STREAM": stream, "WHILE": while_, "IF": if_,
    **{name: _compare(name) for name in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")},
}  # fmt: skip
_FLOAT_ONLY = {
    "RSQRT": _unary("RSQRT"), "EXP": _unary("EXP", "ExpOptions"), "L2_POOL_2D": _pool("L2_POOL_2D"),
    "CEIL": _unary("CEIL"), "COS": _unary("COS", "CosOptions"), "FLOOR": _unary("FLOOR"), "LOG": _unary("LOG"),
    "NEG": _unary("NEG", "NegOptions"), "ROUND": _unary("ROUND"), "SIN": _unary("SIN"), "SQRT": _unary("SQRT"),
    "SQUARE": _unary("SQUARE", "SquareOptions"), "ZEROS_LIKE": _unary("ZEROS_LIKE", "ZerosLikeOptions"),
    "DIV": _binary("DIV", "DivOptions"), "FLOOR_DIV": _binary("FLOOR_DIV", "FloorDivOptions"),
    "FLOOR_MOD": _binary("FLOOR_MOD", "FloorModOptions"),
}  # fmt: skip
_IMAGE = {
    "CONV_2D": conv_2d, "DEPTHWISE_CONV_2D": depthwise_conv_2d, "TRANSPOSE_CONV": transpose_conv,
    "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D"), "MAX_POOL_2D": _pool("MAX_POOL_2D"),
    "SPACE_TO_BATCH_ND": space_to_batch, "SPACE_TO_DEPTH": space_to_depth,
    "RESIZE_BILINEAR": _resize("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
}  # fmt: skip
LAYERS: dict[str, Layer] = {**_ANY, **_FLOAT_ONLY, **_IMAGE}
"""Every layer by the name of its main operator."""
FLOAT_ONLY = frozenset(_FLOAT_ONLY)
"""Those that TensorFlow Lite Micro computes in float only."""

KINDS = ("INT8", "FLOAT32")
_COMMON = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D", "ADD", "RELU", "RESHAPE", "SOFTMAX")
_LARGEST_ELEMENTS = 60_000  # keeps one try on TFLM in the millisecond range


def single(layer: str, kind: str, seed: int) -> bytes:
    """Return a network of one layer."""
    net = Network(kind, Random(seed))
    shape = (1, *(net.rng.randrange(2, 13) for _ in range(3)))
    return net.finish(LAYERS[layer](net, net.input(shape)))


def chain(kind: str, seed: int, *, layers: int = 0) -> bytes:
    """Return a network of `layers` layers (0: 2 to 14) with branches that meet again."""
    net = Network(kind, Random(seed))
    x = net.input((1, net.rng.randrange(4, 33), net.rng.randrange(4, 33), net.rng.randrange(1, 9)))
    kept: list[End] = []
    for _ in range(layers or net.rng.randrange(2, 15)):
        x = _next(net, x, kept)
        if net.rng.random() < 0.3:  # noqa: PLR2004 - a branch now and then
            kept.append(x)
    return net.finish(x)


def _next(net: Network, x: End, kept: list[End]) -> End:
    same = [each for each in kept if each.shape == x.shape and each != x]
    if same and net.rng.random() < 0.5:  # noqa: PLR2004 - a coin
        return net.node("ADD", (x, net.rng.choice(same)), (net.tensor(x.shape),), "AddOptions")
    names = [name for name in LAYERS if suits(name, net.kind, x)]
    common = [name for name in _COMMON if name in names]
    layer = LAYERS[net.rng.choice(common if net.rng.random() < 0.5 else names)]  # noqa: PLR2004 - a coin
    return layer(net, x)


def suits(layer: str, kind: str, x: End) -> bool:
    """Tell whether the layer can follow `x` in a network of `kind`."""
    growing = {"PAD", "PADV2", "CONCATENATION", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE_CONV", "MIRROR_PAD"}
    if layer in growing and prod(x.shape) * 4 > _LARGEST_ELEMENTS:
        return False
    if layer in {"EXPAND_DIMS", "SQUEEZE"} or (layer in {"TRANSPOSE", "BATCH_MATMUL live"} and len(x.shape) < 3):  # noqa: PLR2004 - would change the rank
        return False
    if layer.endswith("SOFTMAX") and x.shape[-1] > 1024:  # noqa: PLR2004 - integer sums of more than 4,000 overflow
        return False
    if layer.startswith("FULLY_CONNECTED") and prod(x.shape) > 8192:  # noqa: PLR2004 - weights of half a megabyte
        return False
    if layer == "MIRROR_PAD" and min(x.shape[1:]) < 2:  # noqa: PLR2004 - it mirrors one
        return False
    return (kind == "FLOAT32" or layer not in _FLOAT_ONLY) and (len(x.shape) == 4 or layer not in {*_IMAGE, "L2_POOL_2D"})  # noqa: PLR2004 - an image
