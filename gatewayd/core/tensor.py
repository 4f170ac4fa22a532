"""Tensors and their descriptions: the values every room hands on. Bytes are little-endian, row-major, without padding."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import isnan, prod

from gatewayd.core.errors import BadRequest


class DType(Enum):
    """Element types, by their Open Inference Protocol names."""

    FP32 = "FP32"
    INT8 = "INT8"
    UINT8 = "UINT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    BOOL = "BOOL"

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


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantisation: real = (stored - zero_point) * scale. Source: TFLite 8-bit quantization specification."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
    try:
        content = array(_TYPECODES[spec.dtype], values).tobytes()
    except (TypeError, OverflowError) as error:
        message = f"input {spec.name!r}: not all values are {spec.dtype.value}: {error}"
        raise BadRequest(message) from error
    return Tensor(spec.name, spec.dtype, spec.shape, content)


def converted(tensor: Tensor, *, source: Quantization | None, target: TensorSpec) -> Tensor:
    """Re-express `tensor` (whose stored values mean what `source` says) as `target` stores it: dtype, scale, zero point.

    Values that fall outside the target's range saturate, as TFLite's QUANTIZE does; infinities are such values.

    Raises: BadRequest when element counts differ, or a value that must become a whole number is none at all (NaN).
    """
    if prod(tensor.shape) != target.element_count:
        message = f"{target.name!r}: {list(tensor.shape)} cannot become {list(target.shape)}"
        raise BadRequest(message)
    if tensor.dtype is target.dtype and source == target.quantization:
        return Tensor(target.name, target.dtype, target.shape, tensor.content)
    real = _real_values(tensor, source)
    return tensor_from_values(target, _stored_values(real, target))


def _real_values(tensor: Tensor, quantization: Quantization | None) -> Iterable[float]:
    if quantization is None:
        return tensor.values()
    scale, zero = quantization.scale, quantization.zero_point
    return [(value - zero) * scale for value in tensor.values()]


def _stored_values(real: Iterable[float], spec: TensorSpec) -> Iterable[float]:
    if not spec.dtype.is_integer:
        return real
    scale, zero = (spec.quantization.scale, spec.quantization.zero_point) if spec.quantization else (1.0, 0)
    low, high = _RANGES[spec.dtype]
    return [round(min(high - zero, max(low - zero, _number(value / scale, spec)))) + zero for value in real]


def _number(value: float, spec: TensorSpec) -> float:
    if isnan(value):
        message = f"input {spec.name!r}: NaN has no place in {spec.dtype.value}"
        raise BadRequest(message)
    return value
