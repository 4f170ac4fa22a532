"""JSON values as tensors: the shape, datatype and data of the Open Inference Protocol, every mistake with its path.

Pure; called by `wire/tensors.py`. Nothing of models or requests is known here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from sys import float_info
from typing import NoReturn

from gatewayd.core.errors import BadRequest
from gatewayd.core.tensor import DType, Tensor, TensorSpec, packed_numbers, tensor_from_values
from gatewayd.wire.cbor import TypedArray

# These protect error messages, logs and the loop from absurd but short bodies.
MAX_RANK = 8
MAX_TEXT = 128

_TENSOR_KEYS = ("name", "shape", "datatype", "data", "parameters")
_REQUIRED_KEYS = ("name", "shape", "datatype", "data")
_DTYPES: Mapping[str, DType] = {dtype.value: dtype for dtype in DType}
_ELEMENT_TYPES: Mapping[DType, frozenset[type]] = {
    dtype: frozenset({int, float} if dtype is DType.FP32 else {bool} if dtype is DType.BOOL else {int})
    for dtype in DType
}


@dataclass(slots=True)
class BinaryTail:
    """The bytes behind a JSON header, handed out to its tensors in order. Source: Triton, "Binary tensor data extension"."""

    content: memoryview

    def take(self, byte_count: int) -> bytes | None:
        """Return the next bytes, or None when there are not as many."""
        if byte_count > len(self.content):
            return None
        taken, self.content = self.content[:byte_count], self.content[byte_count:]
        return bytes(taken)


def read_tensor(value: object, path: str, tail: BinaryTail | None = None, *, has_flags: bool = True) -> Tensor:
    """Read one element of `inputs`. `data` is row-major, flat or nested as the shape is; or the bytes are in `tail`.

    `has_flags`: whether the document may hold true or false anywhere, which pack as numbers; without them packing checks enough.

    Raises: BadRequest naming the path of the first mistake.
    """
    fields = read_mapping(value, path, known=_TENSOR_KEYS)
    size = _binary_size(fields.get("parameters"), path)
    for key in _REQUIRED_KEYS:
        if key not in fields and not (key == "data" and size is not None):
            refuse(f"{path}.{key}", "is missing")
    name = read_text(fields["name"], f"{path}.name")
    spec = TensorSpec(name, _dtype(fields["datatype"], path), _shape(fields["shape"], path))
    if size is not None:
        return _from_tail(spec, size, fields, path, tail)
    data = fields["data"]
    if isinstance(data, bytes | TypedArray):
        return _from_bytes(spec, data, f"{path}.data")
    if not has_flags and isinstance(data, list) and (content := packed_numbers(spec, data)) is not None:
        return Tensor(spec.name, spec.dtype, spec.shape, content)
    # Types as a set, once: large lists pass here, and nearly all are flat and right.
    if (
        isinstance(data, list)
        and len(data) == spec.element_count
        and set(map(type, data)) <= _ELEMENT_TYPES[spec.dtype]
    ):
        return _packed(spec, data, f"{path}.data")
    numbers = _numbers(_elements(data, spec.shape, f"{path}.data"), spec.dtype, f"{path}.data")
    return _packed(spec, numbers, f"{path}.data")


def _binary_size(parameters: object, path: str) -> int | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        refuse(f"{path}.parameters", f"must be a JSON object, got {_kind(parameters)}")
    if any(str(key).startswith("shared_memory") for key in parameters):
        refuse(f"{path}.parameters", "shared memory is not served here: send the data in the request")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        refuse(f"{path}.parameters.binary_data_size", "must be a whole number of bytes")
    return size


def _from_tail(spec: TensorSpec, size: int, fields: Mapping[str, object], path: str, tail: BinaryTail | None) -> Tensor:
    place = f"{path}.parameters.binary_data_size"
    if "data" in fields:
        refuse(f"{path}.data", "goes without binary_data_size: give either")
    if tail is None:
        refuse(
            place, "the bytes go behind the JSON, and the header Inference-Header-Content-Length tells where that ends"
        )
    if size != spec.byte_count:
        refuse(
            place, f"{size} bytes for {spec.dtype.value} of shape {_dims(spec.shape)}, which takes {spec.byte_count}"
        )
    content = tail.take(size)
    if content is None:
        refuse(place, f"{size} bytes are announced, {len(tail.content)} are left in the body")
    if spec.dtype is DType.BOOL and max(content, default=0) > 1:
        refuse(path, "a BOOL is a byte of 0 or 1")
    return Tensor(spec.name, spec.dtype, spec.shape, content)


def _from_bytes(spec: TensorSpec, data: bytes | TypedArray, path: str) -> Tensor:
    """Take what CBOR carries as bytes: little-endian, row-major."""
    if isinstance(data, TypedArray) and data.dtype is not spec.dtype:
        refuse(path, f"is a typed array of {data.dtype.value}, and the tensor is {spec.dtype.value}")
    content = data.content if isinstance(data, TypedArray) else data
    if len(content) != spec.byte_count:
        kind = f"{spec.dtype.value} of shape {_dims(spec.shape)}"
        refuse(path, f"{len(content)} bytes for {kind}, which takes {spec.byte_count}")
    if spec.dtype is DType.BOOL and max(content, default=0) > 1:
        refuse(path, "a BOOL is a byte of 0 or 1")
    return Tensor(spec.name, spec.dtype, spec.shape, content)


def write_tensor(tensor: Tensor) -> dict[str, object]:
    """Return one element of `outputs`, data flat. Elements that are not finite become null: JSON has no NaN."""
    values: list[object]
    if tensor.dtype is DType.FP32:
        values = [write_number(value) for value in tensor.values()]
    elif tensor.dtype is DType.BOOL:
        values = [bool(value) for value in tensor.values()]
    else:
        values = list(tensor.values())
    return {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.dtype.value, "data": values}


def write_number(value: float) -> float | None:
    """Return `value` as JSON can hold it: nine significant digits, None when it is not finite.

    Nine digits give every 32-bit float back exactly and spare the tail of its 64-bit spelling.
    """
    return float(f"{value:.9g}") if isfinite(value) else None


def read_mapping(value: object, path: str, *, known: Sequence[str]) -> Mapping[str, object]:
    """Check that `value` is a JSON object with no other keys than `known`. Raises: BadRequest."""
    if not isinstance(value, dict):
        refuse(path, f"must be a JSON object, got {_kind(value)}")
    unknown = [key for key in value if key not in known]
    if unknown:
        refuse(path, f"{str(unknown[0])[:MAX_TEXT]!r} is not known here; known: {', '.join(known)}")
    return value


def read_text(value: object, path: str) -> str:
    """Check that `value` is a text of 1 to 128 printable characters. Raises: BadRequest."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT or not value.isprintable():
        refuse(path, f"must be a text of 1 to {MAX_TEXT} printable characters")
    return value


