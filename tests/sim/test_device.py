"""The simulated device as a process of its own, on a real broker, with the real interpreter."""

import hashlib
import importlib.util
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from gatewayd.core.device import PushPhase, PushReport, Report, SlotState
from gatewayd.core.model import SelfTest
from gatewayd.core.names import Digest, ModelName, PushId
from gatewayd.core.selftest import self_test_input
from gatewayd.core.tensor import Quantization, Tensor, TensorSpec, converted
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage, ResultFrame, SampleFrame
from gatewayd.wire.tflite import read_model
from tests.signing import offer_bytes
from tests.tiny_models import CLASSES, INT8_INPUTS, int8_model, int8_weights

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro has no wheel here: no arena is enforced"
)
ARENA = 4096


class Gateway(Protocol):
    """What `conftest.Gateway` offers; test modules cannot import a conftest."""

    def send(self, kind: str, payload: bytes) -> None: ...
    def next(self) -> wire.UpMessage: ...
    def birth(self) -> Report: ...
    def lost(self) -> object: ...
    def report(self) -> PushReport: ...
    def chunk(self, report: PushReport, content: bytes) -> None: ...
    def push(self, offer: OfferMessage, content: bytes) -> list[str]: ...


class Device(Protocol):
    """What `conftest.Device` offers."""

    def start(self, *more: str, board: str = ...) -> None: ...
    def end(self, how: signal.Signals) -> int: ...


def offer_of(
    push: int, content: bytes, *, version: int, arena: int = ARENA, test: SelfTest | None = None
) -> OfferMessage:
    digest = Digest(hashlib.sha256(content).hexdigest())
    operators = ("FULLY_CONNECTED",)
    return OfferMessage(PushId(push), ModelName("tiny"), version, digest, len(content), arena, 3, operators, test)


def padded(content: bytes, version: int) -> bytes:
    """Another model file with the same network: bytes after a flatbuffer's end are never read."""
    return content + bytes([version]) * 4


def reference(stored: bytes) -> list[int]:
    """The tiny network in exact arithmetic: (sum of (x - 3) w + bias) / 1024, since 1/8 : (1/64 · 1/128) = 1024."""
    x, weights = struct.unpack(f"{INT8_INPUTS}b", stored), int8_weights()
    rows = [weights[row * INT8_INPUTS : (row + 1) * INT8_INPUTS] for row in range(CLASSES)]
    sums = [sum((a - 3) * w for a, w in zip(x, row, strict=True)) + 100 * i for i, row in enumerate(rows)]
    return [max(-128, min(127, round(each / 1024) - 5)) for each in sums]


def close_to(output: bytes, expected: list[int]) -> bool:
    found = struct.unpack(f"{len(output)}b", output)
    return len(found) == len(expected) and all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


def result(gateway: Gateway) -> ResultFrame:
    frame = gateway.next()
    assert isinstance(frame, ResultFrame), frame
    return frame


def test_birth_push_run_sample_and_goodbye(
    gateway: Gateway, device: Device, samples: Callable[[Path], list[bytes]], tmp_path: Path
) -> None:
    content = int8_model()
    device.start("--battery", "0.8")
    birth = gateway.birth()
    assert (birth.battery, birth.capabilities.board) == (0.8, "nucleo-l4r5zi")
    assert [slot.state for slot in birth.slots] == [SlotState.EMPTY, SlotState.EMPTY]

    assert gateway.push(offer_of(1, content, version=1), content) == [
        "written",
        "verified",
        "tested",
        "trial",
        "accepted",
    ]
    second = padded(content, 2)
    assert gateway.push(offer_of(2, second, version=2), second)[-1] == "accepted"

    stored = bytes(range(INT8_INPUTS))
    gateway.send("run", wire.encode_run(7, slot=1, version=2, content=stored))
    inline = result(gateway)
    assert (inline.request, inline.status, inline.sample) == (7, FrameStatus.OK, 0)
    assert close_to(inline.content, reference(stored))

    macs = read_model(content).macs
    # The truth is within 30 % of the profile: 61.3 M MAC/s, 0.538 nJ/MAC, 167 us a call; 1 uJ per byte on the air.
    assert 167 <= inline.compute_us <= 167 + macs / 61.3 / 0.7 + 5
    radio_nj = 4_000 + INT8_INPUTS * 1_000
    assert radio_nj <= inline.energy_nj <= radio_nj + macs * 0.538 * 1.3 + 1

    rows = samples(tmp_path)
    for number in (0, 1, 2, 0):
        gateway.send("run", wire.encode_run(8, slot=1, version=2, sensor=0))
        by_sensor = result(gateway)
        assert (by_sensor.status, by_sensor.sample) == (FrameStatus.OK, number)
        assert close_to(by_sensor.content, reference(as_int8(rows[number], birth, content)))
    gateway.send("sample", wire.encode_sample(9, 0))
    sample = gateway.next()
    assert isinstance(sample, SampleFrame)
    assert (sample.sample, sample.content, sample.energy_nj) == (1, rows[1], len(rows[1]) * 1000)

    gateway.send("run", wire.encode_run(10, slot=1, version=2, content=b"short"))
    assert result(gateway).status is FrameStatus.REFUSED
    assert device.end(signal.SIGTERM) == 0
    gateway.lost()


