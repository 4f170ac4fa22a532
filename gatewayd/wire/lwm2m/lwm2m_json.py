"""The JSON of LwM2M 1.0 (11543): `{"bn":"/3/0/","e":[{"n":"0","sv":"…"}]}`.

Source: OMA LwM2M 1.0.2, section 6.4.4 (opaque values are base64 in `sv`).
"""

from collections.abc import Mapping, Sequence
from typing import cast

from gatewayd.core.errors import BadRequest
from gatewayd.wire.json_text import parse_device_json, render_device_json
from gatewayd.wire.lwm2m.definitions import NONE, Definitions
from gatewayd.wire.lwm2m.json_values import name_of, number, resolved
from gatewayd.wire.lwm2m.limits import MAX_RECORDS
from gatewayd.wire.lwm2m.paths import RESOURCE, Path
from gatewayd.wire.lwm2m.values import (
    ObjectLink,
    Record,
    Type,
    Value,
    fitted,
    from_text,
    parse_object_link,
    required,
    to_text,
)

_VALUES = ("v", "sv", "bv", "ov")


def decode_lwm2m_json(base: Path, payload: bytes, definitions: Definitions = NONE) -> tuple[Record, ...]:
    """Read an answer about `base`. Raises: BadRequest."""
    whole = _mapping(parse_device_json(payload))
    base_name, elements = whole.get("bn"), whole.get("e")
    if base_name is not None and not isinstance(base_name, str):
        raise BadRequest("LwM2M JSON: bn must be a text")
    if not isinstance(elements, list) or len(elements) > MAX_RECORDS:
        raise BadRequest(f"LwM2M JSON: e must be an array of at most {MAX_RECORDS}")
    base_s = float(number(whole["bt"], "LwM2M JSON.bt")) if "bt" in whole else None
    return tuple(_record(base, base_name, base_s, _mapping(each), definitions) for each in elements)


def encode_lwm2m_json(base: Path, records: Sequence[Record], definitions: Definitions = NONE) -> bytes:
    """Write records at or below `base`, an object or deeper. Raises: BadRequest."""
    if base.depth == 0:
        raise BadRequest("LwM2M JSON has no place for several objects")
    has_names = any(record.path != base for record in records)
    elements = [_element(base, record, definitions) for record in records]
    return render_device_json({"bn": f"{base}/" if has_names else str(base), "e": elements})


def _record(
    base: Path, base_name: str | None, base_s: float | None, element: Mapping[str, object], definitions: Definitions
) -> Record:
    name = element.get("n", "")
    if not isinstance(name, str):
        raise BadRequest("LwM2M JSON: n must be a text")
    path = resolved(base, base_name, name)
    if path.depth < RESOURCE:
        raise BadRequest(f"LwM2M JSON: {path} is no place of a value")
    given = [label for label in _VALUES if label in element]
    if len(given) != 1:
        raise BadRequest(f"LwM2M JSON: {path} has {len(given)} values")
    kind = definitions.kind(path)
    value = _value(given[0], element[given[0]], kind)
    if value is None:
        raise BadRequest(f"LwM2M JSON: {path}.{given[0]} is of another kind")
    time_s = base_s
    if "t" in element:
        time_s = (base_s or 0.0) + number(element["t"], "LwM2M JSON.t")
    return Record(path, fitted(value, kind), time_s)


def _value(label: str, value: object, kind: Type | None) -> Value | None:
    match label:
        case "v":
            return number(value, "LwM2M JSON.v")
        case "sv" if isinstance(value, str):
            return from_text(value, kind)  # opaque values are base64 there; some put numbers there, too
        case "bv" if isinstance(value, bool):
            return value
        case "ov" if isinstance(value, str):
            return parse_object_link(value)
    return None


def _element(base: Path, record: Record, definitions: Definitions) -> dict[str, object]:
    name = name_of(record.path, base)
    value = required(record.value, definitions.kind(record.path), record.path)
    element: dict[str, object] = {"n": name} if name else {}
    match value:
        case bool():
            element["bv"] = value
        case int() | float():
            element["v"] = value
        case ObjectLink():
            element["ov"] = str(value)
        case str() | bytes():
            element["sv"] = to_text(value)
    if record.time_s is not None:
        element["t"] = record.time_s
    return element


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadRequest("LwM2M JSON: must be an object with the member e")
    return cast("Mapping[str, object]", value)
