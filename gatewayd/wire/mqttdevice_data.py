"""The raw frames of the MQTT device protocol (little-endian): chunks, runs, samples, pings; both ends.

Source: docs/device-protocol-mqtt.md. Reserved bytes are sent as 0 and ignored when read.
"""

import struct
from enum import IntEnum

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import PushId
from gatewayd.core.record import record
from gatewayd.wire.mqttdevice_json import U31, printable

MAX_DATA_BYTES = 262_144
"""Bounds one input, output or sample: the largest of the reference models takes 27,648 bytes."""
MAX_CHUNK_BYTES = 65_536
"""Bounds one piece of a model, and so what a device may ask for at once."""
_MAX_REASON_BYTES = 800

_CHUNK = struct.Struct("<II")
_RUN = struct.Struct("<IBBBxI")
_RESULT = struct.Struct("<IBBHIII")
_ASK = struct.Struct("<IBxH")
_SAMPLE = struct.Struct("<IBxHII")
_TOKEN = struct.Struct("<I")
_FROM_SENSOR, _SAMPLE_BELOW = 1, 2
_WITH_SAMPLE = 1
_BELOW_BYTES = 4


class FrameStatus(IntEnum):
    """How a run or a sample ended on the device."""

    OK = 0
    REFUSED = 1
    FAILED = 2


@record
class ChunkFrame:
    """A piece of the model, `content` from byte `offset`."""

    push: PushId
    offset: int
    content: bytes


@record
class RunFrame:
    """Run the model in `slot` (which must hold `version`) on `content`, or, when that is None, on sensor number `sensor`.

    `below`: send the sample with the answer when no element of the first output reaches this, as stored (4 bytes: an i32, or
    an f32 when the output is FP32; None: do not).
    """

    request: int
    slot: int
    sensor: int
    version: int
    content: bytes | None
    below: bytes | None = None


@record
class SampleRequest:
    """Read sensor number `sensor` and send the raw sample."""

    request: int
    sensor: int


@record
class Ping:
    """Send the token back."""

    token: int


@record
class PongFrame:
    """The token of a ping, back."""

    token: int


@record
class ResultFrame:
    """What a run gave: `content` is the raw output (b"" unless OK), `reason` says why not ("" when OK).

    `has_sample`: the raw sample follows the output in `content`.
    """

    request: int
    status: FrameStatus
    compute_us: int
    energy_nj: int
    sample: int
    content: bytes = b""
    reason: str = ""
    has_sample: bool = False

    @property
    def compute_s(self) -> float:
        """Seconds the device computed."""
        return self.compute_us / 1e6

    @property
    def energy_uj(self) -> float:
        """µJ the device says it used."""
        return self.energy_nj / 1e3


@record
class SampleFrame:
    """What a sensor gave: `content` is the raw sample (b"" unless OK), `reason` says why not ("" when OK)."""

    request: int
    status: FrameStatus
    energy_nj: int
    sample: int
    content: bytes = b""
    reason: str = ""

    @property
    def energy_uj(self) -> float:
        """µJ the device says reading and sending it cost."""
        return self.energy_nj / 1e3


def encode_chunk(push: PushId, offset: int, content: bytes) -> bytes:
    """Build `down/chunk`."""
    return _CHUNK.pack(push, offset) + content


def encode_run(
    request: int,
    *,
    slot: int,
    version: int,
    sensor: int = 0,
    content: bytes | None = None,
    below: bytes | None = None,
) -> bytes:
    """Build `down/run`; without `content` the device takes the input from sensor number `sensor`, and `below` counts."""
    flags = 0 if content is not None else _FROM_SENSOR if below is None else _FROM_SENSOR | _SAMPLE_BELOW
    return _RUN.pack(request, slot, flags, sensor, version) + (content if content is not None else below or b"")


def encode_sample(request: int, sensor: int) -> bytes:
    """Build `down/sample`."""
    return _ASK.pack(request, sensor, 0)


def encode_ping(token: int) -> bytes:
    """Build `down/ping`."""
    return _TOKEN.pack(token)


def encode_pong(token: int) -> bytes:
    """Build `up/pong`."""
    return _TOKEN.pack(token)


