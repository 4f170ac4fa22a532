"""Static reading, against models written with LiteRT's own schema and read by LiteRT's own interpreter."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from struct import pack, pack_into
from typing import Any, TypeAlias

import flatbuffers  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]  # generated, without types
from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-untyped]  # it ships no types
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.errors import ModelRefused
from gatewayd.core.model import Operator, Structure
from gatewayd.core.tensor import DType, Quantization
from gatewayd.services.ports import ModelReader
from gatewayd.wire import tflite
from gatewayd.wire.tflite import read_model

Generated: TypeAlias = Any  # the schema's classes carry no types
Ops = schema.BuiltinOperator
Types = schema.TensorType
NUMPY = {np.float32: DType.FP32, np.int8: DType.INT8, np.int32: DType.INT32}


class Net:
    """A model in the making: tensors, operators and buffers are added, `pack` writes the file."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self, name: str, shape: Sequence[int], kind: int = Types.FLOAT32, *, scale: float = 0, zero: int = 0
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        if scale:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(
        self, name: str, content: "np.ndarray[Any, Any]", kind: int = Types.FLOAT32, *, scale: float = 0
    ) -> int:
        index = self.tensor(name, content.shape, kind, scale=scale)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def operator(
        self, builtin: int, inputs: Sequence[int], outputs: Sequence[int], options: Generated = None
    ) -> Generated:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(operator)
        return code

    def pack(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def conv_options(*, multiplier: int = 0) -> Generated:
    options = schema.DepthwiseConv2DOptionsT() if multiplier else schema.Conv2DOptionsT()
    options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
    options.padding = schema.Padding.SAME
    if multiplier:
        options.depthMultiplier = multiplier
    return options


def float_net() -> Net:
    """8×8×2 → conv 3×3 to 4 channels → depthwise 3×3 → softmax over a fully connected 5."""
    net = Net()
    image = net.tensor("image", (1, 8, 8, 2))
    conv, depthwise = net.tensor("conv", (1, 8, 8, 4)), net.tensor("depthwise", (1, 8, 8, 4))
    dense, classes = net.tensor("dense", (1, 5)), net.tensor("classes", (1, 5))
    weights = [
        net.constant(f"w{n}", np.ones(shape, np.float32)) for n, shape in enumerate([(4, 3, 3, 2), (1, 3, 3, 4)])
    ]
    bias = net.constant("bias", np.zeros(4, np.float32))
    last = net.constant("last", np.full((5, 256), 0.01, np.float32))
    net.operator(Ops.CONV_2D, [image, weights[0], bias], [conv], conv_options())
    net.operator(Ops.DEPTHWISE_CONV_2D, [conv, weights[1], bias], [depthwise], conv_options(multiplier=1))
    net.operator(Ops.FULLY_CONNECTED, [depthwise, last, -1], [dense], schema.FullyConnectedOptionsT())
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    net.operator(Ops.SOFTMAX, [dense], [classes], softmax)
    net.graph.inputs, net.graph.outputs = [image], [classes]
    return net


def int8_net(*, zero: int = -7) -> Net:
    """Quantised: 6 → fully connected 3, whose second output is a constant's neighbour in int32."""
    net = Net()
    window = net.tensor("window", (1, 6), Types.INT8, scale=0.25, zero=zero)
    scores = net.tensor("scores", (1, 3), Types.INT8, scale=0.5, zero=3)
    weights = net.constant("w", np.ones((3, 6), np.int8), Types.INT8, scale=0.125)
    bias = net.constant("b", np.zeros(3, np.int32), Types.INT32, scale=0.25 * 0.125)
    net.operator(Ops.FULLY_CONNECTED, [window, weights, bias], [scores], schema.FullyConnectedOptionsT()).version = 4
    net.graph.inputs, net.graph.outputs = [window], [scores]
    return net


@cache
def valid_file() -> bytes:
    return int8_net().pack()


READER: ModelReader = read_model


def ends(details: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [
        (each["name"], NUMPY[each["dtype"]], tuple(each["shape"].tolist()), tuple(each["quantization"]))
        for each in details
    ]


def as_litert_says(structure: Structure) -> list[list[tuple[Any, ...]]]:
    return [
        [
            (each.name, each.dtype, each.shape, (q.scale, q.zero_point) if (q := each.quantization) else (0.0, 0))
            for each in group
        ]
        for group in (structure.inputs, structure.outputs)
    ]


def refusal(content: bytes) -> str:
    with pytest.raises(ModelRefused) as caught:
        read_model(content)
    return str(caught.value)


@pytest.mark.parametrize("net", [float_net, int8_net])
def test_agrees_with_the_interpreter(net: Callable[[], Net]) -> None:
    content = net().pack()
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    structure = read_model(content)
    assert as_litert_says(structure) == [
        ends(interpreter.get_input_details()),
        ends(interpreter.get_output_details()),
    ]
    ran = Counter(each["op_name"] for each in interpreter._get_ops_details())  # noqa: SLF001 - no public list exists
    assert {each.name: each.count for each in structure.operators} == ran


def test_float_network_is_counted() -> None:
    structure = read_model(float_net().pack())
    assert structure.macs == 64 * 4 * 18 + 64 * 4 * 9 + 5 * 256
    assert structure.weights_bytes == 4 * (72 + 36 + 4 + 5 * 256)
    assert structure.operators[0] == Operator("CONV_2D", 1, 1)
    assert structure.inputs[0].quantization is None


def test_int8_network_is_described() -> None:
    structure = read_model(valid_file())
    assert structure.operators == (Operator("FULLY_CONNECTED", 4, 1),)
    assert structure.inputs[0].quantization == Quantization(0.25, -7)
    assert (structure.macs, structure.weights_bytes) == (18, 18 + 12)


def test_operators_of_one_kind_are_counted_together() -> None:
    net = int8_net()
    net.graph.operators *= 3
    assert read_model(net.pack()).operators == (Operator("FULLY_CONNECTED", 4, 3),)


def test_custom_operator_goes_by_its_code() -> None:
    net = int8_net()
    code = net.operator(Ops.CUSTOM, [0], [1])
    code.customCode = "ethos-u"
    assert Operator("ethos-u", 1, 1) in read_model(net.pack()).operators


def test_operator_code_of_an_old_file_is_in_the_deprecated_field() -> None:
    net = int8_net()
    net.model.operatorCodes[0].builtinCode = 0
    assert read_model(net.pack()).operators[0].name == "FULLY_CONNECTED"


def test_operator_code_above_127_is_in_the_new_field() -> None:
    net = int8_net()
    net.operator(Ops.GELU, [0], [1])
    assert read_model(net.pack()).operators[1].name == "GELU"


def test_operators_of_other_subgraphs_count() -> None:
    net, other = int8_net(), float_net()
    for operator in other.graph.operators:
        operator.opcodeIndex = 0
    for tensor in other.graph.tensors:
        tensor.buffer = 0
    other.graph.operators = other.graph.operators[2:3]
    net.model.subgraphs.append(other.graph)
    assert read_model(net.pack()).operators == (Operator("FULLY_CONNECTED", 4, 2),)


def test_changeable_batch_size_is_no_obstacle() -> None:
    net = int8_net()
    net.graph.tensors[0].shapeSignature = [-1, 6]
    assert read_model(net.pack()).inputs[0].shape == (1, 6)


def test_nameless_tensor_is_named_for_its_place() -> None:
    net = int8_net()
    net.graph.tensors[1].name = None
    assert read_model(net.pack()).outputs[0].name == "output_0"


def test_weights_behind_the_flatbuffer_count() -> None:
    net = int8_net()
    buffer = net.model.buffers[1]
    buffer.data, buffer.offset, buffer.size = None, 2**40 + 1, 18
    content = bytearray(net.pack())
    pack_into("<Q", content, content.index(pack("<Q", 2**40 + 1)), len(content))
    assert read_model(bytes(content) + bytes(18)).weights_bytes == 30
    assert "buffer 1's data lies outside the file" in refusal(bytes(content) + bytes(17))


def change(path: str, value: object) -> bytes:
    """Return the int8 model with one attribute changed, such as `graph.tensors.0.shape`."""
    net = int8_net()
    target: Any = net
    *parts, last = path.split(".")
    for part in parts:
        target = target[int(part)] if part.isdigit() else getattr(target, part)
    setattr(target, last, value)
    return net.pack()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.version", 2, "schema version 2 is not supported: convert the model to version 3"),
        ("model.subgraphs", [], "the model has no subgraph"),
        ("model.operatorCodes", [], "operator 0 uses the operator code 0, there are 0"),
        (
            "model.operatorCodes.0.builtinCode",
            4711,
            "operator code 0: builtin operator 4711 is not known (the newest known is 209, STABLEHLO_CASE)",
        ),
        ("model.operatorCodes.0.builtinCode", 32, "operator code 0 is a custom operator without a custom code"),
        (
            "model.operatorCodes.0.version",
            -1,
            "operator code 0 (FULLY_CONNECTED) has the version -1: versions count from 1",
        ),
        ("graph.inputs", [], "the model has no input"),
        ("graph.outputs", [9], "output 0 is tensor 9, there are 4"),
        ("graph.outputs", [0] * 65, "subgraph 0's outputs has 65 items, the limit is 64"),
        ("graph.tensors.0.type", 5, "input 0 ('window') is STRING; only FLOAT32, INT8, UINT8"),
        ("graph.tensors.0.type", 99, "tensor 0 has the element type 99, which is not known"),
        ("graph.tensors.0.shape", [-1, 6], "input 0 ('window') has the unknown or empty shape [-1, 6]: convert"),
        ("graph.tensors.0.shape", [1] * 9, "tensor 0's shape has 9 items, the limit is 8"),
        ("graph.tensors.0.shape", [65536, 65536], "input 0 ('window') is 4294967296 bytes, the limit is 67108864"),
        ("graph.tensors.0.name", "a\nb", "tensor 0's name holds unprintable characters"),
        ("graph.tensors.0.name", b"\xff", "tensor 0's name is not UTF-8"),
        ("graph.tensors.0.name", "x" * 1025, "tensor 0's name has 1025 items, the limit is 1024"),
        ("graph.tensors.0.externalBuffer", 1, "tensor 0's values are in another file: convert the model into"),
        ("graph.tensors.2.shape", [-1, 6], "operator 0 (FULLY_CONNECTED): an operand has the unknown shape [-1, 6]"),
        ("graph.tensors.2.shape", [18], "operator 0 (FULLY_CONNECTED): its weights must have 2 dimensions"),
        ("graph.tensors.2.shape", [3, 7], "tensor 2 needs 21 bytes for the shape [3, 7], its buffer 1 holds 18"),
        ("graph.tensors.2.buffer", 7, "tensor 2 uses buffer 7, there are 3"),
        ("graph.tensors.0.quantization.scale", [0.5, 0.5], "input 0 ('window') is quantised per channel (2 scales)"),
        ("graph.tensors.0.quantization.scale", [float("nan")], "input 0 ('window') has the scale nan; it must be"),
        ("graph.tensors.0.quantization.zeroPoint", [200], "input 0 ('window') has the zero point 200; INT8 holds"),
        ("graph.operators.0.inputs", [0], "operator 0 (FULLY_CONNECTED): an operand is missing"),
        ("graph.operators.0.inputs", [0, 4], "operator 0's input is tensor 4, there are 4"),
    ],
)
def test_refusal_names_what_and_where(path: str, value: object, message: str) -> None:
    assert message in refusal(change(path, value))


