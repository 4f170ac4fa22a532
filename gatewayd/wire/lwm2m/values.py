"""The values of LwM2M resources, and records: a value with its place. What all formats are read into and written from.

Source: OMA LwM2M Core 1.1.1, appendix C (data types).
"""

import binascii
import math
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from enum import Enum

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record
from gatewayd.wire.lwm2m.paths import Path

I64_LOW, I64_HIGH, U64_HIGH = -(2**63), 2**63 - 1, 2**64 - 1
_NO_OBJECT = 65_535  # an object link to nothing is 65535:65535
_FLOAT_EXACT = 2**53  # a whole number in a float is what it says up to here
_MAX_NUMBER_CHARS = 40  # protects time: reading a decimal number is not linear
_LINK = re.compile(r"(\d{1,5}):(\d{1,5})", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


class Type(Enum):
    """Data types by the names that object definitions use."""

    STRING = "String"
    INTEGER = "Integer"
    UNSIGNED = "Unsigned Integer"
    FLOAT = "Float"
    BOOLEAN = "Boolean"
    OPAQUE = "Opaque"
    TIME = "Time"
    OBJLNK = "Objlnk"
    CORELNK = "Corelnk"


@record
class ObjectLink:
    """A reference to an object instance; 65535:65535 refers to nothing."""

    object: int
    instance: int

    def __post_init__(self) -> None:
        if not (0 <= self.object <= _NO_OBJECT and 0 <= self.instance <= _NO_OBJECT):
            raise BadRequest(f"{self.object}:{self.instance} is no object link")

    def __str__(self) -> str:
        return f"{self.object}:{self.instance}"


Value = str | int | float | bool | bytes | ObjectLink
"""By type: String and Corelnk str, Integer, Unsigned and Time (seconds since 1970) int, Float float, Boolean bool, Opaque bytes,
Objlnk ObjectLink. A value that no definition gives a type to is what its format makes of it: TLV bytes, text str."""


@record
class Record:
    """One value and its place: a resource, or one instance of a multiple resource.

    `time_s` is when it was measured: from 2**28 on seconds since 1970, below that relative to the message's arrival
    (RFC 8428, section 4.5.3); None where the format says nothing.
    """

    path: Path
    value: Value
    time_s: float | None = None


def fitted(value: Value, kind: Type | None) -> Value:
    """Return `value` as its type has it where only the notation differs (1.0 for an integer), else as it came.

    A device that reports one resource in a strange way must not lose all others of the same answer; who needs the value
    checks what it is.
    """
    if kind is None:
        return value
    found = _CONVERSIONS[kind](value)
    return value if found is None else found


def has_type(value: Value, kind: Type) -> bool:
    """Return whether `value` is what `kind` holds."""
    if kind in _RANGES:
        return _is_whole(value, *_RANGES[kind])
    return isinstance(value, _CLASSES[kind])


def required(value: Value, kind: Type | None, path: Path) -> Value:
    """Return `value` as `kind` has it, for writing. Raises: BadRequest when it is no such value."""
    found = fitted(value, kind)
    if kind is not None and not has_type(found, kind):
        raise BadRequest(f"{path}: {str(value)[:40]!r} is no {kind.value}")
    if isinstance(found, int) and not I64_LOW <= found <= U64_HIGH:
        raise BadRequest(f"{path}: {str(found)[:40]} has no place in 64 bits")
    return found


def from_text(text: str, kind: Type | None) -> Value:
    """Read the plain-text form of a value; text where the type is unknown, or the text is none of its values.

    Source: OMA LwM2M Core 1.1.1, section 7.4.1 and appendix C.
    """
    found: Value | None = None
    match kind:
        case Type.INTEGER | Type.TIME | Type.UNSIGNED:
            found = _whole_of(text)
        case Type.FLOAT:
            found = _decimal_of(text)
        case Type.BOOLEAN:
            found = {"0": False, "1": True, "false": False, "true": True}.get(text)
        case Type.OPAQUE:
            found = from_base64(text)
        case Type.OBJLNK:
            found = parse_object_link(text)
    return text if found is None else fitted(found, kind)


def to_text(value: Value) -> str:
    """Return the plain-text form."""
    match value:
        case bool():
            return "1" if value else "0"
        case bytes():
            return b64encode(value).decode()
        case float():
            return repr(value)
        case _:
            return str(value)


def parse_object_link(text: str) -> ObjectLink | None:
    """Read `3303:1`; None when it is none."""
    found = _LINK.fullmatch(text)
    if found is None or max(map(int, found.groups())) > _NO_OBJECT:
        return None
    return ObjectLink(int(found[1]), int(found[2]))


def from_base64(text: str) -> bytes | None:
    """Read base64 in either alphabet, with or without padding; None when it is none."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def to_base64url(content: bytes) -> str:
    """Return base64url without padding. Source: RFC 8428, section 4.3."""
    return urlsafe_b64encode(content).decode().rstrip("=")


def _whole(value: Value) -> int | None:
    """Take a float that is a whole number for one: formats with a single kind of number need no other."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _FLOAT_EXACT:
        return int(value)
    return value if _is_whole(value, I64_LOW, U64_HIGH) and isinstance(value, int) else None


def _float(value: Value) -> float | None:
    if isinstance(value, int) and not isinstance(value, bool) and I64_LOW <= value <= U64_HIGH:
        return float(value)
    return value if isinstance(value, float) else None


def _boolean(value: Value) -> bool | None:
    if isinstance(value, int | float) and value in {0, 1}:
        return bool(value)
    return None


def _link(value: Value) -> ObjectLink | None:
    return parse_object_link(value) if isinstance(value, str) else None


def _as_it_is(_: Value) -> None:
    return None


_CLASSES: dict[Type, type] = {
    Type.STRING: str, Type.CORELNK: str, Type.FLOAT: float, Type.BOOLEAN: bool, Type.OPAQUE: bytes, Type.OBJLNK: ObjectLink,
}  # fmt: skip
_RANGES = {Type.INTEGER: (I64_LOW, I64_HIGH), Type.TIME: (I64_LOW, I64_HIGH), Type.UNSIGNED: (0, U64_HIGH)}
_CONVERSIONS = {
    Type.STRING: _as_it_is, Type.CORELNK: _as_it_is, Type.OPAQUE: _as_it_is, Type.INTEGER: _whole, Type.TIME: _whole,
    Type.UNSIGNED: _whole, Type.FLOAT: _float, Type.BOOLEAN: _boolean, Type.OBJLNK: _link,
}  # fmt: skip


def _is_whole(value: Value, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _whole_of(text: str) -> int | float | None:
    """Some write a whole number as 5.0."""
    if _WHOLE.fullmatch(text):
        number = int(text)
        return number if I64_LOW <= number <= U64_HIGH else None
    return _decimal_of(text)


def _decimal_of(text: str) -> float | None:
    if len(text) > _MAX_NUMBER_CHARS or not _DECIMAL.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
