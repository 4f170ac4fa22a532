"""LwM2M CBOR (11544): maps by ids from the root down, where a key may hold several levels at once.

Source: OMA LwM2M Core 1.2.2, section 7.4.6.
"""

from collections.abc import Iterator, Sequence

import cbor2

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.cbor import Item, Key, read_cbor
from gatewayd.wire.lwm2m.definitions import NONE, Definitions
from gatewayd.wire.lwm2m.limits import MAX_RECORDS
from gatewayd.wire.lwm2m.paths import LEVELS, RESOURCE, ROOT, Path
from gatewayd.wire.lwm2m.values import ObjectLink, Record, Type, Value, fitted, parse_object_link, required

_EPOCH_TIME = 1  # the tag of seconds since 1970


def decode_lwm2m_cbor(base: Path, payload: bytes, definitions: Definitions = NONE) -> tuple[Record, ...]:
    """Read an answer about `base`. Raises: BadRequest."""
    records: list[Record] = []
    for path, item in _leaves(ROOT, read_cbor(payload)):
        if path not in base or path.depth < RESOURCE:
            raise BadRequest(f"LwM2M CBOR: {path} is no place of a value below {base}")
        if len(records) >= MAX_RECORDS:
            raise BadRequest(f"LwM2M CBOR: more than {MAX_RECORDS} values")
        kind = definitions.kind(path)
        records.append(Record(path, from_item(item, kind)))
    return tuple(records)


def encode_lwm2m_cbor(_: Path, records: Sequence[Record], definitions: Definitions = NONE) -> bytes:
    """Write records, wherever they are. Raises: BadRequest."""
    tree: dict[int, object] = {}
    for record in records:
        level = tree
        for id_ in record.path.ids[:-1]:
            inner = level.setdefault(id_, {})
            if not isinstance(inner, dict):
                raise BadRequest(f"{record.path}: there is a value above it")
            level = inner
        kind = definitions.kind(record.path)
        level[record.path.ids[-1]] = to_item(required(record.value, kind, record.path), kind)
    return cbor2.dumps(tree)


def from_item(item: Item, kind: Type | None) -> Value:
    """Return the value that one CBOR item is. Raises: BadRequest."""
    if item is None or isinstance(item, list | dict):
        raise BadRequest("CBOR: this is no single value")
    if isinstance(item, str) and kind is Type.OBJLNK:
        return parse_object_link(item) or item
    return fitted(item, kind)


def to_item(value: Value, kind: Type | None) -> object:
    """Return what cbor2 writes for a value: an object link as text, a time with its tag."""
    if isinstance(value, ObjectLink):
        return str(value)
    return cbor2.CBORTag(_EPOCH_TIME, value) if kind is Type.TIME else value


def _leaves(above: Path, item: Item) -> Iterator[tuple[Path, Item]]:
    if not isinstance(item, dict):
        yield above, item
        return
    for key, inner in item.items():
        yield from _leaves(_below(above, key), inner)


def _below(above: Path, key: Key) -> Path:
    ids = (key,) if isinstance(key, int) else key
    if isinstance(ids, str) or not ids or above.depth + len(ids) > LEVELS:
        raise BadRequest(f"LwM2M CBOR: {str(key)[:40]!r} is no id below {above}")
    return Path(*above.ids, *ids)
