"""Tensors and their descriptions: the values every room hands on. Bytes are little-endian, row-major, without padding."""

import struct
from array import array
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from math import isfinite, isnan, prod

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record


class DType(Enum):
    """Element types, by their Open Inference Protocol names."""

    FP32 = "FP32"
    INT8 = "INT8"
    UINT8 = "UINT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    BOOL = "BOOL"

    # By identity, as members are compared: what Enum brings is a Python function, and every tensor looks things up by its dtype.
    __hash__ = object.__hash__

    @property
    def item_bytes(self) -> int:
        """Size of one element in bytes."""
        return _ITEM_BYTES[self]

    @property
    def is_integer(self) -> bool:
        """Whether values are whole numbers."""
        return self not in {DType.FP32, DType.BOOL}


_ITEM_BYTES = {
    DType.FP32: 4, DType.INT8: 1, DType.UINT8: 1, DType.INT16: 2, DType.INT32: 4, DType.INT64: 8, DType.BOOL: 1,
}  # fmt: skip
_TYPECODES = {
    DType.FP32: "f", DType.INT8: "b", DType.UINT8: "B", DType.INT16: "h", DType.INT32: "i", DType.INT64: "q", DType.BOOL: "B",
}  # fmt: skip
_RANGES = {
    DType.INT8: (-128, 127), DType.UINT8: (0, 255), DType.INT16: (-(2**15), 2**15 - 1),
    DType.INT32: (-(2**31), 2**31 - 1), DType.INT64: (-(2**63), 2**63 - 1),
}  # fmt: skip


@record
class Quantization:
    """Affine quantisation: real = (stored - zero_point) * scale. Source: TFLite 8-bit quantization specification."""

    scale: float
    zero_point: int


@record
class TensorSpec:
    """What one input or output must be. `quantization` is None where stored values are the real values."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    quantization: Quantization | None = None

    @property
    def element_count(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def byte_count(self) -> int:
        """Size of the tensor's content in bytes."""
        return self.element_count * self.dtype.item_bytes


