"""The MQTT device protocol as values: what goes down to a device and what comes up from it; both ends; no socket.

`links/mqtt.py` is the gateway's end, `wire/agent.py` the device's. This file has the control messages of a push and the
two dispatches; births are in `mqttdevice_status.py`, raw frames in `mqttdevice_data.py`; all of it can be had from here.
Source: docs/device-protocol-mqtt.md.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.core.device import Born, LinkKind, Lost, PushPhase, PushReport
from gatewayd.core.errors import BadRequest
from gatewayd.core.model import SelfTest
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId, parse_digest, parse_model_name
from gatewayd.wire.mqttdevice_data import (
    MAX_CHUNK_BYTES,
    MAX_DATA_BYTES,
    ChunkFrame,
    FrameStatus,
    Ping,
    PongFrame,
    ResultFrame,
    RunFrame,
    SampleFrame,
    SampleRequest,
    decode_chunk,
    decode_ping,
    decode_pong,
    decode_result,
    decode_run,
    decode_sample,
    decode_sample_result,
    encode_chunk,
    encode_ping,
    encode_pong,
    encode_result,
    encode_run,
    encode_sample,
    encode_sample_result,
)
from gatewayd.wire.mqttdevice_json import (
    MAX_CONTROL_BYTES,
    MAX_OFFER_BYTES,
    MAX_REASON_CHARS,
    MAX_STATUS_BYTES,
    U31,
    U32,
    Fields,
    printable,
    read_object,
    write_object,
)
from gatewayd.wire.mqttdevice_status import MAX_OPERATORS, MAX_SLOTS, decode_status, encode_offline, encode_status

__all__ = [
    "MAX_CHUNK_BYTES", "MAX_CONTROL_BYTES", "MAX_DATA_BYTES", "MAX_OFFER_BYTES", "MAX_OPERATORS", "MAX_SLOTS",
    "MAX_STATUS_BYTES", "Accept", "Activate", "Cancel", "ChunkFrame", "DownMessage", "FrameStatus", "OfferMessage", "Ping",
    "PongFrame", "ResultFrame", "RunFrame", "SampleFrame", "SampleRequest", "UpMessage", "decode_down", "decode_status",
    "decode_up", "encode_accept", "encode_activate", "encode_cancel", "encode_chunk", "encode_offer", "encode_offline",
    "encode_ping", "encode_pong", "encode_push_report", "encode_result", "encode_run", "encode_sample",
    "encode_sample_result", "encode_status",
]  # fmt: skip

_MAX_TOLERANCE = 65_535
_MAX_EXPECTED_CHARS = MAX_OFFER_BYTES


@dataclass(frozen=True, slots=True)
class OfferMessage:
    """What a device is told about a model before a byte of it is sent. `self_test` None: loading and running once is enough."""

    push: PushId
    model: ModelName
    version: int
    digest: Digest
    size_bytes: int
    arena_bytes: int
    runtime_abi: int
    operators: tuple[str, ...]
    self_test: SelfTest | None


@dataclass(frozen=True, slots=True)
class Activate:
    """Let the tested model take over, on trial."""

    push: PushId


@dataclass(frozen=True, slots=True)
class Accept:
    """End the trial: the new model stays."""

    push: PushId


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop the push; keep (or go back to) the old model."""

    push: PushId
    reason: str


DownMessage = OfferMessage | ChunkFrame | Activate | Accept | Cancel | RunFrame | SampleRequest | Ping
UpMessage = Born | Lost | PushReport | ResultFrame | SampleFrame | PongFrame


def encode_offer(offer: OfferMessage) -> bytes:
    """Build `down/offer`.

    Raises: TooLarge when it is over 2,048 bytes (the self-test's expected output is what grows).
    """
    members: dict[str, object] = {
        "push": offer.push, "model": offer.model, "version": offer.version, "digest": offer.digest,
        "size": offer.size_bytes, "arena": offer.arena_bytes, "abi": offer.runtime_abi, "operators": offer.operators,
    }  # fmt: skip
    if offer.self_test is not None:
        test = offer.self_test
        expected = base64.b64encode(test.expected).decode()
        members["self_test"] = {"seed": test.seed, "expected": expected, "tolerance": test.tolerance}
    return write_object(members, where="offer", most_bytes=MAX_OFFER_BYTES)


def encode_activate(push: PushId) -> bytes:
    """Build `down/activate`."""
    return write_object({"push": push}, where="activate", most_bytes=MAX_CONTROL_BYTES)


def encode_accept(push: PushId) -> bytes:
    """Build `down/accept`."""
    return write_object({"push": push}, where="accept", most_bytes=MAX_CONTROL_BYTES)


def encode_cancel(push: PushId, reason: str) -> bytes:
    """Build `down/cancel`; the reason is cut to 200 printable characters."""
    return write_object({"push": push, "reason": printable(reason)}, where="cancel", most_bytes=MAX_CONTROL_BYTES)