def as_int8(sample: bytes, birth: Report, content: bytes) -> bytes:
    """Convert a sample as the device has to: through real values."""
    spec, target = birth.capabilities.sensors[0].spec, read_model(content).inputs[0]
    assert spec.quantization == Quantization(1 / 1024, 0)
    return converted(
        Tensor("mic", spec.dtype, spec.shape, sample), source=spec.quantization, target=as_target(target)
    ).content


def as_target(spec: TensorSpec) -> TensorSpec:
    assert spec.quantization == Quantization(1 / 64, 3)
    return spec


def test_killed_in_mid_transfer_it_resumes_and_keeps_its_model(gateway: Gateway, device: Device) -> None:
    content = int8_model()
    second = padded(content, 2)
    device.start("--chunk", "128")
    gateway.birth()
    assert gateway.push(offer_of(1, content, version=1), content)[-1] == "accepted"

    gateway.send("offer", offer_bytes(offer_of(2, second, version=2)))
    for _ in range(3):
        gateway.chunk(gateway.report(), second)
    assert gateway.report().offset == 3 * 128
    device.end(signal.SIGKILL)
    gateway.lost()

    device.start("--chunk", "128")
    report = gateway.birth()
    assert [(slot.state, slot.version) for slot in report.slots] == [(SlotState.ACTIVE, 1), (SlotState.STAGING, 2)]
    gateway.send("run", wire.encode_run(1, slot=0, version=1, content=bytes(INT8_INPUTS)))
    assert result(gateway).status is FrameStatus.OK
    gateway.send("offer", offer_bytes(offer_of(2, second, version=2)))
    resumed = gateway.report()
    assert (resumed.phase, resumed.offset) == (PushPhase.WANT, 3 * 128)
    gateway.chunk(resumed, second)
    assert gateway.push(offer_of(2, second, version=2), second)[-1] == "accepted"


def test_killed_in_trial_it_goes_back(gateway: Gateway, device: Device) -> None:
    content = int8_model()
    device.start()
    gateway.birth()
    gateway.send("offer", offer_bytes(offer_of(1, content, version=1)))
    while (report := gateway.report()).phase is PushPhase.WANT:
        gateway.chunk(report, content)
    while report.phase is not PushPhase.TESTED:
        report = gateway.report()
    gateway.send("activate", wire.encode_activate(PushId(1)))
    assert gateway.report().phase is PushPhase.TRIAL
    device.end(signal.SIGKILL)
    gateway.lost()
    device.start()
    ended = gateway.report()
    assert (ended.phase, ended.reason) == (PushPhase.FAILED, "trial not confirmed")


def test_a_board_that_is_too_small_refuses(gateway: Gateway, device: Device) -> None:
    content = int8_model()
    device.start("--arena", "2048", board="nucleo-g0b1re")
    gateway.birth()
    gateway.send("offer", offer_bytes(offer_of(1, content, version=1, arena=4096)))
    refused = gateway.report()
    assert (refused.phase, refused.reason) == (PushPhase.REJECTED, "arena 4096 > 2048 bytes")


@needs_tflm
def test_a_model_that_lies_about_its_arena_fails_the_self_test(gateway: Gateway, device: Device) -> None:
    content = int8_model()
    device.start("--arena", "256")
    gateway.birth()
    assert gateway.push(offer_of(1, content, version=1, arena=100), content)[-2:] == ["verified", "failed"]


def test_self_test_on_the_real_interpreter(gateway: Gateway, device: Device) -> None:
    content = int8_model()
    device.start()
    gateway.birth()
    wrong = SelfTest(7, bytes([120, 120, 120, 120]), 2)
    assert gateway.push(offer_of(1, content, version=1, test=wrong), content)[-2:] == ["verified", "failed"]
    right = SelfTest(7, expected_of(7), 2)
    assert gateway.push(offer_of(2, content, version=1, test=right), content)[-1] == "accepted"


def expected_of(seed: int) -> bytes:
    return struct.pack(f"{CLASSES}b", *reference(self_test_input(seed, INT8_INPUTS)))


def test_garbage_does_not_stop_it(gateway: Gateway, device: Device) -> None:
    device.start("--mqtt-version", "5")
    gateway.birth()
    for kind in ("offer", "chunk", "run", "nonsense"):
        gateway.send(kind, b"\xff\x00{")
    gateway.send("ping", wire.encode_ping(3))
    assert gateway.next() == wire.PongFrame(3)