@record
class Tensor:
    """A named tensor; `content` is exactly as long as dtype and shape say (checked on construction).

    Raises: BadRequest when the length is another.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    content: bytes

    def __post_init__(self) -> None:
        expected = prod(self.shape) * self.dtype.item_bytes
        if len(self.content) != expected:
            kind = f"{self.dtype.value} of shape {list(self.shape)}"
            message = f"tensor {self.name!r}: {kind} is {expected} bytes, got {len(self.content)}"
            raise BadRequest(message)

    def values(self) -> Sequence[float]:
        """Return the stored elements as Python numbers (a copy)."""
        items = array(_TYPECODES[self.dtype])
        items.frombytes(self.content)
        return items


def tensor_from_values(spec: TensorSpec, values: Iterable[float]) -> Tensor:
    """Pack stored values (not real ones) into a tensor of `spec`.

    Raises: BadRequest when a value does not fit the dtype or the count is wrong.
    """
    return Tensor(spec.name, spec.dtype, spec.shape, _packed(values, spec))


def packed_numbers(spec: TensorSpec, values: Sequence[object]) -> bytes | None:
    """Pack a flat list of stored values, the fastest way there is; None when they are not what `spec` says, or not finite.

    True and False pass as 1 and 0: for lists that hold none.
    """
    if len(values) != spec.element_count or spec.dtype is DType.BOOL:
        return None
    try:
        content = _packer(_TYPECODES[spec.dtype], len(values)).pack(*values)
    except (struct.error, OverflowError, TypeError):
        return None
    if spec.dtype is DType.FP32 and not isfinite(sum(values)):  # type: ignore[arg-type]  # numbers, as they were packed
        return None
    return content


@lru_cache(maxsize=64)
def _packer(typecode: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{typecode}")


def _packed(values: Iterable[float], spec: TensorSpec) -> bytes:
    try:
        return array(_TYPECODES[spec.dtype], values).tobytes()
    except (TypeError, OverflowError) as error:
        message = f"input {spec.name!r}: not all values are {spec.dtype.value}: {error}"
        raise BadRequest(message) from error


def converted(tensor: Tensor, *, source: Quantization | None, target: TensorSpec) -> Tensor:
    """Re-express `tensor` (whose stored values mean what `source` says) as `target` stores it: dtype, scale, zero point.

    Values that fall outside the target's range saturate, as TFLite's QUANTIZE does; infinities are such values.

    Raises: BadRequest when element counts differ, or a value that must become a whole number is none at all (NaN).
    """
    if tensor.dtype is target.dtype and tensor.shape == target.shape and source == target.quantization:
        return tensor if tensor.name == target.name else Tensor(target.name, target.dtype, target.shape, tensor.content)
    if prod(tensor.shape) != target.element_count:
        message = f"{target.name!r}: {list(tensor.shape)} cannot become {list(target.shape)}"
        raise BadRequest(message)
    return Tensor(target.name, target.dtype, target.shape, _converted_content(tensor, source, target))


def _converted_content(tensor: Tensor, source: Quantization | None, target: TensorSpec) -> bytes:
    if tensor.dtype is target.dtype and source == target.quantization:
        return tensor.content
    if tensor.dtype in _BYTE_TYPES and target.dtype is not DType.BOOL:
        return _by_table(tensor.content, _byte_tables(tensor.dtype, source, target.dtype, target.quantization))
    if tensor.dtype is DType.FP32 and source is None and target.dtype in _BYTE_TYPES:
        found = _quantised_at_once(tensor.content, target)
        if found is not None:
            return found
    return _packed(_stored_values(_real_values(tensor, source), target), target)


_BYTE_TYPES = (DType.INT8, DType.UINT8)
_BITS_FLIPPED = bytes(value ^ 0x80 for value in range(256))
# 1.5 * 2**23: a 32-bit float of this size has a step of 1, so adding it rounds to a whole number (half to even), which
# then stands in the lowest bits; the other three bytes stay as they are while that number is from 0 to 255.
_ROUNDING = 12_582_912.0
_UPPER_BYTES = b"\x00\x40\x4b"


def _quantised_at_once(content: bytes, target: TensorSpec) -> bytes | None:
    """Quantise floats to 8 bits without looking at each result; None when one of them saturates or is NaN.

    Seven times as fast as rounding and clipping one by one, which counts for images: the event loop waits meanwhile.
    """
    scale, zero = _affine(target.quantization)
    offset = _ROUNDING + zero + (128 if target.dtype is DType.INT8 else 0)
    shifted = array("f", [value / scale + offset for value in memoryview(content).cast("f")]).tobytes()
    count = len(content) // 4
    if any(shifted[at::4] != _UPPER_BYTES[at - 1 : at] * count for at in (1, 2, 3)):
        return None
    return shifted[0::4].translate(_BITS_FLIPPED) if target.dtype is DType.INT8 else shifted[0::4]


def _by_table(content: bytes, tables: tuple[bytes, ...]) -> bytes:
    """Replace each byte by what the tables say: one table for each byte of an element of the result."""
    if len(tables) == 1:
        return content.translate(tables[0])
    result = bytearray(len(content) * len(tables))
    for at, table in enumerate(tables):
        result[at :: len(tables)] = content.translate(table)
    return bytes(result)


@lru_cache(maxsize=256)  # a table is 256 bytes to 2 KB; there are two for each 8-bit tensor in use
def _byte_tables(
    dtype: DType, source: Quantization | None, target: DType, quantization: Quantization | None
) -> tuple[bytes, ...]:
    every = Tensor("", dtype, (256,), bytes(range(256)))
    spec = TensorSpec("", target, (256,), quantization)
    content = _packed(_stored_values(_real_values(every, source), spec), spec)
    return tuple(content[at :: target.item_bytes] for at in range(target.item_bytes))


def real_value(stored: float, quantization: Quantization | None) -> float:
    """Return what one stored value means."""
    return stored if quantization is None else (stored - quantization.zero_point) * quantization.scale


def _real_values(tensor: Tensor, quantization: Quantization | None) -> Iterable[float]:
    if quantization is None:
        return tensor.values()
    scale, zero = quantization.scale, quantization.zero_point
    return [(value - zero) * scale for value in tensor.values()]


def _stored_values(real: Iterable[float], spec: TensorSpec) -> Iterable[float]:
    if not spec.dtype.is_integer:
        return real
    scale, zero = _affine(spec.quantization)
    low, high = _RANGES[spec.dtype]
    return [round(min(high, max(low, _number(value / scale + zero, spec)))) for value in real]


def _affine(quantization: Quantization | None) -> tuple[float, int]:
    return (quantization.scale, quantization.zero_point) if quantization else (1.0, 0)


def _number(value: float, spec: TensorSpec) -> float:
    if isnan(value):
        message = f"input {spec.name!r}: NaN has no place in {spec.dtype.value}"
        raise BadRequest(message)
    return value
