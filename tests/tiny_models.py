"""Models of a few hundred bytes with known weights, written with the schema that LiteRT ships. Deterministic."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

FLOAT_INPUTS = 256  # 1 KiB of input
INT8_INPUTS = 64
CLASSES = 4


@dataclass(frozen=True)
class Quantized:
    scale: float
    zero_point: int


@dataclass(frozen=True)
class TinyTensor:
    name: str
    kind: str
    shape: Sequence[int]
    content: bytes = b""
    quantized: Quantized | None = None


@dataclass(frozen=True)
class TinyNode:
    operator: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: str = ""
    version: int = 1
    settings: dict[str, object] = field(default_factory=dict)


def build(
    tensors: Sequence[TinyTensor],
    nodes: Sequence[TinyNode],
    *,
    inputs: list[int],
    outputs: list[int],
    second: tuple[Sequence[TinyTensor], Sequence[TinyNode]] | None = None,
) -> bytes:
    """Write a model of one graph, or of two: a `second` that the first calls, without inputs and outputs."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    model.operatorCodes, model.subgraphs = [], []
    _add_graph(schema, model, tensors, nodes)
    model.subgraphs[0].inputs, model.subgraphs[0].outputs = inputs, outputs
    if second is not None:
        _add_graph(schema, model, *second)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _add_graph(schema: Any, model: Any, tensors: Sequence[TinyTensor], nodes: Sequence[TinyNode]) -> None:  # noqa: ANN401 # generated, untyped
    graph, known = schema.SubGraphT(), len(model.operatorCodes)
    graph.tensors = [_tensor(schema, model, tensor) for tensor in tensors]
    model.operatorCodes += [_code(schema, node) for node in nodes]
    graph.operators = [_operator(schema, node, known + index) for index, node in enumerate(nodes)]
    graph.inputs, graph.outputs = [], []
    model.subgraphs.append(graph)


def _tensor(schema: Any, model: Any, tiny: TinyTensor) -> Any:  # noqa: ANN401 # generated, untyped
    tensor = schema.TensorT()
    tensor.name, tensor.shape = tiny.name, list(tiny.shape)
    tensor.type = getattr(schema.TensorType, tiny.kind)
    if tiny.content:
        buffer = schema.BufferT()
        buffer.data = list(tiny.content)
        model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1 if tiny.content else 0
    if tiny.quantized is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [tiny.quantized.scale]
        tensor.quantization.zeroPoint = [tiny.quantized.zero_point]
    return tensor


def _code(schema: Any, node: TinyNode) -> Any:  # noqa: ANN401 # generated, untyped
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, node.operator)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), node.version
    return code


def _operator(schema: Any, node: TinyNode, index: int) -> Any:  # noqa: ANN401 # generated, untyped
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = index, list(node.inputs), list(node.outputs)
    if node.options:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, node.options)
        operator.builtinOptions = getattr(schema, node.options + "T")()
        for name, value in node.settings.items():
            setattr(operator.builtinOptions, name, value)
    return operator


def float_weights() -> list[float]:
    return [((7 * index) % 23 - 11) / 64 for index in range(CLASSES * FLOAT_INPUTS)]


def int8_weights() -> list[int]:
    return [(13 * index) % 201 - 100 for index in range(CLASSES * INT8_INPUTS)]


@cache
def float_model() -> bytes:
    """FULLY_CONNECTED, FP32 [1,256] → [1,4], bias 1, 2, 3, 4."""
    weights = float_weights()
    return build(
        [
            TinyTensor("in", "FLOAT32", (1, FLOAT_INPUTS)),
            TinyTensor("w", "FLOAT32", (CLASSES, FLOAT_INPUTS), struct.pack(f"<{len(weights)}f", *weights)),
            TinyTensor("b", "FLOAT32", (CLASSES,), struct.pack("<4f", 1, 2, 3, 4)),
            TinyTensor("out", "FLOAT32", (1, CLASSES)),
        ],
        [TinyNode("FULLY_CONNECTED", (0, 1, 2), (3,), "FullyConnectedOptions")],
        inputs=[0],
        outputs=[3],
    )