def test_custom_operator_may_not_pose_as_a_builtin_one() -> None:
    net = int8_net()
    net.operator(Ops.CUSTOM, [0], [1]).customCode = "CONV_2D"
    assert "bears a builtin one's name, CONV_2D" in refusal(net.pack())


def test_absurd_cost_is_refused() -> None:
    net = int8_net()
    net.operator(Ops.FULLY_CONNECTED, [0, 2, 3], [net.tensor("absurd", (2**30, 2**30))])
    assert "one inference would take 6.9e+18 multiply-accumulates, the limit is 1e+15" in refusal(net.pack())


def test_not_a_model() -> None:
    for content in (b"", b"TFL3", b"PK\x03\x04 a zip archive", valid_file()[4:]):
        assert refusal(content) == "not a TensorFlow Lite model: no TFL3 identifier"


def test_truncation_names_the_place() -> None:
    assert refusal(valid_file()[:8]).startswith("truncated: the model")
    assert refusal(valid_file()[:-40]).startswith("truncated: ")
    assert "lies outside the file (offset " in refusal(valid_file()[:-40])


def test_too_large() -> None:
    assert refusal(bytes(tflite.MAX_MODEL_BYTES + 1)) == "too large: 67108865 bytes, the limit is 67108864"


def test_every_truncation_is_refused_or_read() -> None:
    content = valid_file()
    for length in range(len(content)):
        read_or_refuse(content[:length])