def encode_result(frame: ResultFrame) -> bytes:
    """Build `up/result`."""
    flags = _WITH_SAMPLE if frame.has_sample else 0
    head = _RESULT.pack(frame.request, frame.status, flags, 0, frame.compute_us, frame.energy_nj, frame.sample)
    return head + (frame.content if frame.status is FrameStatus.OK else printable(frame.reason).encode())


def encode_sample_result(frame: SampleFrame) -> bytes:
    """Build `up/sample`."""
    head = _SAMPLE.pack(frame.request, frame.status, 0, frame.energy_nj, frame.sample)
    return head + (frame.content if frame.status is FrameStatus.OK else printable(frame.reason).encode())


def decode_chunk(payload: bytes) -> ChunkFrame:
    """Read `down/chunk`. Raises: BadRequest."""
    push, offset = _unpack(_CHUNK, payload, where="chunk", most=MAX_CHUNK_BYTES)
    if push > U31 or len(payload) == _CHUNK.size:
        raise BadRequest("chunk: a push number fits 31 bits and bytes follow it")
    return ChunkFrame(PushId(push), offset, payload[_CHUNK.size :])


def decode_run(payload: bytes) -> RunFrame:
    """Read `down/run`. Raises: BadRequest."""
    request, slot, flags, sensor, version = _unpack(_RUN, payload, where="run", most=MAX_DATA_BYTES)
    content = payload[_RUN.size :]
    if flags == 0:
        return RunFrame(request, slot, sensor, version, content)
    if flags == _FROM_SENSOR | _SAMPLE_BELOW and len(content) == _BELOW_BYTES:
        return RunFrame(request, slot, sensor, version, None, content)
    if flags != _FROM_SENSOR or content:
        raise BadRequest(
            f"run.flags: {flags} with {len(content)} bytes; known are 1 with none and 3 with {_BELOW_BYTES}"
        )
    return RunFrame(request, slot, sensor, version, None)


def decode_sample(payload: bytes) -> SampleRequest:
    """Read `down/sample`. Raises: BadRequest."""
    request, sensor, _ = _unpack(_ASK, payload, where="sample", most=0)
    return SampleRequest(request, sensor)


def decode_ping(payload: bytes) -> Ping:
    """Read `down/ping`. Raises: BadRequest."""
    return Ping(*_unpack(_TOKEN, payload, where="ping", most=0))


def decode_pong(payload: bytes) -> PongFrame:
    """Read `up/pong`. Raises: BadRequest."""
    return PongFrame(*_unpack(_TOKEN, payload, where="pong", most=0))


def decode_result(payload: bytes) -> ResultFrame:
    """Read `up/result`. Raises: BadRequest."""
    head = _unpack(_RESULT, payload, where="result", most=MAX_DATA_BYTES)
    request, status, flags, _, compute_us, energy_nj, sample = head
    content, reason = _split(status, payload[_RESULT.size :], where="result")
    has_sample = status == FrameStatus.OK and bool(flags & _WITH_SAMPLE)
    return ResultFrame(request, FrameStatus(status), compute_us, energy_nj, sample, content, reason, has_sample)


def decode_sample_result(payload: bytes) -> SampleFrame:
    """Read `up/sample`. Raises: BadRequest."""
    request, status, _, energy_nj, sample = _unpack(_SAMPLE, payload, where="sample", most=MAX_DATA_BYTES)
    content, reason = _split(status, payload[_SAMPLE.size :], where="sample")
    return SampleFrame(request, FrameStatus(status), energy_nj, sample, content, reason)


def _unpack(head: struct.Struct, payload: bytes, *, where: str, most: int) -> tuple[int, ...]:
    if not head.size <= len(payload) <= head.size + most:
        raise BadRequest(f"{where}: {len(payload)} bytes, must be {head.size}..{head.size + most}")
    return head.unpack_from(payload)


def _split(status: int, rest: bytes, *, where: str) -> tuple[bytes, str]:
    """Return (content, reason): bytes when OK, text otherwise."""
    if status not in set(FrameStatus):
        raise BadRequest(f"{where}.status: {status} is none of 0 (ok), 1 (refused), 2 (failed)")
    if status == FrameStatus.OK:
        return rest, ""
    return b"", printable(rest[:_MAX_REASON_BYTES].decode(errors="replace"))
