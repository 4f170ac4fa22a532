from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import ModelRefused
from gatewayd.core.model import Operator
from gatewayd.core.tensor import DType
from gatewayd.wire.onnx import read_onnx


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def end(name: str, kind: int, *sizes: int | str) -> bytes:
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size.encode())) for size in sizes)
    return field(1, name.encode()) + field(2, field(1, field(1, kind) + field(2, dims)))


def node(operator: str, domain: str = "") -> bytes:
    return field(4, operator.encode()) + (field(7, domain.encode()) if domain else b"")


def constant(name: str, content: bytes, *, external: bool = False) -> bytes:
    return field(8, name.encode()) + field(9, content) + (field(14, 1) if external else b"")


def model(
    *,
    nodes: tuple[bytes, ...] = (),
    inputs: tuple[bytes, ...] = (),
    outputs: tuple[bytes, ...] = (),
    constants: tuple[bytes, ...] = (),
) -> bytes:
    parts = ((1, nodes), (5, constants), (11, inputs), (12, outputs))
    graph = b"".join(field(number, each) for number, many in parts for each in many)
    versions = field(8, field(1, b"") + field(2, 17)) + field(8, field(1, b"com.microsoft") + field(2, 1))
    return field(1, 8) + versions + field(7, graph)


X, Y = end("x", 1, 1, 3, 8, 8), end("y", 1, 1, 10)
GOOD = model(
    nodes=(node("Conv"), node("Conv"), node("Relu", "ai.onnx"), node("FusedGemm", "com.microsoft")),
    inputs=(X, end("w", 1, 4)), outputs=(Y,), constants=(constant("w", bytes(16)),),
)  # fmt: skip


def test_a_model_is_read() -> None:
    read = read_onnx(GOOD)
    assert read.operators == (
        Operator("Conv", 17, 2),
        Operator("Relu", 17, 1),
        Operator("com.microsoft.FusedGemm", 1, 1),
    )
    assert [(each.name, each.dtype, each.shape) for each in read.inputs] == [("x", DType.FP32, (1, 3, 8, 8))]
    assert [(each.name, each.shape) for each in read.outputs] == [("y", (1, 10))]
    assert (read.macs, read.weights_bytes, read.forecast) == (0, 16, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an ONNX model"),
        (b"\x1c\x00\x00\x00TFL3", "wire type 4"),
        (model(inputs=(X,)), "the model has 0 outputs"),
        (model(inputs=(end("x", 1, "batch", 3),), outputs=(Y,)), "input 0 ('x'): dimension 0 has the size 'batch'"),
        (model(inputs=(end("x", 1, 0),), outputs=(Y,)), "unknown size: export the model with a fixed shape"),
        (model(inputs=(end("x", 10, 3),), outputs=(Y,)), "element type 10"),
        (model(inputs=(end("x", 1, 2**40),), outputs=(Y,)), "the limit is 67108864"),
        (model(inputs=(field(1, b"x"),), outputs=(Y,)), "is no tensor"),
        (model(inputs=(X,), outputs=(Y,), nodes=(field(1, b"x"),)), "node 0 does not say what operator it is"),
        (model(inputs=(X,), outputs=(Y,), constants=(constant("w", b"", external=True),)), "in another file"),
        (model(inputs=(X,), outputs=(end("y", 1, *([1] * 9)),)), "more than 8 dimensions"),
    ],
)
def test_what_cannot_be_served_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        read_onnx(content)
    assert reason in str(caught.value)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, 40))
def test_a_damaged_file_is_read_or_refused(at: int, value: int, cut: int) -> None:
    content = GOOD[:at] + bytes([value]) + GOOD[at + 1 : len(GOOD) - cut]
    with suppress(ModelRefused):
        assert read_onnx(content).inputs
