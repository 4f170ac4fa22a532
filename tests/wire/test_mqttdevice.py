import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.device import (
    Born,
    Capabilities,
    EnergySource,
    LinkKind,
    Lost,
    PushPhase,
    PushReport,
    Report,
    Sensor,
    Slot,
    SlotState,
)
from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.model import SelfTest
from gatewayd.core.module import Deflate, Delta, Raw
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage, ResultFrame, RunFrame, SampleFrame
from tests.signing import KEYS, offer_bytes

CAM = DeviceId("cam-7")
U31, U32 = 2**31 - 1, 2**32 - 1
UP = ("status", "push", "result", "sample", "pong")
DOWN = ("offer", "chunk", "activate", "accept", "cancel", "run", "sample", "ping")
BIRTH = """{"v":1, "state":"online", "board":"nucleo-l4r5zi", "cpu":"cortex-m4", "mhz":120, "ram":655360, "flash":2097152,
     "runtime":"tflm", "runtime_version":"2.15", "abi":3, "arena":65536, "slot_bytes":131072, "chunk":1024,
     "energy":"battery", "battery":0.93, "operators":["CONV_2D","SOFTMAX"],
     "sensors":[{"name":"mic","dtype":"INT16","shape":[1,29,1,12],"scale":0.000244140625,"zero":0,"preprocessing":"lpc12@1"}],
     "slots":[{"slot":0,"state":"active","model":"speaker","version":1,"digest":"DIGEST"},{"slot":1,"state":"empty"}]}"""
BIRTH = BIRTH.replace("DIGEST", "ab" * 32)

u31 = st.integers(0, U31)
u32 = st.integers(0, U32)
pushes = u31.map(PushId)
texts = st.text(max_size=64).filter(str.isprintable)
reasons = st.text(max_size=200).filter(str.isprintable)
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True).map(ModelName)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
versions = st.integers(1, U31)
quantizations = st.none() | st.builds(Quantization, st.floats(1e-12, 1e12), st.integers(-(2**31), U31))
shapes = st.lists(st.integers(1, 8), max_size=6).map(tuple).filter(lambda shape: len(shape) < 5)


@st.composite
def sensors(draw: st.DrawFn) -> tuple[Sensor, ...]:
    found = draw(st.lists(texts.filter(bool), max_size=8, unique=True))
    dtypes = st.sampled_from(DType)
    return tuple(Sensor(n, TensorSpec(n, draw(dtypes), draw(shapes), draw(quantizations)), draw(texts)) for n in found)


@st.composite
def slots(draw: st.DrawFn) -> tuple[Slot, ...]:
    indexes = draw(st.lists(st.integers(0, 7), max_size=8, unique=True))
    held = st.builds(Slot, st.just(0), st.sampled_from(list(SlotState)[1:]), names, versions, digests)
    kinds = held | st.just(Slot(0, SlotState.EMPTY))
    return tuple(replace(draw(kinds), index=index) for index in indexes)


capabilities = st.builds(
    Capabilities,
    texts, texts, st.integers(1, 10_000), st.integers(1, U32), st.integers(1, U32), texts, texts, u31, st.integers(1, U31),
    st.integers(1, U31), st.integers(1, 65_536), st.sampled_from(EnergySource),
    st.none() | st.frozensets(texts.filter(lambda text: len(text) < 12), max_size=20), sensors(), st.none() | st.integers(9, 15),
    st.sampled_from(["", "ethos-u55-128"]),
)  # fmt: skip
reports = st.builds(Report, capabilities, slots(), st.none() | st.floats(0, 1))
self_tests = st.builds(SelfTest, st.integers(1, U32), st.binary(min_size=1, max_size=300), st.integers(0, 65_535))
operators = st.frozensets(st.sampled_from(["CONV_2D", "SOFTMAX", "ADD"])).map(sorted).map(tuple)
sizes = st.integers(1, U31)
encodings = (
    st.just(Raw()) | st.builds(Deflate, st.integers(9, 15), sizes, digests) | st.builds(Delta, digests, sizes, digests)
)
offers = st.builds(
    OfferMessage, pushes, names, versions, digests, versions, u31, u31, operators, st.none() | self_tests,
    encodings, u31,
)  # fmt: skip


def up(kind: str, payload: bytes) -> wire.UpMessage:
    return wire.decode_up(kind, payload, CAM)


def down(kind: str, payload: bytes) -> wire.DownMessage:
    return wire.decode_down(kind, payload, KEYS)


@given(reports)
def test_status_round_trip(report: Report) -> None:
    try:
        payload = wire.encode_status(report)
    except TooLarge:  # eight sensors with four-byte characters everywhere may be over the limit
        return
    assert up("status", payload) == Born(CAM, LinkKind.MQTT, report)


def test_status_of_the_page() -> None:
    born = up("status", BIRTH.encode())
    assert isinstance(born, Born)
    assert born.report.battery == 0.93
    assert born.report.slots[0] == Slot(0, SlotState.ACTIVE, ModelName("speaker"), 1, Digest("ab" * 32))
    mic = born.report.capabilities.sensor("mic")
    assert mic is not None
    assert mic.spec == TensorSpec("mic", DType.INT16, (1, 29, 1, 12), Quantization(0.000244140625, 0))


