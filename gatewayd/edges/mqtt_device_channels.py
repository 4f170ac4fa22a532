"""What is said to and by devices over MQTT, for the AsyncAPI description; docs/device-protocol-mqtt.md has the rules.

All numbers are little-endian.
"""

from collections.abc import Mapping
from dataclasses import field

from gatewayd.core.record import record

_PUSH_ID: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


@record
class Said:
    """One kind of message: `schema` of its JSON, or the `layout` of its bytes ("": it is JSON)."""

    summary: str
    qos: int
    retain: bool = False
    layout: str = ""
    schema: dict[str, object] = field(default_factory=dict)


def _object(required: list[str], **properties: object) -> dict[str, object]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": True}


_TEXT: dict[str, object] = {"type": "string", "maxLength": 64}
_REASON: dict[str, object] = {"type": "string", "maxLength": 200}
_COUNT: dict[str, object] = {"type": "integer", "minimum": 0}
_U32: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_DIGEST: dict[str, object] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SENSOR = _object(
    ["name", "dtype", "shape"],
    name=_TEXT,
    dtype={"enum": ["FP32", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"]},
    shape={"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 8},
    scale={"type": "number"},
    zero={"type": "integer"},
    preprocessing=_TEXT,
)
_SLOT = _object(
    ["slot", "state"],
    slot={"type": "integer", "minimum": 0, "maximum": 7},
    state={"enum": ["empty", "staging", "trial", "active"]},
    model=_TEXT,
    version=_COUNT,
    digest=_DIGEST,
)
_ONLINE = _object(
    ["v", "state", "board", "cpu", "mhz", "ram", "flash", "runtime", "runtime_version", "abi", "arena", "slot_bytes", "chunk",
     "energy", "sensors", "slots"],
    v={"const": 1}, state={"const": "online"}, board=_TEXT, cpu=_TEXT, mhz=_COUNT, ram=_COUNT, flash=_COUNT, runtime=_TEXT,
    runtime_version=_TEXT, abi=_COUNT, arena=_COUNT, slot_bytes=_COUNT, chunk=_COUNT,
    energy={"enum": ["battery", "mains"]}, battery={"type": "number", "minimum": 0, "maximum": 1},
    accelerator=_TEXT, deflate={"type": "integer", "minimum": 9, "maximum": 15}, page={"type": "integer", "minimum": 1},
    drop={"type": "boolean"}, returns={"type": "integer", "minimum": 1},
    operators={"type": "array", "items": _TEXT, "maxItems": 256},
    sensors={"type": "array", "items": _SENSOR, "maxItems": 8},
    slots={"type": "array", "items": _SLOT, "minItems": 1, "maxItems": 8},
)  # fmt: skip
_PHASES = ["want", "written", "verified", "tested", "trial", "accepted", "rejected", "failed"]

DEVICE_UP: Mapping[str, Said] = {
    "status": Said(
        "What the device is and holds; its last will is the offline form",
        1,
        retain=True,
        schema={"oneOf": [_ONLINE, _object(["state"], state={"const": "offline"})]},
    ),
    "push": Said(
        "Where a push stands, or the bytes that the device wants",
        1,
        schema=_object(
            ["push", "phase"], push=_PUSH_ID, phase={"enum": _PHASES}, offset=_COUNT, length=_COUNT, reason=_REASON
        ),
    ),
    "result": Said(
        "What a run gave",
        0,
        layout="u32 request, u8 status (0 ok, 1 refused, 2 failed), u8 flags (bit 0: the raw sample follows the output), u16 0, "
        "u32 compute µs, u32 energy nJ, u32 sample, then the output's bytes, or the reason in UTF-8",
    ),
    "sample": Said(
        "A raw sample",
        0,
        layout="u32 request, u8 status, u8 0, u16 0, u32 energy nJ, u32 sample, then the sample's bytes, or the reason in UTF-8",
    ),
    "pong": Said("The answer to a ping", 0, layout="u32 token"),
    "drop": Said(
        "The model is gone, or why it stays",
        0,
        schema=_object(["request", "status"], request=_U32, status={"enum": ["dropped", "refused"]}, reason=_REASON),
    ),
}
"""What devices say, by the last level of the topic."""

DEVICE_DOWN: Mapping[str, Said] = {
    "offer": Said(
        "A model is offered; repeated, it asks where the device stands",
        1,
        layout="u32 push, then the signed manifest (at most 1,024 bytes; docs/inference-module.md)",
    ),
    "chunk": Said("Bytes that the device wanted", 1, layout="u32 push, u32 offset, then the bytes"),
    "activate": Said("Switch to the tested model, on trial", 1, schema=_object(["push"], push=_PUSH_ID)),
    "accept": Said("Keep it", 1, schema=_object(["push"], push=_PUSH_ID)),
    "cancel": Said("Drop the push", 1, schema=_object(["push", "reason"], push=_PUSH_ID, reason=_REASON)),
    "run": Said(
        "Run the model in a slot",
        0,
        layout="u32 request, u8 slot, u8 flags (bit 0: the input is a sensor's; bit 1: send its sample with an answer below the "
        "threshold), u8 sensor, u8 0, u32 version, then the input's bytes (when bit 0 is set: none, or with bit 1 the threshold, "
        "an i32 or f32 as the output is stored)",
    ),
    "sample": Said("Send a raw sample", 0, layout="u32 request, u8 sensor, u8 0, u16 0"),
    "ping": Said("Measure the link", 0, layout="u32 token"),
    "drop": Said(
        "Let a model go; only to devices whose status says `drop`",
        0,
        schema=_object(
            ["request", "model", "version", "digest"],
            request=_U32,
            model=_TEXT,
            version=_COUNT,
            digest=_DIGEST,
            last={"type": "boolean"},
        ),
    ),
}
"""What the gateway says to devices, by the last level of the topic."""
