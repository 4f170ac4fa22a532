"""A bounded reader of CBOR as devices write it: every length is checked against the bytes that are there before it is followed.

Indefinite lengths are read (encoders on microcontrollers use them), array keys of maps become tuples, tags are looked
through. Writing is cbor2's. Source: RFC 8949; RFC 8428 section 6 and LwM2M 1.2 for the tags that mean something here.
"""

import struct
from fractions import Fraction
from typing import TypeGuard

from gatewayd.core.errors import BadRequest

MAX_DEPTH = 12
"""Protects the stack; the deepest thing that LwM2M has is a path of 4 maps."""
MAX_ITEMS = 16_384
"""Protects time and memory from a payload that is all heads."""
_UINT, _BYTES, _TEXT, _ARRAY, _MAP, _OTHER = 0, 2, 3, 4, 5, 7  # major types; 1 and 6 are negative numbers and tags
_INDEFINITE, _DIRECT = 31, 24
_BREAK = 0xFF
_BIG, _NEGATIVE_BIG, _DECIMAL, _BINARY = 2, 3, 4, 5
_MAX_BIG_BYTES, _MAX_EXPONENT = 8, 320
_PAIR = 2
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}

Key = int | str | tuple[int, ...]
Item = None | bool | int | float | str | bytes | list["Item"] | dict[Key, "Item"]


def read_cbor(payload: bytes) -> Item:
    """Read the one item that `payload` is. Raises: BadRequest when it is none, or more than one."""
    reader = _Reader(payload)
    item = reader.item(0)
    if reader.at != len(payload):
        raise BadRequest(f"CBOR: {len(payload) - reader.at} bytes too many")
    return item


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.at = 0
        self._items = 0

    def item(self, depth: int) -> Item:
        self._items += 1
        if depth > MAX_DEPTH or self._items > MAX_ITEMS:
            raise BadRequest(f"CBOR: nested deeper than {MAX_DEPTH}, or more than {MAX_ITEMS} items")
        major, info = self._head()
        if major == _OTHER:
            return self._other(info)
        if info == _INDEFINITE:
            return self._indefinite(major, depth)
        return self._definite(major, self._argument(info), depth)

    def _definite(self, major: int, count: int, depth: int) -> Item:
        found: Item
        match major:
            case 0 | 1:
                found = count if major == _UINT else -1 - count
            case 2:
                found = self._take(count)
            case 3:
                found = _text(self._take(count))
            case 4:
                self._check_count(count)
                found = [self.item(depth + 1) for _ in range(count)]
            case 5:
                self._check_count(count * 2)
                found = {}
                for _ in range(count):
                    self._member(found, depth)
            case _:
                found = _tagged(count, self.item(depth + 1))
        return found

    def _indefinite(self, major: int, depth: int) -> Item:
        if major == _ARRAY:
            items: list[Item] = []
            while not self._at_break():
                items.append(self.item(depth + 1))
            return items
        if major == _MAP:
            members: dict[Key, Item] = {}
            while not self._at_break():
                self._member(members, depth)
            return members
        if major in {_BYTES, _TEXT}:
            content = b"".join(self._chunks(major))
            return content if major == _BYTES else _text(content)
        raise BadRequest("CBOR: a number or tag without an end")

    def _chunks(self, major: int) -> list[bytes]:
        chunks: list[bytes] = []
        while not self._at_break():
            chunk, info = self._head()
            if chunk != major or info == _INDEFINITE:
                raise BadRequest("CBOR: a string's piece is of another kind")
            self._items += 1
            if self._items > MAX_ITEMS:
                raise BadRequest(f"CBOR: more than {MAX_ITEMS} items")
            chunks.append(self._take(self._argument(info)))
        return chunks

    def _member(self, members: dict[Key, Item], depth: int) -> None:
        key = _key(self.item(depth + 1))
        if key in members:
            raise BadRequest(f"CBOR: the key {str(key)[:40]} stands twice")
        members[key] = self.item(depth + 1)

    def _other(self, info: int) -> Item:
        if info in _FLOATS:
            layout = _FLOATS[info]
            (number,) = layout.unpack(self._take(layout.size))
            return float(number)
        if info not in _SIMPLE:
            raise BadRequest(f"CBOR: the simple value {info} means nothing here")
        return _SIMPLE[info]

    def _head(self) -> tuple[int, int]:
        (byte,) = self._take(1)
        return byte >> 5, byte & 0x1F

    def _argument(self, info: int) -> int:
        if info < _DIRECT:
            return info
        if info > 27:  # noqa: PLR2004 - 24 to 27 say 1, 2, 4 and 8 bytes
            raise BadRequest(f"CBOR: the length {info} is reserved")
        return int.from_bytes(self._take(1 << (info - _DIRECT)), "big")

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._payload):
            raise BadRequest(f"CBOR: truncated, {count} bytes are said to follow byte {self.at}")
        taken = self._payload[self.at : end]
        self.at = end
        return taken

    def _check_count(self, count: int) -> None:
        """Each item takes a byte at least."""
        if count > len(self._payload) - self.at:
            raise BadRequest(f"CBOR: truncated, {count} items are said to follow byte {self.at}")

    def _at_break(self) -> bool:
        if self.at >= len(self._payload):
            raise BadRequest("CBOR: truncated, no end of an item of unsaid length")
        is_over = self._payload[self.at] == _BREAK
        self.at += is_over
        return is_over


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRequest("CBOR: a text is not UTF-8") from None


def _key(item: Item) -> Key:
    if isinstance(item, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in item):
        return tuple(each for each in item if isinstance(each, int))
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise BadRequest("CBOR: a key is neither a number, a text nor an array of numbers")
    return item


def _tagged(tag: int, item: Item) -> Item:
    """Work out the tags that make a number of something else; all others say what the place says anyway (1: a time)."""
    if tag in {_BIG, _NEGATIVE_BIG}:
        if not isinstance(item, bytes) or len(item) > _MAX_BIG_BYTES:
            raise BadRequest("CBOR: a number of more than 64 bits")
        number = int.from_bytes(item, "big")
        return number if tag == _BIG else -1 - number
    if tag in {_DECIMAL, _BINARY}:
        return _fraction(item, 10 if tag == _DECIMAL else 2)
    return item


def _fraction(item: Item, base: int) -> float:
    if not isinstance(item, list) or len(item) != _PAIR:
        raise BadRequest("CBOR: a fraction is an array of two numbers")
    exponent, mantissa = item
    if not _is_whole(exponent) or not _is_whole(mantissa) or abs(exponent) > _MAX_EXPONENT:
        raise BadRequest(f"CBOR: a fraction is two whole numbers, the exponent at most {_MAX_EXPONENT}")
    try:
        return float(mantissa * Fraction(base) ** exponent)
    except OverflowError:
        raise BadRequest("CBOR: a fraction that is no float") from None


def _is_whole(item: Item) -> TypeGuard[int]:
    return isinstance(item, int) and not isinstance(item, bool)
