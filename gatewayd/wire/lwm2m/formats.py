"""The content formats of LwM2M behind two functions: bytes ↔ records. Any bytes are records or one BadRequest.

Source: OMA LwM2M Core 1.2.2, section 7.4 (which formats), CoAP Content-Formats registry (their numbers).
"""

from collections.abc import Callable, Sequence
from enum import IntEnum

import cbor2

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.wire.lwm2m import lwm2m_cbor, lwm2m_json, senml, tlv
from gatewayd.wire.lwm2m.cbor import read_cbor
from gatewayd.wire.lwm2m.definitions import NONE, Definitions
from gatewayd.wire.lwm2m.limits import MAX_STRUCTURED_BYTES, MAX_VALUE_BYTES
from gatewayd.wire.lwm2m.paths import RESOURCE, Path
from gatewayd.wire.lwm2m.values import Record, Value, from_text, required, to_text


class Format(IntEnum):
    """CoAP content formats that LwM2M uses."""

    TEXT = 0
    LINKS = 40
    OPAQUE = 42
    CBOR = 60
    SENML_JSON = 110
    SENML_CBOR = 112
    TLV = 11542
    JSON = 11543
    LWM2M_CBOR = 11544


# Numbers that clients made before LwM2M 1.0 was final still use.
_ALIASES = {1541: Format.TEXT, 1542: Format.TLV, 1543: Format.JSON, 1544: Format.OPAQUE}
_BY_NUMBER = {each.value: each for each in Format} | _ALIASES
SINGLE = frozenset({Format.TEXT, Format.OPAQUE, Format.CBOR})
"""Formats that hold one value and no path."""

_Decoder = Callable[[Path, bytes, Definitions], tuple[Record, ...]]
_Encoder = Callable[[Path, Sequence[Record], Definitions], bytes]


def format_of(number: int | None) -> Format | None:
    """Return the format of a Content-Format option, None when there is none or LwM2M has no such format."""
    if number is None:
        return None
    return _BY_NUMBER.get(number)


def decode(
    format: Format,  # noqa: A002 - CoAP's word for it
    base: Path,
    payload: bytes,
    definitions: Definitions = NONE,
) -> tuple[Record, ...]:
    """Read what a device answered about `base`, or notified, or sent (`base` is the root then).

    An empty payload is no records in the formats that can hold several. Values whose type does not fit their definition
    stay as they came. Raises: BadRequest, TooLarge.
    """
    decoder = _DECODERS.get(format)
    if decoder is None:
        raise BadRequest(f"{format.name} holds no values")
    most_bytes = MAX_VALUE_BYTES if format in SINGLE else MAX_STRUCTURED_BYTES
    if len(payload) > most_bytes:
        raise TooLarge(f"{base} in {format.name}: {len(payload)} bytes, at most {most_bytes} are read")
    if not payload and format not in SINGLE:
        return ()
    records = decoder(base, payload, definitions)
    stray = next((each.path for each in records if each.path not in base), None)
    if stray is not None:
        raise BadRequest(f"{format.name}: {stray} is not what was asked for, which is {base}")
    return records


def encode(
    format: Format,  # noqa: A002 - CoAP's word for it
    base: Path,
    records: Sequence[Record],
    definitions: Definitions = NONE,
) -> bytes:
    """Write records that lie at or below `base`.

    Raises: BadRequest when the format has no place for them, or a value is not what its definition says.
    """
    encoder = _ENCODERS.get(format)
    if encoder is None:
        raise BadRequest(f"{format.name} holds no values")
    _check(base, records)
    return encoder(base, records, definitions)


def _check(base: Path, records: Sequence[Record]) -> None:
    paths = {each.path for each in records if each.time_s is None}
    for each in records:
        if each.path not in base or each.path.depth < RESOURCE:
            raise BadRequest(f"{each.path} is no value at or below {base}")
        if each.path.depth > RESOURCE and each.path.upper(RESOURCE) in paths:
            raise BadRequest(f"{each.path}: the resource has a value of its own, too")
    if len(paths) != sum(each.time_s is None for each in records):
        raise BadRequest(f"a place below {base} has two values")


def _single(base: Path, records: Sequence[Record], definitions: Definitions) -> Value:
    if len(records) != 1 or records[0].path != base:
        raise BadRequest(f"this format holds the one value of {base}, not {len(records)} records")
    return required(records[0].value, definitions.kind(base), base)


def _value_at(base: Path, value: Value) -> tuple[Record, ...]:
    if base.depth < RESOURCE:
        raise BadRequest(f"{base} is no single value")
    return (Record(base, value),)


def _decode_text(base: Path, payload: bytes, definitions: Definitions) -> tuple[Record, ...]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{base}: text that is not UTF-8") from None
    return _value_at(base, from_text(text, definitions.kind(base)))


def _encode_text(base: Path, records: Sequence[Record], definitions: Definitions) -> bytes:
    return to_text(_single(base, records, definitions)).encode()


def _decode_opaque(base: Path, payload: bytes, _: Definitions) -> tuple[Record, ...]:
    return _value_at(base, payload)


def _encode_opaque(base: Path, records: Sequence[Record], definitions: Definitions) -> bytes:
    value = _single(base, records, definitions)
    if not isinstance(value, bytes):
        raise BadRequest(f"{base}: only bytes travel as opaque")
    return value


def _decode_cbor(base: Path, payload: bytes, definitions: Definitions) -> tuple[Record, ...]:
    return _value_at(base, lwm2m_cbor.from_item(read_cbor(payload), definitions.kind(base)))


def _encode_cbor(base: Path, records: Sequence[Record], definitions: Definitions) -> bytes:
    return cbor2.dumps(lwm2m_cbor.to_item(_single(base, records, definitions), definitions.kind(base)))


_DECODERS: dict[Format, _Decoder] = {
    Format.TEXT: _decode_text,
    Format.OPAQUE: _decode_opaque,
    Format.CBOR: _decode_cbor,
    Format.SENML_JSON: senml.decode_senml_json,
    Format.SENML_CBOR: senml.decode_senml_cbor,
    Format.TLV: tlv.decode_tlv,
    Format.JSON: lwm2m_json.decode_lwm2m_json,
    Format.LWM2M_CBOR: lwm2m_cbor.decode_lwm2m_cbor,
}
_ENCODERS: dict[Format, _Encoder] = {
    Format.TEXT: _encode_text,
    Format.OPAQUE: _encode_opaque,
    Format.CBOR: _encode_cbor,
    Format.SENML_JSON: senml.encode_senml_json,
    Format.SENML_CBOR: senml.encode_senml_cbor,
    Format.TLV: tlv.encode_tlv,
    Format.JSON: lwm2m_json.encode_lwm2m_json,
    Format.LWM2M_CBOR: lwm2m_cbor.encode_lwm2m_cbor,
}
