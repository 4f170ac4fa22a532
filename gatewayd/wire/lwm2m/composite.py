"""Which places a composite read is about, in SenML: records that have a name and no value.

Source: OMA LwM2M Core 1.1.1, section 6.3.9 (Read-Composite), and 7.4.4, 7.4.5.
"""

from collections.abc import Sequence

import cbor2

from gatewayd.core.errors import BadRequest
from gatewayd.wire.json_text import parse_device_json, render_device_json
from gatewayd.wire.lwm2m.cbor import read_cbor
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.paths import Path, parse_path

FORMATS = (Format.SENML_CBOR, Format.SENML_JSON)
"""What a composite read may be in."""
MAX_PATHS = 64
"""Protects the device that is asked."""
_NAME_LABEL = 0


def encode_paths(kind: Format, paths: Sequence[Path]) -> bytes:
    """Write the places to be read."""
    if kind is Format.SENML_CBOR:
        return cbor2.dumps([{_NAME_LABEL: str(each)} for each in paths])
    return render_device_json([{"n": str(each)} for each in paths])


def decode_paths(kind: Format, payload: bytes) -> tuple[Path, ...]:
    """Read the places to be read. Raises: BadRequest."""
    pack = read_cbor(payload) if kind is Format.SENML_CBOR else parse_device_json(payload)
    label = _NAME_LABEL if kind is Format.SENML_CBOR else "n"
    if not isinstance(pack, list) or len(pack) > MAX_PATHS:
        raise BadRequest(f"a composite read names at most {MAX_PATHS} places, in an array")
    names = [each.get(label) if isinstance(each, dict) else None for each in pack]
    if not all(isinstance(each, str) for each in names):
        raise BadRequest("a composite read's records have a name, and no value")
    return tuple(parse_path(str(each)) for each in names)