@cache
def int8_model() -> bytes:
    """FULLY_CONNECTED, INT8 [1,64] (scale 1/64, zero 3) → [1,4] (scale 1/8, zero -5)."""
    weights = int8_weights()
    return build(
        [
            TinyTensor("in", "INT8", (1, INT8_INPUTS), quantized=Quantized(1 / 64, 3)),
            TinyTensor(
                "w", "INT8", (CLASSES, INT8_INPUTS), struct.pack(f"<{len(weights)}b", *weights), Quantized(1 / 128, 0)
            ),
            TinyTensor("b", "INT32", (CLASSES,), struct.pack("<4i", 0, 100, 200, 300), Quantized(1 / 8192, 0)),
            TinyTensor("out", "INT8", (1, CLASSES), quantized=Quantized(1 / 8, -5)),
        ],
        [TinyNode("FULLY_CONNECTED", (0, 1, 2), (3,), "FullyConnectedOptions", version=4)],
        inputs=[0],
        outputs=[3],
    )


@cache
def node_only_model() -> bytes:
    """POW, which TensorFlow Lite Micro has not: FP32 [1,4] squared."""
    return build(
        [
            TinyTensor("in", "FLOAT32", (1, 4)),
            TinyTensor("two", "FLOAT32", (1,), struct.pack("<f", 2)),
            TinyTensor("out", "FLOAT32", (1, 4)),
        ],
        [TinyNode("POW", (0, 1), (2,), "PowOptions")],
        inputs=[0],
        outputs=[2],
    )


@cache
def two_input_model(width: int = 2) -> bytes:
    """ADD of two FP32 [1,`width`]."""
    return build(
        [TinyTensor(name, "FLOAT32", (1, width)) for name in ("a", "b", "sum")],
        [TinyNode("ADD", (0, 1), (2,), "AddOptions")],
        inputs=[0, 1],
        outputs=[2],
    )


@cache
def hungry_model(element_count: int = 2**27) -> bytes:
    """RELU over a gigabyte: 512 MiB in, 512 MiB out."""
    return build(
        [TinyTensor("in", "FLOAT32", (1, element_count)), TinyTensor("out", "FLOAT32", (1, element_count))],
        [TinyNode("RELU", (0,), (1,))],
        inputs=[0],
        outputs=[1],
    )


@cache
def stateful_model() -> bytes:
    """A running sum in a resource variable: FP32 [1] → [1], the total of all inputs since it was loaded."""
    handle = TinyNode("VAR_HANDLE", (), (1,), "VarHandleOptions", settings={"container": "", "sharedName": "total"})
    return build(
        [
            TinyTensor("in", "FLOAT32", (1,)), TinyTensor("handle", "RESOURCE", ()),
            TinyTensor("before", "FLOAT32", (1,)), TinyTensor("total", "FLOAT32", (1,)),
        ],
        [
            TinyNode("CALL_ONCE", (), (), "CallOnceOptions", settings={"initSubgraphIndex": 1}),
            handle,
            TinyNode("READ_VARIABLE", (1,), (2,), "ReadVariableOptions"),
            TinyNode("ADD", (0, 2), (3,), "AddOptions"),
            TinyNode("ASSIGN_VARIABLE", (1, 3), (), "AssignVariableOptions"),
        ],
        inputs=[0],
        outputs=[3],
        second=(
            [TinyTensor("zero", "FLOAT32", (1,), bytes(4)), TinyTensor("handle", "RESOURCE", ())],
            [handle, TinyNode("ASSIGN_VARIABLE", (1, 0), (), "AssignVariableOptions")],
        ),
    )  # fmt: skip


ALL: dict[str, Callable[[], bytes]] = {
    "float": float_model,
    "int8": int8_model,
    "node-only": node_only_model,
    "two-inputs": two_input_model,
}
