"""The TLV format of LwM2M (11542): object instances, multiple resources and their instances as type, id, length, value.

Structure needs no definitions; what a value is does: without a type it stays bytes.
Source: OMA LwM2M Core 1.1.1, section 7.4.3.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import groupby

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record
from gatewayd.wire.lwm2m.definitions import NONE, Definitions
from gatewayd.wire.lwm2m.limits import MAX_RECORDS
from gatewayd.wire.lwm2m.paths import INSTANCE, OBJECT, RESOURCE, RESOURCE_INSTANCE, Path
from gatewayd.wire.lwm2m.values import I64_HIGH, ObjectLink, Record, Type, Value, required

_LONG_ID, _KIND_SHIFT, _LENGTH_SHIFT, _SHORT_LENGTH = 0x20, 6, 3, 0x07
_MAX_LENGTH = 0xFFFFFF
_WHOLE_SIZES = (1, 2, 4, 8)
_F32, _F64, _LINK = struct.Struct(">f"), struct.Struct(">d"), struct.Struct(">HH")


class Kind(IntEnum):
    """What an entry is: the two highest bits of its first byte."""

    OBJECT_INSTANCE = 0
    RESOURCE_INSTANCE = 1
    MULTIPLE = 2
    RESOURCE = 3


@record
class _Entry:
    kind: Kind
    id: int
    content: bytes


def decode_tlv(base: Path, payload: bytes, definitions: Definitions = NONE) -> tuple[Record, ...]:
    """Read the answer to a read of `base`, or what is to be written there.

    An object's resources may come without their instance (then it is 0), and an instance's or a multiple resource's with the
    level that the path names already. Raises: BadRequest.
    """
    records: list[Record] = []
    for entry in _entries(payload):
        for path, content in _leaves(base, entry):
            if len(records) >= MAX_RECORDS:
                raise BadRequest(f"TLV: more than {MAX_RECORDS} values")
            records.append(Record(path, _read_value(content, definitions.kind(path))))
    return tuple(records)


def encode_tlv(base: Path, records: Sequence[Record], definitions: Definitions = NONE) -> bytes:
    """Write records that lie at or below `base`, an object or deeper. Raises: BadRequest."""
    if base.depth < OBJECT:
        raise BadRequest("TLV has no place for several objects")
    ordered = sorted(records, key=lambda each: each.path.ids)
    if base.depth > OBJECT:
        return _resources(ordered, definitions, is_bare=base.depth == RESOURCE_INSTANCE)
    instances = groupby(ordered, key=lambda each: each.path.instance or 0)
    return b"".join(_entry(Kind.OBJECT_INSTANCE, id_, _resources(tuple(each), definitions)) for id_, each in instances)


def _resources(records: Sequence[Record], definitions: Definitions, *, is_bare: bool = False) -> bytes:
    content = b""
    for id_, group in groupby(records, key=lambda each: each.path.resource or 0):
        members = tuple(group)
        inner = [_value_entry(each, definitions) for each in members]
        is_multiple = members[0].path.depth == RESOURCE_INSTANCE and not is_bare
        content += _entry(Kind.MULTIPLE, id_, b"".join(inner)) if is_multiple else b"".join(inner)
    return content


def _value_entry(record: Record, definitions: Definitions) -> bytes:
    path = record.path
    if path.depth < RESOURCE:
        raise BadRequest(f"{path}: a value lies in a resource")
    content = _value_bytes(record.value, definitions.kind(path), path)
    kind = Kind.RESOURCE if path.depth == RESOURCE else Kind.RESOURCE_INSTANCE
    return _entry(kind, path.ids[-1], content)


def _entry(kind: Kind, id_: int, content: bytes) -> bytes:
    length = len(content)
    if length > _MAX_LENGTH:
        raise BadRequest(f"TLV: {length} bytes are too long for one entry")
    first = kind << _KIND_SHIFT
    id_bytes = id_.to_bytes(2 if id_ > 0xFF else 1, "big")  # noqa: PLR2004 - what a byte holds
    first |= _LONG_ID if len(id_bytes) > 1 else 0
    if length <= _SHORT_LENGTH:
        return bytes((first | length,)) + id_bytes + content
    length_bytes = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((first | len(length_bytes) << _LENGTH_SHIFT,)) + id_bytes + length_bytes + content


def _entries(payload: bytes) -> Iterator[_Entry]:
    at = 0
    while at < len(payload):
        first = payload[at]
        id_bytes, length_bytes = 2 if first & _LONG_ID else 1, first >> _LENGTH_SHIFT & 0x03
        head = at + 1 + id_bytes + length_bytes
        id_ = int.from_bytes(payload[at + 1 : at + 1 + id_bytes], "big")
        length = int.from_bytes(payload[head - length_bytes : head], "big") if length_bytes else first & _SHORT_LENGTH
        if head + length > len(payload):
            raise BadRequest(f"TLV: truncated, {length} bytes are said to follow byte {head}")
        yield _Entry(Kind(first >> _KIND_SHIFT), id_, payload[head : head + length])
        at = head + length


def _leaves(base: Path, entry: _Entry) -> Iterator[tuple[Path, bytes]]:
    """Yield the values in an entry with their places."""
    match entry.kind:
        case Kind.OBJECT_INSTANCE:
            instance = _placed(base, entry.id, INSTANCE)
            for inner in _entries(entry.content):
                if inner.kind not in {Kind.RESOURCE, Kind.MULTIPLE}:
                    raise BadRequest(f"TLV: a {inner.kind.name} inside an instance")
                yield from _leaves(instance, inner)
        case Kind.MULTIPLE:
            resource = _placed(base, entry.id, RESOURCE)
            for inner in _entries(entry.content):
                if inner.kind is not Kind.RESOURCE_INSTANCE:
                    raise BadRequest(f"TLV: a {inner.kind.name} inside a multiple resource")
                yield _placed(resource, inner.id, RESOURCE_INSTANCE), inner.content
        case Kind.RESOURCE:
            yield _placed(base, entry.id, RESOURCE), entry.content
        case Kind.RESOURCE_INSTANCE:
            yield _placed(base, entry.id, RESOURCE_INSTANCE), entry.content


def _placed(base: Path, id_: int, depth: int) -> Path:
    """Return the path of an entry of a level: one below `base`, at it or above it where the path names it already."""
    if base.depth == OBJECT and depth == RESOURCE:
        base /= 0
    if base.depth == depth - 1:
        return base / id_
    if base.depth >= depth and base.ids[depth - 1] == id_:
        return base.upper(depth)
    raise BadRequest(f"TLV: an entry {id_} of level {depth} does not belong to {base}")


def _read_value(content: bytes, kind: Type | None) -> Value:
    found: Value | None = content
    match kind:
        case Type.STRING | Type.CORELNK:
            found = _text(content)
        case Type.INTEGER | Type.TIME:
            found = int.from_bytes(content, "big", signed=True) if len(content) in _WHOLE_SIZES else None
        case Type.UNSIGNED:
            found = int.from_bytes(content, "big") if len(content) in _WHOLE_SIZES else None
        case Type.FLOAT:
            found = _float(content)
        case Type.BOOLEAN:
            found = {b"\x00": False, b"\x01": True}.get(content)
        case Type.OBJLNK:
            found = ObjectLink(*_LINK.unpack(content)) if len(content) == _LINK.size else None
    return content if found is None else found


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _float(content: bytes) -> float | None:
    layout = {_F32.size: _F32, _F64.size: _F64}.get(len(content))
    return None if layout is None else float(layout.unpack(content)[0])


def _value_bytes(value: Value, kind: Type | None, path: Path) -> bytes:
    value = required(value, kind, path)
    match value:
        case bool():
            return bytes((value,))
        case int():
            is_signed = kind is not Type.UNSIGNED and value <= I64_HIGH
            return value.to_bytes(_whole_size(value, is_signed=is_signed), "big", signed=is_signed)
        case float():
            return _F64.pack(value)
        case str():
            return value.encode()
        case bytes():
            return value
        case ObjectLink():
            return _LINK.pack(value.object, value.instance)


def _whole_size(value: int, *, is_signed: bool) -> int:
    bits = (value if value >= 0 else ~value).bit_length() + is_signed
    return next(size for size in _WHOLE_SIZES if bits <= size * 8)