def encode_push_report(push: PushId, phase: PushPhase, *, offset: int = 0, length: int = 0, reason: str = "") -> bytes:
    """Build `up/push`: `offset` and `length` in bytes go with WANT, `reason` with REJECTED and FAILED."""
    members: dict[str, object] = {"push": push, "phase": phase.value}
    if phase is PushPhase.WANT:
        members |= {"offset": offset, "length": length}
    if phase in {PushPhase.REJECTED, PushPhase.FAILED}:
        members["reason"] = printable(reason)
    return write_object(members, where="push", most_bytes=MAX_CONTROL_BYTES)


def decode_up(kind: str, payload: bytes, device: DeviceId) -> UpMessage:
    """Read what a device published under `up/<kind>`.

    Raises: BadRequest naming the member or frame that is wrong.
    """
    if kind == "status":
        report = decode_status(payload)
        return Lost(device, "offline") if report is None else Born(device, LinkKind.MQTT, report)
    if kind == "push":
        return _push_report(read_object(payload, where="push", most_bytes=MAX_CONTROL_BYTES), device)
    if kind not in _UP_FRAMES:
        raise BadRequest(f"up/{kind[:20]!r}: must be one of status, push, {', '.join(_UP_FRAMES)}")
    return _UP_FRAMES[kind](payload)


def decode_down(kind: str, payload: bytes) -> DownMessage:
    """Read what the gateway published under `down/<kind>`.

    Raises: BadRequest naming the member or frame that is wrong.
    """
    if kind not in _DOWN:
        raise BadRequest(f"down/{kind[:20]!r}: must be one of {', '.join(_DOWN)}")
    return _DOWN[kind](payload)


def _push_report(fields: Fields, device: DeviceId) -> PushReport:
    push, phase = PushId(fields.whole("push", 0, U31)), fields.text("phase")
    if phase not in {each.value for each in PushPhase}:
        fields.refuse("phase", f"must be one of {', '.join(each.value for each in PushPhase)}")
    if PushPhase(phase) is PushPhase.WANT:
        offset, length = fields.whole("offset", 0, U31), fields.whole("length", 1, MAX_CHUNK_BYTES)
        return PushReport(device, push, PushPhase.WANT, offset, length)
    if PushPhase(phase) in {PushPhase.REJECTED, PushPhase.FAILED}:
        return PushReport(device, push, PushPhase(phase), reason=fields.optional_text("reason", MAX_REASON_CHARS))
    return PushReport(device, push, PushPhase(phase))


def _offer(payload: bytes) -> OfferMessage:
    fields = read_object(payload, where="offer", most_bytes=MAX_OFFER_BYTES)
    return OfferMessage(
        push=PushId(fields.whole("push", 0, U31)),
        model=parse_model_name(fields.text("model")),
        version=fields.whole("version", 1, U31),
        digest=parse_digest(fields.text("digest")),
        size_bytes=fields.whole("size", 1, U31),
        arena_bytes=fields.whole("arena", 0, U31),
        runtime_abi=fields.whole("abi", 0, U31),
        operators=fields.texts("operators", MAX_OPERATORS),
        self_test=_self_test(fields.inner("self_test")) if fields.has("self_test") else None,
    )


def _self_test(fields: Fields) -> SelfTest:
    seed, tolerance = fields.whole("seed", 1, U32), fields.whole("tolerance", 0, _MAX_TOLERANCE)
    try:
        expected = base64.b64decode(fields.text("expected", _MAX_EXPECTED_CHARS), validate=True)
    except (binascii.Error, ValueError):
        fields.refuse("expected", "is no base64")
    return SelfTest(seed, expected, tolerance)


def _push_only(where: str) -> Callable[[bytes], PushId]:
    def decode(payload: bytes) -> PushId:
        return PushId(read_object(payload, where=where, most_bytes=MAX_CONTROL_BYTES).whole("push", 0, U31))

    return decode


def _cancel(payload: bytes) -> Cancel:
    fields = read_object(payload, where="cancel", most_bytes=MAX_CONTROL_BYTES)
    return Cancel(PushId(fields.whole("push", 0, U31)), fields.optional_text("reason", MAX_REASON_CHARS))


_activate_push, _accept_push = _push_only("activate"), _push_only("accept")

_UP_FRAMES: dict[str, Callable[[bytes], ResultFrame | SampleFrame | PongFrame]] = {
    "result": decode_result,
    "sample": decode_sample_result,
    "pong": decode_pong,
}
_DOWN: dict[str, Callable[[bytes], DownMessage]] = {
    "offer": _offer,
    "chunk": decode_chunk,
    "activate": lambda payload: Activate(_activate_push(payload)),
    "accept": lambda payload: Accept(_accept_push(payload)),
    "cancel": _cancel,
    "run": decode_run,
    "sample": decode_sample,
    "ping": decode_ping,
}
