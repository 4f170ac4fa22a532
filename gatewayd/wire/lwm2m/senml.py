"""SenML packs as LwM2M uses them: JSON (110) and CBOR (112), one record list in two notations.

Base values hold until they are set again; a label that must be understood and is not refuses the pack.
Source: RFC 8428; OMA LwM2M Core 1.1.1, sections 7.4.4 and 7.4.5 (`vlo`, and names that are paths).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cbor2

from gatewayd.core.errors import BadRequest
from gatewayd.wire.json_text import parse_device_json, render_device_json
from gatewayd.wire.lwm2m.cbor import read_cbor
from gatewayd.wire.lwm2m.definitions import NONE, Definitions
from gatewayd.wire.lwm2m.json_values import name_of, number, resolved
from gatewayd.wire.lwm2m.limits import MAX_RECORDS
from gatewayd.wire.lwm2m.paths import RESOURCE, Path
from gatewayd.wire.lwm2m.values import (
    ObjectLink,
    Record,
    Value,
    fitted,
    from_base64,
    parse_object_link,
    required,
    to_base64url,
)

VERSION = 10
"""The SenML version of RFC 8428; a pack of a higher one is not read."""
# RFC 8428, table 4; `vlo` has no number.
_CBOR_LABELS: dict[object, str] = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t",
    7: "ut", 8: "vd",
}  # fmt: skip
_NUMBERS = {label: key for key, label in _CBOR_LABELS.items()}
_VALUES = ("v", "vs", "vb", "vd", "vlo")

Labelled = Mapping[object, object]


@dataclass(slots=True)
class _Bases:
    name: str | None = None
    time_s: float | None = None
    value: float | None = None


def decode_senml_json(base: Path, payload: bytes, definitions: Definitions = NONE) -> tuple[Record, ...]:
    """Read an answer about `base` (the root for a Send). Raises: BadRequest."""
    return _records(base, parse_device_json(payload), definitions)


def decode_senml_cbor(base: Path, payload: bytes, definitions: Definitions = NONE) -> tuple[Record, ...]:
    """Read an answer about `base` (the root for a Send). Raises: BadRequest."""
    pack = read_cbor(payload)
    if not isinstance(pack, list):
        raise BadRequest("SenML: a pack is an array")
    return _records(base, [_by_label(each) for each in pack], definitions)


def encode_senml_json(base: Path, records: Sequence[Record], definitions: Definitions = NONE) -> bytes:
    """Write records at or below `base`. Raises: BadRequest."""
    pack = [dict(each) for each in _pack(base, records, definitions)]
    for members in pack:
        if isinstance(content := members.get("vd"), bytes):
            members["vd"] = to_base64url(content)
    return render_device_json(pack)


def encode_senml_cbor(base: Path, records: Sequence[Record], definitions: Definitions = NONE) -> bytes:
    """Write records at or below `base`. Raises: BadRequest."""
    pack = _pack(base, records, definitions)
    return cbor2.dumps([{_NUMBERS.get(label, label): value for label, value in each.items()} for each in pack])


def encode_names_json(paths: Sequence[Path]) -> bytes:
    """Write the paths that a composite read or observation asks for."""
    return render_device_json([{"n": str(each)} for each in paths])


def encode_names_cbor(paths: Sequence[Path]) -> bytes:
    """Write the paths that a composite read or observation asks for."""
    return cbor2.dumps([{_NUMBERS["n"]: str(each)} for each in paths])


def decode_names(pack: object) -> tuple[Path, ...]:
    """Read what a composite read asks for, from the parsed pack. Raises: BadRequest."""
    bases, names = _Bases(), []
    for members in _members(pack):
        _rebase(bases, members)
        names.append(resolved(Path(), bases.name, _text(members, "n") or ""))
    return tuple(names)


def decode_names_json(payload: bytes) -> tuple[Path, ...]:
    """Read what a composite read asks for. Raises: BadRequest."""
    return decode_names(parse_device_json(payload))


def decode_names_cbor(payload: bytes) -> tuple[Path, ...]:
    """Read what a composite read asks for. Raises: BadRequest."""
    pack = read_cbor(payload)
    return decode_names([_by_label(each) for each in pack] if isinstance(pack, list) else pack)


def _by_label(members: object) -> Labelled:
    if not isinstance(members, dict):
        raise BadRequest("SenML: a record is a map")
    return {_CBOR_LABELS.get(key, key): value for key, value in members.items()}


def _records(base: Path, pack: object, definitions: Definitions) -> tuple[Record, ...]:
    bases, records = _Bases(), []
    for members in _members(pack):
        _rebase(bases, members)
        if not any(label in members for label in (*_VALUES, "n", "t", "s")):
            continue  # a record of bases only
        path = resolved(base, bases.name, _text(members, "n") or "")
        if path.depth < RESOURCE:
            raise BadRequest(f"SenML: {path} is no place of a value")
        value = _value(members, bases, path)
        records.append(Record(path, fitted(value, definitions.kind(path)), _time(members, bases)))
    return tuple(records)


def _members(pack: object) -> Iterable[Labelled]:
    if not isinstance(pack, list) or len(pack) > MAX_RECORDS:
        raise BadRequest(f"SenML: a pack is an array of at most {MAX_RECORDS} records")
    for members in pack:
        if not isinstance(members, dict):
            raise BadRequest("SenML: a record is a map")
        unknown = [label for label in members if isinstance(label, str) and label.endswith("_")]
        if unknown:
            raise BadRequest(f"SenML: the label {unknown[0][:40]!r} must be understood, and is not")
        yield members


def _rebase(bases: _Bases, members: Labelled) -> None:
    if number(members.get("bver", VERSION), "SenML.bver") > VERSION:
        raise BadRequest(f"SenML: version {members['bver']}, this program reads {VERSION}")
    if "bn" in members:
        bases.name = _text(members, "bn")
    if "bt" in members:
        bases.time_s = float(number(members["bt"], "SenML.bt"))
    if "bv" in members:
        bases.value = number(members["bv"], "SenML.bv")


def _text(members: Labelled, label: str) -> str | None:
    found = members.get(label)
    if found is not None and not isinstance(found, str):
        raise BadRequest(f"SenML.{label}: must be a text")
    return found


def _time(members: Labelled, bases: _Bases) -> float | None:
    if "t" not in members:
        return bases.time_s
    return (bases.time_s or 0.0) + number(members["t"], "SenML.t")


def _value(members: Labelled, bases: _Bases, path: Path) -> Value:
    given = [label for label in _VALUES if label in members]
    if len(given) != 1:
        raise BadRequest(f"SenML: {path} has {len(given)} values")
    value = members[given[0]]
    match given[0]:
        case "v":
            found: Value | None = number(value, f"SenML {path}.v")
            if bases.value is not None:
                found = number(found + bases.value, f"SenML {path}.v") if isinstance(found, int | float) else None
        case "vs":
            found = value if isinstance(value, str) else None
        case "vb":
            found = value if isinstance(value, bool) else None
        case "vd":
            found = from_base64(value) if isinstance(value, str) else value if isinstance(value, bytes) else None
        case _:
            found = parse_object_link(value) if isinstance(value, str) else None
    if found is None:
        raise BadRequest(f"SenML: {path}.{given[0]} is of another kind")
    return found


def _pack(base: Path, records: Sequence[Record], definitions: Definitions) -> list[dict[str, object]]:
    """The first record has the base name, with a slash at its end where names follow it."""
    pack: list[dict[str, object]] = []
    for record in records:
        name = name_of(record.path, base)
        members: dict[str, object] = {}
        if not pack:
            members["bn"] = str(base) if base.depth == 0 or not name else f"{base}/"
        if name:
            members["n"] = name
        members |= _value_members(required(record.value, definitions.kind(record.path), record.path))
        if record.time_s is not None:
            members["t"] = record.time_s
        pack.append(members)
    return pack


def _value_members(value: Value) -> dict[str, object]:
    match value:
        case bool():
            return {"vb": value}
        case int() | float():
            return {"v": value}
        case str():
            return {"vs": value}
        case bytes():
            return {"vd": value}
        case ObjectLink():
            return {"vlo": str(value)}