@pytest.mark.parametrize("payload", [b"", wire.encode_offline(), b'{"state":"offline","why":"dark"}'])
def test_offline(payload: bytes) -> None:
    assert up("status", payload) == Lost(CAM, "offline")


def with_member(key: str, value: object) -> bytes:
    members = json.loads(BIRTH)
    members[key] = value
    return json.dumps(members).encode()


SLOT = {"slot": 0, "state": "empty"}
SENSOR = {"name": "mic", "dtype": "INT16", "shape": [4]}


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("v", 2, "status.v"),
        ("state", "asleep", "status.state"),
        ("mhz", 1.5, "status.mhz"),
        ("mhz", True, "status.mhz"),
        ("arena", -1, "status.arena"),
        ("chunk", 65_537, "status.chunk"),
        ("board", "x" * 65, "status.board"),
        ("board", "a\u0007b", "status.board"),
        ("board", None, "status.board: is missing"),
        ("energy", "sun", "status.energy"),
        ("battery", 1.01, "status.battery"),
        ("operators", ["ADD"] * 257, "status.operators"),
        ("operators", [1], "status.operators[0]"),
        ("slots", [SLOT] * 9, "status.slots"),
        ("slots", [SLOT, SLOT], "status.slots: one of them stands twice"),
        ("slots", [{"slot": 8, "state": "empty"}], "status.slots[0].slot"),
        ("slots", [{"slot": 0, "state": "full"}], "status.slots[0].state"),
        ("slots", [{"slot": 0, "state": "active"}], "status.slots[0].model: is missing"),
        ("slots", [3], "status.slots[0]"),
        ("sensors", [SENSOR, SENSOR], "status.sensors: one of them stands twice"),
        ("sensors", [SENSOR | {"dtype": "INT4"}], "status.sensors[0].dtype"),
        ("sensors", [SENSOR | {"shape": [0]}], "status.sensors[0].shape.0"),
        ("sensors", [SENSOR | {"shape": [262_144, 2]}], "status.sensors[0].shape: a sample"),
        ("sensors", [SENSOR | {"scale": 0, "zero": 0}], "status.sensors[0].scale"),
        ("sensors", [SENSOR | {"scale": 1}], "status.sensors[0].zero: is missing"),
    ],
)
def test_status_names_the_member(key: str, value: object, place: str) -> None:
    with pytest.raises(BadRequest) as error:
        up("status", with_member(key, value))
    assert place in str(error.value)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b'{"push":1,"push":2,"phase":"trial"}', "twice"),
        (b'{"push":NaN,"phase":"trial"}', "NaN"),
        (b'{"push":Infinity,"phase":"trial"}', "Infinity"),
        (b'{"push":1e400,"phase":"trial"}', "push.push"),
        (b'{"push":' + b"9" * 900 + b',"phase":"trial"}', "push.push"),
        (b"[" * 1000, "nested too deep|no JSON"),
        (b"[]", "must be an object"),
        (b"\xff{}", "no JSON"),
        (b'{"push":1,"phase":"trial","x":"' + b"x" * 1024 + b'"}', "at most 1024"),
        (b'{"push":1,"phase":"done"}', "push.phase"),
        (b'{"push":1,"phase":"want","offset":0,"length":0}', "push.length"),
        (b'{"push":1,"phase":"failed","reason":"' + b"x" * 201 + b'"}', "push.reason"),
        (b'{"push":1,"phase":"failed","reason":"\\ud800"}', "push.reason"),
    ],
)
def test_push_report_refusals(payload: bytes, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        up("push", payload)


def test_deep_nesting_within_the_size_is_one_error() -> None:
    with pytest.raises(BadRequest):
        up("status", b'{"v":' + b"[" * 4000 + b"]" * 4000 + b"}")


@given(pushes, st.sampled_from(PushPhase), u31, st.integers(1, 65_536), reasons)
def test_push_report_round_trip(push: PushId, phase: PushPhase, offset: int, length: int, reason: str) -> None:
    payload = wire.encode_push_report(push, phase, offset=offset, length=length, reason=reason)
    expected = PushReport(CAM, push, phase)
    if phase is PushPhase.WANT:
        expected = replace(expected, offset=offset, length=length)
    if phase in {PushPhase.REJECTED, PushPhase.FAILED}:
        expected = replace(expected, reason=reason)
    assert up("push", payload) == expected


@given(st.text(max_size=500))
def test_any_reason_can_be_sent(reason: str) -> None:
    report = up("push", wire.encode_push_report(PushId(1), PushPhase.FAILED, reason=reason))
    assert isinstance(report, PushReport)
    assert len(report.reason) == min(len(reason), 200)


@given(offers)
def test_offer_round_trip(offer: OfferMessage) -> None:
    assert down("offer", offer_bytes(offer)) == offer


def test_an_offer_by_another_key_is_refused() -> None:
    offer = OfferMessage(PushId(1), ModelName("kws"), 1, Digest("0" * 64), 1, 1, 3, (), None)
    with pytest.raises(BadRequest, match=f"signed by key {next(iter(KEYS)).hex()}, which is not trusted here"):
        wire.decode_down("offer", offer_bytes(offer), {})


@pytest.mark.parametrize("payload", [b"", b"\1\0\0", b"\1\0\0\x80" + bytes(100), bytes(wire.MAX_OFFER_BYTES + 1)])
def test_an_offer_names_its_push_within_its_size(payload: bytes) -> None:
    with pytest.raises(BadRequest, match="offer: "):
        down("offer", payload)


@given(pushes, reasons)
def test_push_commands_round_trip(push: PushId, reason: str) -> None:
    assert down("activate", wire.encode_activate(push)) == wire.Activate(push)
    assert down("accept", wire.encode_accept(push)) == wire.Accept(push)
    assert down("cancel", wire.encode_cancel(push, reason)) == wire.Cancel(push, reason)


@given(pushes, u32, st.binary(min_size=1, max_size=64))
def test_chunk_round_trip(push: PushId, offset: int, content: bytes) -> None:
    assert down("chunk", wire.encode_chunk(push, offset, content)) == wire.ChunkFrame(push, offset, content)


@given(u32, st.integers(0, 255), st.integers(0, 255), u32, st.none() | st.binary(max_size=64))
def test_run_round_trip(request: int, slot: int, sensor: int, version: int, content: bytes | None) -> None:
    payload = wire.encode_run(request, slot=slot, version=version, sensor=sensor, content=content)
    assert down("run", payload) == RunFrame(request, slot, sensor, version, content)


@given(u32, st.integers(0, 255))
def test_sample_and_ping_round_trip(request: int, sensor: int) -> None:
    assert down("sample", wire.encode_sample(request, sensor)) == wire.SampleRequest(request, sensor)
    assert down("ping", wire.encode_ping(request)) == wire.Ping(request)
    assert up("pong", wire.encode_pong(request)) == wire.PongFrame(request)


@given(u32, u32, u32, u32, st.binary(max_size=64), reasons)
def test_result_round_trip(request: int, compute: int, energy: int, sample: int, content: bytes, reason: str) -> None:
    good = ResultFrame(request, FrameStatus.OK, compute, energy, sample, content)
    bad = ResultFrame(request, FrameStatus.FAILED, compute, energy, sample, reason=reason)
    assert [up("result", wire.encode_result(each)) for each in (good, bad)] == [good, bad]
    assert (good.compute_s, good.energy_uj) == (compute / 1e6, energy / 1e3)


@given(u32, u32, u32, st.binary(max_size=64), reasons)
def test_sample_result_round_trip(request: int, energy: int, sample: int, content: bytes, reason: str) -> None:
    good = SampleFrame(request, FrameStatus.OK, energy, sample, content)
    bad = SampleFrame(request, FrameStatus.REFUSED, energy, sample, reason=reason)
    assert [up("sample", wire.encode_sample_result(each)) for each in (good, bad)] == [good, bad]
    assert good.energy_uj == energy / 1e3


@pytest.mark.parametrize(
    ("decode", "payload", "problem"),
    [
        (lambda p: down("run", p), wire.encode_run(1, slot=0, version=1) + b"x", "run.flags"),
        (lambda p: down("run", p), bytes(5) + b"\x02" + bytes(6), "run.flags"),
        (lambda p: down("chunk", p), bytes(8), "bytes follow"),
        (lambda p: down("chunk", p), bytes(9 + 65_536), "chunk: 65545 bytes"),
        (lambda p: down("ping", p), bytes(5), "ping: 5 bytes"),
        (lambda p: up("result", p), bytes(19), "result: 19 bytes"),
        (lambda p: up("result", p), bytes(4) + b"\x03" + bytes(15), "result.status"),
        (lambda p: up("nonsense", p), b"", "must be one of"),
        (lambda p: down("nonsense", p), b"", "must be one of"),
    ],
)
def test_frame_refusals(decode: Callable[[bytes], object], payload: bytes, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem):
        decode(payload)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
birth_members = st.dictionaries(
    st.sampled_from([*json.loads(BIRTH), "push", "phase", "offset", "model"]), json_like, max_size=4
)
twisted = birth_members.map(lambda change: json.dumps(json.loads(BIRTH) | change).encode())
payloads = st.binary(max_size=200) | twisted | birth_members.map(lambda members: json.dumps(members).encode())


@given(st.sampled_from(UP), payloads)
def test_any_bytes_up_are_a_value_or_one_error(kind: str, payload: bytes) -> None:
    with suppress(BadRequest):
        up(kind, payload)


@given(st.sampled_from(DOWN), payloads)
def test_any_bytes_down_are_a_value_or_one_error(kind: str, payload: bytes) -> None:
    with suppress(BadRequest):
        down(kind, payload)
