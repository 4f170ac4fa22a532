"""The schemas of an inference's request, in each encoding and over each protocol; the descriptions of HTTP and MQTT share them.

`wire/tensors.py` is what reads a request; a test holds the two beside each other.
"""

from collections.abc import Mapping

from gatewayd.core.tensor import DType
from gatewayd.wire.tensors import MAX_INPUTS

Json = dict[str, object]

RAW: Json = {"type": "string", "format": "binary"}
"""The content of the only input: little-endian, row-major, no header."""

_LIST: Json = {"type": "array", "description": "Numbers, flat or in nested lists"}
_PACKED: Json = {
    "description": "Numbers in an array (flat or nested), the content as a byte string (little-endian), or a typed array of "
    "RFC 8746 (tag 64, 72, 77, 78, 79 or 85)"
}


def _tensor(data: Json) -> Json:
    return {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 128},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 8},
            "datatype": {"enum": [each.value for each in DType]},
            "data": data,
            "parameters": {"type": "object"},
        },
        "additionalProperties": False,
    }


_WANTED: Json = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
    "additionalProperties": False,
}
_PARAMETERS: Json = {
    "placement": {"type": "string", "description": "auto, node, device:<id>, prefer:node or prefer:device:<id>"},
    "deadline_ms": {"type": "number", "exclusiveMinimum": 0},
    "privacy": {"enum": ["any", "stay_on_device"]},
    "class": {"type": "string"},
    "stream": {"type": "string", "description": "Names the state of a model that keeps one"},
    "reset": {"type": "boolean", "description": "Make that state anew first"},
    "timeout": {"type": "integer", "minimum": 0, "description": "a deadline in microseconds"},
}
_BINARY: Json = {"binary_data_output": {"type": "boolean"}}
_REPLY_TO: Json = {
    "reply_to": {"type": "string", "maxLength": 1024, "description": "Where the answer goes, for MQTT 3.1.1"}
}


def _request(data: Json, *, parameters: Mapping[str, object], more: Mapping[str, object]) -> Json:
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "maxLength": 128},
            "inputs": {"type": "array", "items": _tensor(data), "minItems": 1, "maxItems": MAX_INPUTS},
            "outputs": {"type": "array", "items": _WANTED, "maxItems": MAX_INPUTS},
            "device": {"type": "string", "description": "With `input`: data that is at a sensor"},
            "input": {"type": "string"},
            "parameters": {"type": "object", "properties": dict(parameters), "additionalProperties": False},
            **more,
        },
        "additionalProperties": False,
    }


HTTP_REQUEST = _request(_LIST, parameters=_PARAMETERS | _BINARY, more={})
"""JSON over HTTP, where tensors may follow as bytes."""
CBOR_REQUEST = _request(_PACKED, parameters=_PARAMETERS, more={})
"""CBOR, over every protocol."""
MQTT_REQUEST = _request(_LIST, parameters=_PARAMETERS, more=_REPLY_TO)
"""JSON over MQTT."""


CBOR_ANSWER: Json = {
    "type": "object",
    "description": "As in JSON, but the `data` of each output is a typed array",
    "required": ["id", "model_name", "model_version", "outputs", "parameters"],
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "outputs": {"type": "array", "items": _tensor(_PACKED)},
        "parameters": {"$ref": "#/components/schemas/AnswerParameters"},
    },
}
