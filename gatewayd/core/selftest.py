"""Self-tests a device runs on a new model before it lets it answer: where the input comes from, what output counts as right.

The input is never sent: both sides make it from a seed. In C, for one byte of the stream::

    x ^= x << 13; x ^= x >> 17; x ^= x << 5;   /* uint32_t x = seed; */
    byte = x & 0xFF;

Source of the generator: Marsaglia, "Xorshift RNGs", J. Stat. Software 8(14), 2003, triple (13, 17, 5), 32 bits, period 2³²-1.
"""

from array import array
from itertools import starmap

from gatewayd.core.errors import BadRequest
from gatewayd.core.tensor import DType

FLOAT_UNIT = 1e-3
"""What one unit of `tolerance` is for FP32: an absolute error below magnitude 1, a relative one above it.

Float kernels of different makers differ by about 1e-5 on small networks; a wrong model differs by far more than 1e-3.
"""

_MAX_SEED = 2**32 - 1
_TYPECODES = {DType.INT8: "b", DType.UINT8: "B", DType.INT16: "h", DType.INT32: "i", DType.INT64: "q", DType.BOOL: "B"}


def self_test_input(seed: int, byte_count: int, dtype: DType = DType.INT8) -> bytes:
    """Return `byte_count` bytes of a tensor of `dtype`, the same for the same seed everywhere.

    INT8, UINT8 and INT16 take the stream as it is. Types in which arbitrary bytes are no sane values take one byte of the stream
    per element: FP32 is `(int8_t)byte / 128.0f` (-1 ≤ x < 1); INT32, INT64 and BOOL are `byte & 1`, since a whole number
    of these widths is often an index. Input number i of a model with several inputs uses `seed + i`.

    Raises: BadRequest when `seed` is not 1..2³²-1 (the generator stays at 0) or `byte_count` is no whole number of elements.
    """
    if not 1 <= seed <= _MAX_SEED:
        message = f"self-test seed {seed}: it must be 1..{_MAX_SEED}"
        raise BadRequest(message)
    count, rest = divmod(byte_count, dtype.item_bytes)
    if byte_count < 0 or rest:
        message = f"self-test input of {byte_count} bytes: {dtype.value} takes {dtype.item_bytes} bytes per element"
        raise BadRequest(message)
    if dtype in {DType.INT8, DType.UINT8, DType.INT16}:
        return _stream(seed, byte_count)
    return _elements(_stream(seed, count), dtype)


def matches(expected: bytes, got: bytes, tolerance: int, dtype: DType) -> bool:
    """Return whether each element of `expected` is met by `got` within `tolerance` units.

    A unit is one stored step for whole numbers and `FLOAT_UNIT` for FP32; what is not a number never matches. `expected` may
    hold only the first elements of a long output; `got` must hold at least as many.
    """
    if len(got) < len(expected) or len(expected) % dtype.item_bytes or not expected:
        return False
    wanted, found = _values(expected, dtype), _values(got[: len(expected)], dtype)
    if dtype is DType.FP32:
        return all(abs(b - a) <= tolerance * FLOAT_UNIT * max(1.0, abs(a)) for a, b in zip(wanted, found, strict=True))
    return all(starmap(lambda a, b: abs(a - b) <= tolerance, zip(wanted, found, strict=True)))


def _stream(seed: int, count: int) -> bytes:
    stream, x = bytearray(count), seed
    for index in range(count):
        x ^= (x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x ^= (x << 5) & 0xFFFFFFFF
        stream[index] = x & 0xFF
    return bytes(stream)


def _elements(stream: bytes, dtype: DType) -> bytes:
    if dtype is DType.FP32:
        signed = array("b", stream)
        return array("f", [value / 128.0 for value in signed]).tobytes()
    return array(_TYPECODES[dtype], [byte & 1 for byte in stream]).tobytes()


def _values(content: bytes, dtype: DType) -> "array[int] | array[float]":
    items: array[int] | array[float] = array("f") if dtype is DType.FP32 else array(_TYPECODES[dtype])
    items.frombytes(content)
    return items
