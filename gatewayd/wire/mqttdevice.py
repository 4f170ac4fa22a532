"""The MQTT device protocol as values: what goes down to a device and what comes up from it; both ends; no socket.

`links/mqtt.py` is the gateway's end, `wire/agent.py` the device's. This file has the control messages of a push and the
two dispatches; the signed manifest of an offer is in `manifest.py`, births are in `mqttdevice_status.py`, raw frames in
`mqttdevice_data.py`; all of it can be had from here.
Source: docs/device-protocol-mqtt.md.
"""

import struct
from collections.abc import Callable, Mapping

from gatewayd.core.device import Born, LinkKind, Lost, PushPhase, PushReport
from gatewayd.core.errors import BadRequest
from gatewayd.core.model import SelfTest
from gatewayd.core.module import Encoding, Held, Raw
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.record import record
from gatewayd.wire.manifest import MAX_SIGNED_BYTES, read_manifest
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
from gatewayd.wire.mqttdevice_drop import (
    DropFrame,
    DropMessage,
    decode_drop,
    decode_drop_answer,
    encode_drop,
    encode_drop_answer,
)
from gatewayd.wire.mqttdevice_json import (
    MAX_CONTROL_BYTES,
    MAX_REASON_CHARS,
    MAX_STATUS_BYTES,
    U31,
    Fields,
    printable,
    read_object,
    write_object,
)
from gatewayd.wire.mqttdevice_status import MAX_OPERATORS, MAX_SLOTS, decode_status, encode_offline, encode_status

__all__ = [
    "MAX_CHUNK_BYTES", "MAX_CONTROL_BYTES", "MAX_DATA_BYTES", "MAX_OFFER_BYTES", "MAX_OPERATORS", "MAX_SLOTS",
    "MAX_STATUS_BYTES", "Accept", "Activate", "Cancel", "ChunkFrame", "DownMessage", "DropFrame", "DropMessage",
    "FrameStatus", "OfferMessage", "Ping", "PongFrame", "ResultFrame", "RunFrame", "SampleFrame", "SampleRequest",
    "UpMessage", "decode_down", "decode_status", "decode_up", "encode_accept", "encode_activate", "encode_cancel",
    "encode_chunk", "encode_drop", "encode_drop_answer", "encode_offer", "encode_offline", "encode_ping", "encode_pong",
    "encode_push_report", "encode_result", "encode_run", "encode_sample", "encode_sample_result", "encode_status",
    "offered_push",
]  # fmt: skip

_RAW = Raw()
_OFFER = struct.Struct("<I")
MAX_OFFER_BYTES = _OFFER.size + MAX_SIGNED_BYTES
"""Bounds the device's receive buffer for control."""


@record
class OfferMessage:
    """What a device is told about a model before a byte of it is sent: the manifest, its signature checked.

    `size_bytes` and `digest` are of the artifact; what is sent is `transfer_bytes` long and encoded as `encoding` says.
    `self_test` None: loading and running once is enough. `replaces` is the one newer version it may take over from (0: none),
    `instead_of` the other model that gives way when it is accepted.
    """

    push: PushId
    model: ModelName
    version: int
    digest: Digest
    size_bytes: int
    arena_bytes: int
    runtime_abi: int
    operators: tuple[str, ...]
    self_test: SelfTest | None
    encoding: Encoding = _RAW
    replaces: int = 0
    instead_of: Held | None = None

    @property
    def transfer_bytes(self) -> int:
        """How many bytes are to be asked for."""
        return self.size_bytes if isinstance(self.encoding, Raw) else self.encoding.size_bytes


@record
class Activate:
    """Let the tested model take over, on trial."""

    push: PushId


@record
class Accept:
    """End the trial: the new model stays."""

    push: PushId


@record
class Cancel:
    """Drop the push; keep (or go back to) the old model."""

    push: PushId
    reason: str


DownMessage = OfferMessage | ChunkFrame | Activate | Accept | Cancel | DropMessage | RunFrame | SampleRequest | Ping
UpMessage = Born | Lost | PushReport | ResultFrame | SampleFrame | PongFrame | DropFrame


def encode_offer(push: PushId, signed: bytes) -> bytes:
    """Build `down/offer` from a signed manifest (see `wire.manifest`)."""
    return _OFFER.pack(push) + signed


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


def decode_down(kind: str, payload: bytes, keys: Mapping[bytes, bytes]) -> DownMessage:
    """Read what the gateway published under `down/<kind>`; offers count when one of `keys` signed them.

    Raises: BadRequest naming the member or frame that is wrong.
    """
    if kind == "offer":
        return _offer(payload, keys)
    if kind not in _DOWN:
        raise BadRequest(f"down/{kind[:20]!r}: must be one of offer, {', '.join(_DOWN)}")
    return _DOWN[kind](payload)


def offered_push(payload: bytes) -> PushId | None:
    """Return the push that an offer is about, even when the rest of it cannot be believed; None when it names none."""
    push = int.from_bytes(payload[: _OFFER.size], "little")
    return PushId(push) if len(payload) >= _OFFER.size and push <= U31 else None


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


def _offer(payload: bytes, keys: Mapping[bytes, bytes]) -> OfferMessage:
    push = offered_push(payload)
    if push is None or len(payload) > MAX_OFFER_BYTES:
        raise BadRequest(f"offer: {len(payload)} bytes, must be a push number of 31 bits and a signed manifest")
    manifest = read_manifest(payload[_OFFER.size :], keys)
    return OfferMessage(
        push=push,
        model=manifest.model,
        version=manifest.version,
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        arena_bytes=manifest.arena_bytes,
        runtime_abi=manifest.runtime_abi,
        operators=manifest.operators,
        self_test=manifest.self_test,
        encoding=manifest.encoding,
        replaces=manifest.replaces,
        instead_of=manifest.instead_of,
    )


def _push_only(where: str) -> Callable[[bytes], PushId]:
    def decode(payload: bytes) -> PushId:
        return PushId(read_object(payload, where=where, most_bytes=MAX_CONTROL_BYTES).whole("push", 0, U31))

    return decode


def _cancel(payload: bytes) -> Cancel:
    fields = read_object(payload, where="cancel", most_bytes=MAX_CONTROL_BYTES)
    return Cancel(PushId(fields.whole("push", 0, U31)), fields.optional_text("reason", MAX_REASON_CHARS))


_activate_push, _accept_push = _push_only("activate"), _push_only("accept")

_UP_FRAMES: dict[str, Callable[[bytes], ResultFrame | SampleFrame | PongFrame | DropFrame]] = {
    "result": decode_result,
    "sample": decode_sample_result,
    "pong": decode_pong,
    "drop": decode_drop_answer,
}
_DOWN: dict[str, Callable[[bytes], DownMessage]] = {
    "chunk": decode_chunk,
    "activate": lambda payload: Activate(_activate_push(payload)),
    "accept": lambda payload: Accept(_accept_push(payload)),
    "cancel": _cancel,
    "drop": decode_drop,
    "run": decode_run,
    "sample": decode_sample,
    "ping": decode_ping,
}
