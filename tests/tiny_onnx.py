"""A small ONNX model written by hand, so that no test needs the onnx package. Source of the fields: onnx/onnx.proto3."""

import struct
from collections.abc import Sequence

from tests.tiny_models import CLASSES, FLOAT_INPUTS, float_weights

_FLOAT = 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _tensor(name: str, dims: Sequence[int], content: bytes) -> bytes:
    return b"".join(_number(1, dim) for dim in dims) + _number(2, _FLOAT) + _bytes(8, name) + _bytes(9, content)


def _value(name: str, dims: Sequence[int | str]) -> bytes:
    sizes = [_number(1, each) if isinstance(each, int) else _bytes(2, each) for each in dims]
    shape = b"".join(_bytes(1, size) for size in sizes)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, shape)))


def float_model(*, batch: int | str = 1) -> bytes:
    """GEMM, FP32 [1,256] → [1,4], bias 1, 2, 3, 4: what `tiny_models.float_model` computes."""
    weights = float_weights()
    rows = [weights[row * FLOAT_INPUTS : (row + 1) * FLOAT_INPUTS] for row in range(CLASSES)]
    flat = [value for row in rows for value in row]
    transposed = _bytes(5, _bytes(1, "transB") + _number(3, 1) + _number(20, 2))
    node = _bytes(1, "in") + _bytes(1, "w") + _bytes(1, "b") + _bytes(2, "out") + _bytes(4, "Gemm") + transposed
    graph = (
        _bytes(1, node)
        + _bytes(2, "tiny")
        + _bytes(5, _tensor("w", (CLASSES, FLOAT_INPUTS), struct.pack(f"<{len(flat)}f", *flat)))
        + _bytes(5, _tensor("b", (CLASSES,), struct.pack("<4f", 1, 2, 3, 4)))
        + _bytes(11, _value("in", (batch, FLOAT_INPUTS)))
        + _bytes(12, _value("out", (batch, CLASSES)))
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))
