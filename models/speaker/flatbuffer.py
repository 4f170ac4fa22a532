# ruff: noqa: INP001 - modules of one script's directory, not a package
"""Writes the network as a TensorFlow Lite file: schema version 3, weights inline and aligned to 16 bytes.

The generated schema code is untyped; nothing of it leaves this module but bytes.
Source: tensorflow/lite/schema/schema.fbs; operator versions after tensorflow/lite/tools/versioning/op_version.cc.
"""

from typing import Any, Final

import flatbuffers  # type: ignore[import-untyped]  # ships no types
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]  # generated, no types
from exact import Array
from network import Layout
from vowels import COEFFICIENTS, FRAMES, SPEAKERS

INPUT: Final = "lpc"
OUTPUT: Final = "probability"
SIGNATURE: Final = "serving_default"
_SCHEMA_VERSION: Final = 3
_ALIGNMENT_BYTES: Final = 16
"""Buffer.data is force_align: 16 in the schema; Python's object API forgets it, and int32 biases must be aligned on MCUs."""
_INT8_VERSIONS: Final = {
    schema.BuiltinOperator.CONV_2D: 3,
    schema.BuiltinOperator.AVERAGE_POOL_2D: 2,
    schema.BuiltinOperator.RESHAPE: 1,
    schema.BuiltinOperator.FULLY_CONNECTED: 4,
    schema.BuiltinOperator.SOFTMAX: 2,
}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # the generated base is untyped
    def Pack(self, builder: Any) -> int:  # noqa: N802, ANN401 - the generated code calls it by this name, with its builder
        content = b"" if self.data is None else bytes(self.data)
        if content:
            builder.StartVector(1, len(content), _ALIGNMENT_BYTES)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if content:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


class _Graph:
    """One subgraph under construction; a tensor is known by its index."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.buffers: list[Any] = [_AlignedBuffer()]  # number 0 is the empty buffer, by convention

    def tensor(self, name: str, shape: list[int], content: npt.NDArray[Any] | None = None) -> int:
        """Add an activation (float32), or a constant with the content's type."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, shape
        if content is not None:
            tensor.type = schema.TensorType.INT32 if content.dtype == np.int32 else schema.TensorType.FLOAT32
            tensor.buffer = len(self.buffers)
            self.buffers.append(_buffer(content.tobytes()))
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, name: str, options: Any, inputs: list[int], output: int) -> int:  # noqa: ANN401 - any …OptionsT
        """Add an operator and return its output."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        known = [known.builtinCode for known in self.codes]
        if code.builtinCode not in known:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(known) if code.builtinCode not in known else known.index(code.builtinCode)
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.operators.append(operator)
        return output


def write_float(layout: Layout, vector: Array, gains: Array, description: str) -> bytes:
    """The float32 file; `gains` scale the input and are folded into the first layer."""
    parts = layout.split(vector)
    first = parts[0].reshape(layout.kernel, COEFFICIENTS, layout.first) * gains[None, :, None]
    second = parts[2].reshape(layout.kernel, layout.first, layout.second)
    graph = _Graph()
    source = graph.tensor(INPUT, [1, FRAMES, 1, COEFFICIENTS])
    frames = _convolution(graph, "first", source, first, parts[1])
    frames = _convolution(graph, "second", frames, second, parts[3])
    features = _mean(graph, frames, layout.second)
    logits = _fully_connected(graph, features, parts[4], parts[5])
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    result = graph.operator("SOFTMAX", options, [logits], graph.tensor(OUTPUT, [1, SPEAKERS]))
    return _pack(_model(graph, source, result, description))


def finish_int8(content: bytes) -> bytes:
    """Rewrite a quantiser's file so that old runtimes read it: data inline, operator versions of int8 kernels."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    model.buffers = [_buffer(_content(buffer, content)) for buffer in model.buffers]
    for code in model.operatorCodes:
        code.version = _INT8_VERSIONS[code.builtinCode]
        code.deprecatedBuiltinCode = code.builtinCode
    model.metadata = None
    return _pack(_without_unused_buffers(model))


def _convolution(graph: _Graph, name: str, source: int, weight: Array, bias: Array) -> int:
    """Convolution over time, stride 1, padding SAME, ReLU; weight [kernel, in, out]."""
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideH = options.strideW = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    kernel = weight.transpose(2, 0, 1)[:, :, None, :].astype(np.float32)
    inputs = [source, graph.tensor(f"{name}/weight", list(kernel.shape), kernel), _bias(graph, name, bias)]
    return graph.operator("CONV_2D", options, inputs, graph.tensor(name, [1, FRAMES, 1, len(bias)]))


def _mean(graph: _Graph, frames: int, channels: int) -> int:
    """Mean over all frames, padding included, as a vector."""
    pool = schema.Pool2DOptionsT()
    pool.padding = schema.Padding.VALID
    pool.strideH = pool.strideW = pool.filterWidth = 1
    pool.filterHeight = FRAMES
    mean = graph.operator("AVERAGE_POOL_2D", pool, [frames], graph.tensor("mean", [1, 1, 1, channels]))
    options = schema.ReshapeOptionsT()
    options.newShape = [1, channels]
    shape = graph.tensor("features/shape", [2], np.array([1, channels], np.int32))
    return graph.operator("RESHAPE", options, [mean, shape], graph.tensor("features", [1, channels]))


def _fully_connected(graph: _Graph, features: int, weight: Array, bias: Array) -> int:
    """Scores of the speakers; weight [in, out]."""
    matrix = weight.T.astype(np.float32)
    inputs = [features, graph.tensor("last/weight", list(matrix.shape), matrix), _bias(graph, "last", bias)]
    output = graph.tensor("last", [1, len(bias)])
    return graph.operator("FULLY_CONNECTED", schema.FullyConnectedOptionsT(), inputs, output)


def _bias(graph: _Graph, name: str, bias: Array) -> int:
    return graph.tensor(f"{name}/bias", [len(bias)], bias.astype(np.float32))


def _model(graph: _Graph, source: int, result: int, description: str) -> Any:  # noqa: ANN401 - untyped ModelT
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
    subgraph.inputs, subgraph.outputs = [source], [result]
    model = schema.ModelT()
    model.version, model.description = _SCHEMA_VERSION, description
    model.operatorCodes, model.subgraphs, model.buffers = graph.codes, [subgraph], graph.buffers
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs, signature.outputs = [_named(INPUT, source)], [_named(OUTPUT, result)]
    model.signatureDefs = [signature]
    return model


def _named(name: str, index: int) -> Any:  # noqa: ANN401 - untyped TensorMapT
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _buffer(content: bytes) -> _AlignedBuffer:
    buffer = _AlignedBuffer()
    buffer.data = content
    return buffer


def _content(buffer: Any, file: bytes) -> bytes:  # noqa: ANN401 - untyped BufferT
    """A buffer's bytes, which newer writers put behind the flatbuffer at an offset (1 stands for none)."""
    if buffer.offset > 1:
        return file[buffer.offset : buffer.offset + buffer.size]
    return b"" if buffer.data is None else bytes(buffer.data)


def _without_unused_buffers(model: Any) -> Any:  # noqa: ANN401 - untyped ModelT
    """Give each constant its own number after the empty buffer 0; activations use that."""
    kept = [_AlignedBuffer()]
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        tensor.buffer = len(kept) if buffer.data else 0
        kept += [buffer] if buffer.data else []
    model.buffers = kept
    return model


def _pack(model: Any) -> bytes:  # noqa: ANN401 - untyped ModelT
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
