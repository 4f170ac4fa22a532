"""CBOR as request bodies need it: bytes to plain values and back, every mistake with its place, nothing allocated on a promise.

A subset: maps with text keys, arrays, integers of 64 bits, floats, texts, byte strings, true, false and null, and typed
arrays. No indefinite lengths, no other tags: whoever needs those for a tensor does something else than they mean to. The
manifest has a decoder of its own rules (`wire/manifest.py`). Source: RFC 8949 §3; RFC 8746 §2.1 (typed arrays).
"""

import struct
from collections.abc import Callable, Mapping
from typing import NoReturn

import cbor2

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record
from gatewayd.core.tensor import DType, Tensor

MAX_DEPTH = 16  # protects the stack; a tensor in nested lists has eight dimensions at most

# Little-endian, as everything in a body of ours. Source: RFC 8746 §2.1, table 1.
_ARRAY_TAGS: Mapping[DType, int] = {
    DType.UINT8: 64, DType.INT8: 72, DType.INT16: 77, DType.INT32: 78, DType.INT64: 79, DType.FP32: 85,
}  # fmt: skip
_TAGGED = {tag: dtype for dtype, tag in _ARRAY_TAGS.items()}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE: Mapping[int, object] = {20: False, 21: True, 22: None}
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = range(8)


@record
class TypedArray:
    """Numbers as bytes, little-endian, with what they are."""

    dtype: DType
    content: bytes


def decode_cbor(payload: bytes) -> object:
    """Return the one item that the payload is. Raises: BadRequest naming the byte of the first mistake."""
    reader = _Reader(payload)
    value = reader.item(depth=0)
    if reader.at != len(payload):
        reader.refuse(f"{len(payload) - reader.at} bytes follow the item")
    return value


def encode_cbor(document: object) -> bytes:
    """Return the document; tensors' contents in it (`TypedArray`) become typed arrays."""
    return cbor2.dumps(document, default=_encode_array)


def typed_array(tensor: Tensor) -> object:
    """Return a tensor's content as CBOR carries it: a typed array, of BOOL (which has none) a list."""
    if tensor.dtype is DType.BOOL:
        return [bool(value) for value in tensor.content]
    return TypedArray(tensor.dtype, tensor.content)


def _encode_array(encoder: cbor2.CBOREncoder, value: object) -> None:
    if not isinstance(value, TypedArray):
        raise TypeError(type(value))
    encoder.encode(cbor2.CBORTag(_ARRAY_TAGS[value.dtype], value.content))


class _Reader:
    """Reads items one after the other; `at` is where the next begins."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.at = 0
        self._kinds: tuple[Callable[[int, int], object], ...] = (
            self._unsigned, self._negative, self._bytes, self._text, self._array, self._map, self._tagged, self._other,
        )  # fmt: skip

    def item(self, *, depth: int) -> object:
        """Read one item."""
        if depth > MAX_DEPTH:
            self.refuse(f"is nested deeper than {MAX_DEPTH} levels")
        first = self._take(1)[0]
        kind, short = first >> 5, first & 0x1F
        if kind == _OTHER:
            return self._other(short, depth)
        return self._kinds[kind](self._argument(short), depth)

    def refuse(self, message: str) -> NoReturn:
        """Raise BadRequest for the mistake at this place."""
        raise BadRequest(f"the body is not valid CBOR: byte {self.at}: {message}")

    def _argument(self, short: int) -> int:
        if short < 24:  # noqa: PLR2004 - RFC 8949 §3: the argument itself
            return short
        if short > 27:  # noqa: PLR2004 - as above: indefinite lengths and reserved values
            self.refuse("indefinite lengths are not taken here")
        return int.from_bytes(self._take(1 << short - 24))

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._payload):
            self.refuse(f"{count} bytes are announced, {len(self._payload) - self.at} are left")
        taken, self.at = self._payload[self.at : end], end
        return taken

    def _unsigned(self, argument: int, _: int) -> object:
        return argument

    def _negative(self, argument: int, _: int) -> object:
        return -1 - argument

    def _bytes(self, argument: int, _: int) -> object:
        return self._take(argument)

    def _text(self, argument: int, _: int) -> object:
        try:
            return self._take(argument).decode()
        except UnicodeDecodeError:
            self.refuse("a text is not UTF-8")

    def _array(self, count: int, depth: int) -> object:
        self._check_count(count)
        return self._floats(count) or [self.item(depth=depth + 1) for _ in range(count)]

    def _floats(self, count: int) -> list[float] | None:
        """Read an array of nothing but 32-bit or 64-bit floats at once; None when it is something else."""
        head = self._payload[self.at : self.at + 1]
        width = {b"\xfa": 5, b"\xfb": 9}.get(head)
        end = self.at + count * (width or 0)
        if width is None or end > len(self._payload) or self._payload[self.at : end : width] != head * count:
            return None
        packed = struct.unpack(f">{'xf' * count if width == 5 else 'xd' * count}", self._payload[self.at : end])  # noqa: PLR2004 - a head and four bytes
        self.at = end
        return list(packed)

    def _map(self, count: int, depth: int) -> object:
        self._check_count(2 * count)
        found: dict[str, object] = {}
        for _ in range(count):
            key = self.item(depth=depth + 1)
            if not isinstance(key, str):
                self.refuse("a key is no text")
            if key in found:
                self.refuse(f"the key {key[:64]!r} stands twice")
            found[key] = self.item(depth=depth + 1)
        return found

    def _tagged(self, tag: int, depth: int) -> object:
        dtype = _TAGGED.get(tag)
        if dtype is None:
            self.refuse(f"tag {tag} is not taken here; typed arrays are, little-endian: {sorted(_TAGGED)}")
        content = self.item(depth=depth + 1)
        if not isinstance(content, bytes):
            self.refuse("a typed array is a byte string")
        return TypedArray(dtype, content)

    def _other(self, short: int, _: int) -> object:
        if short in _SIMPLE:
            return _SIMPLE[short]
        form = _FLOATS.get(short)
        if form is None:
            self.refuse(f"simple value {short} means nothing here")
        value: float = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _check_count(self, count: int) -> None:
        """Every item takes a byte: an array that is longer than what is left is a lie, found before it is allocated."""
        if count > len(self._payload) - self.at:
            self.refuse(f"{count} items are announced in {len(self._payload) - self.at} bytes")