def test_every_byte_set_to_every_extreme_is_refused_or_read() -> None:
    content = bytearray(valid_file())
    for index, original in enumerate(content):
        for value in (0, 1, 0x7F, 0x80, 0xFF, original ^ 1, original ^ 4):
            content[index] = value
            read_or_refuse(bytes(content))
        content[index] = original


@settings(max_examples=300, deadline=500)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8))
def test_several_flipped_bytes_are_refused_or_read(flips: list[tuple[int, int]]) -> None:
    content = bytearray(valid_file())
    for index, value in flips:
        content[index % len(content)] = value
    read_or_refuse(bytes(content))


@settings(max_examples=300, deadline=500)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(content: bytes) -> None:
    read_or_refuse(content)
    read_or_refuse(content[:4] + b"TFL3" + content[8:])


def test_shared_vectors_cannot_make_a_small_file_expensive() -> None:
    net = int8_net()
    net.graph.operators[0].inputs = [0, 2, 3] + [0] * (tflite.MAX_OPERANDS - 3)
    net.graph.operators *= tflite.MAX_OPERATORS
    content = sharing_operators(net)
    started = time.process_time()
    assert read_model(content).operators[0].count == tflite.MAX_OPERATORS
    assert time.process_time() - started < 5.0


def sharing_operators(net: Net) -> bytes:
    """Pack one operator and let every entry of the operator vector point at it."""
    operators, net.graph.operators = net.graph.operators, net.graph.operators[:1]
    builder = flatbuffers.Builder(1024)
    shared = net.graph.operators[0].Pack(builder)
    for operator in operators:
        operator.Pack = lambda _: shared
    net.graph.operators = operators
    builder.Finish(net.model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read_or_refuse(content: bytes) -> None:
    """Anything but a Structure or a ModelRefused is an error that fails the test."""
    try:
        outcome: object = read_model(content)
    except ModelRefused as error:
        outcome = str(error)
    assert isinstance(outcome, Structure) or 0 < len(str(outcome)) < 2000