def refuse(path: str, message: str) -> NoReturn:
    """Raise BadRequest for the mistake at `path`."""
    raise BadRequest(f"{path}: {message}")


def _dtype(value: object, tensor: str) -> DType:
    found = _DTYPES.get(value) if isinstance(value, str) else None
    if found is None:
        refuse(f"{tensor}.datatype", f"{str(value)[:MAX_TEXT]!r} is not one of {', '.join(_DTYPES)}")
    return found


def _shape(value: object, tensor: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_RANK:
        refuse(f"{tensor}.shape", f"must be a list of at most {MAX_RANK} dimensions")
    for each in value:
        if type(each) is not int or each < 1:
            refuse(f"{tensor}.shape", "every dimension must be a whole number from 1, of at most 64 bits")
    return tuple(value)


def _elements(value: object, shape: tuple[int, ...], path: str) -> Sequence[object]:
    if not isinstance(value, list):
        refuse(path, f"must be a list, got {_kind(value)}")
    is_nested = list in set(map(type, value))  # as a set: large lists pass here
    flat = list(_flatten(value, path, depth=1)) if is_nested else value
    if len(flat) != prod(shape):
        refuse(path, f"{len(flat)} values for shape {_dims(shape)}, which holds {prod(shape)}")
    if is_nested:
        _check_nesting(value, shape, path)
    return flat


def _flatten(value: list[object], path: str, *, depth: int) -> Iterator[object]:
    if depth > MAX_RANK:
        refuse(path, f"is nested deeper than {MAX_RANK} lists")
    for each in value:
        if isinstance(each, list):
            yield from _flatten(each, path, depth=depth + 1)
        else:
            yield each


def _check_nesting(value: object, shape: tuple[int, ...], path: str) -> None:
    if not shape:
        if isinstance(value, list):
            refuse(path, "is nested deeper than the shape has dimensions")
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        found = f"{len(value)} elements" if isinstance(value, list) else _kind(value)
        refuse(path, f"has {found} where the shape says {shape[0]} elements")
    for index, each in enumerate(value):
        _check_nesting(each, shape[1:], f"{path}[{index}]")


def _packed(spec: TensorSpec, numbers: Sequence[float], path: str) -> Tensor:
    tensor = _tensor_or_none(spec, numbers)
    if tensor is None:
        index = _first_misfit(spec, numbers)
        refuse(f"{path}[{index}]", f"{_short(numbers[index])} does not fit {spec.dtype.value}")
    return tensor


def _first_misfit(spec: TensorSpec, numbers: Sequence[float]) -> int:
    """Return where the first number stands that does not fit: half by half, as large lists pass here."""
    low, high = 0, len(numbers)
    while high - low > 1:
        middle = (low + high) // 2
        half = TensorSpec(spec.name, spec.dtype, (middle - low,))
        low, high = (low, middle) if _tensor_or_none(half, numbers[low:middle]) is None else (middle, high)
    return low


def _numbers(values: Sequence[object], dtype: DType, path: str) -> Sequence[float]:
    # Exact types: bool is an int to Python. As a set because large lists pass here.
    allowed = _ELEMENT_TYPES[dtype]
    if not set(map(type, values)) <= allowed:
        index = next(i for i, value in enumerate(values) if type(value) not in allowed)
        refuse(f"{path}[{index}]", f"{_kind(values[index])} is no {dtype.value}")
    return values  # type: ignore[return-value]  # numbers, as the types say; mypy does not follow the set


def _tensor_or_none(spec: TensorSpec, numbers: Sequence[float]) -> Tensor | None:
    try:
        tensor = tensor_from_values(spec, numbers)
    except BadRequest:
        return None
    is_whole = spec.dtype is not DType.FP32
    return tensor if is_whole or all(map(isfinite, tensor.values())) else None


def _short(number: float) -> str:
    # Python refuses to spell out whole numbers of more than 4,300 digits, and nobody reads past a few.
    return f"{number:.15g}" if abs(number) < float_info.max else "a number of more than 308 digits"


def _dims(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(value, float):
        return "a fraction"
    return kinds.get(type(value), "a number")
