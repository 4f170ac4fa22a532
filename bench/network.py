"""A TensorFlow Lite network under construction, for benchmarks and tests.

Written with the schema that LiteRT ships. What they compute is of no interest; sizes, lifetimes and operators are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # it ships no types
import numpy as np
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]  # as above

_NUMPY = {
    "FLOAT32": np.float32,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}

Scale = tuple[float, int]
PLAIN: Scale = (0.05, 0)


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

    @property
    def subgraph(self) -> int:
        """The number of the subgraph under construction."""
        number: int = self._model.subgraphs.index(self._graph)
        return number

    def go_to_subgraph(self, number: int) -> None:
        """Go on with a subgraph begun before."""
        self._graph = self._model.subgraphs[number]

    def end_subgraph(self, inputs: Sequence[End], outputs: Sequence[End]) -> None:
        """Name the ends of the subgraph under construction."""
        self._graph.inputs, self._graph.outputs = [x.index for x in inputs], [x.index for x in outputs]

    def tensor(
        self, shape: Sequence[int], kind: str = "", *, scale: Scale | None = PLAIN, variable: bool = False
    ) -> End:
        """Add an activation; integers of 8 and 16 bits get `scale`."""
        return self._add(shape, kind or self.kind, scales=[scale] if scale else [], buffer=0, variable=variable)

    def input(self, shape: Sequence[int], kind: str = "") -> End:
        """Add an input of the model."""
        made = self.tensor(shape, kind)
        self.inputs.append(made)
        return made

    def constant(
        self,
        values: Any,  # noqa: ANN401 # whatever numpy takes
        kind: str,
        *,
        shape: Sequence[int] | None = None,
        scales: Sequence[Scale] = (PLAIN,),
        axis: int = 0,  # whatever numpy takes
    ) -> End:
        """Add a constant."""
        content: np.ndarray = np.asarray(values, _NUMPY[kind])
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
        self,
        shape: Sequence[int],
        kind: str,
        *,
        scales: Sequence[Scale],
        buffer: int,
        axis: int = 0,
        variable: bool = False,
    ) -> End:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self._graph.tensors)}"
        tensor.shape, tensor.type = list(shape), getattr(schema.TensorType, kind)
        tensor.buffer, tensor.isVariable = buffer, variable
        if scales and (kind in {"INT8", "INT16"} or (buffer and kind in {"INT32", "INT64"} and scales[0] != PLAIN)):
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
"""Adds operators after a tensor and returns the last one's output."""


def is_heads(net: Network) -> bool:
    """Toss a coin."""
    return net.rng.random() < 0.5


def strided(size: int, stride: int) -> int:
    """Return the size that same-padding leaves."""
    return -(-size // stride)
