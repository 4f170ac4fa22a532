"""Dropping a model on request over MQTT: what goes down, what comes up; both ends.

Source: docs/device-protocol-mqtt.md, "Dropping a model".
"""

from gatewayd.core.names import Digest, ModelName, parse_digest, parse_model_name
from gatewayd.core.record import record
from gatewayd.wire.mqttdevice_json import (
    MAX_CONTROL_BYTES,
    MAX_REASON_CHARS,
    U31,
    U32,
    printable,
    read_object,
    write_object,
)

_DROPPED, _REFUSED = "dropped", "refused"


@record
class DropMessage:
    """Let go the model of exactly this name, version and digest; `is_last` allows it to be the only one that runs."""

    request: int
    model: ModelName
    version: int
    digest: Digest
    is_last: bool = False


@record
class DropFrame:
    """The device's answer: the model is not there (any more), or `reason` says why it stays ("": it is gone)."""

    request: int
    reason: str = ""


def encode_drop(message: DropMessage) -> bytes:
    """Build `down/drop`."""
    members: dict[str, object] = {
        "request": message.request, "model": message.model, "version": message.version, "digest": message.digest,
    }  # fmt: skip
    if message.is_last:
        members["last"] = True
    return write_object(members, where="drop", most_bytes=MAX_CONTROL_BYTES)


def decode_drop(payload: bytes) -> DropMessage:
    """Read `down/drop`. Raises: BadRequest."""
    fields = read_object(payload, where="drop", most_bytes=MAX_CONTROL_BYTES)
    return DropMessage(
        fields.whole("request", 0, U32),
        parse_model_name(fields.text("model")),
        fields.whole("version", 1, U31),
        parse_digest(fields.text("digest")),
        fields.flag("last"),
    )


def encode_drop_answer(frame: DropFrame) -> bytes:
    """Build `up/drop`."""
    members: dict[str, object] = {"request": frame.request, "status": _REFUSED if frame.reason else _DROPPED}
    if frame.reason:
        members["reason"] = printable(frame.reason)
    return write_object(members, where="drop", most_bytes=MAX_CONTROL_BYTES)


def decode_drop_answer(payload: bytes) -> DropFrame:
    """Read `up/drop`. Raises: BadRequest."""
    fields = read_object(payload, where="drop", most_bytes=MAX_CONTROL_BYTES)
    request, status = fields.whole("request", 0, U32), fields.text("status")
    if status not in {_DROPPED, _REFUSED}:
        fields.refuse("status", f"must be {_DROPPED!r} or {_REFUSED!r}")
    reason = fields.optional_text("reason", MAX_REASON_CHARS)
    return DropFrame(request, (reason or "the device gave no reason") if status == _REFUSED else "")
