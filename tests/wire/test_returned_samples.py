"""A run that is to bring its sample along when the answer is not sure: both ends of the frames, and the agent in between."""

import struct
from dataclasses import replace

import pytest

from gatewayd.core.device import Report
from gatewayd.core.errors import BadRequest
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import FrameStatus, ResultFrame, RunFrame
from gatewayd.wire.mqttdevice_status import decode_status, encode_status
from tests.agent_bench import DEVICE, FIRST, V1, Bench, make_capabilities
from tests.api_values import CAPABILITIES

BELOW = struct.pack("<i", 100)
REPORT = Report(CAPABILITIES, ())


def test_the_threshold_travels_behind_the_head() -> None:
    payload = wire.encode_run(7, slot=1, version=3, sensor=2, below=BELOW)
    assert payload == bytes.fromhex("07000000 01 03 02 00 03000000 64000000")
    assert wire.decode_down("run", payload, {}) == RunFrame(7, 1, 2, 3, None, BELOW)


@pytest.mark.parametrize(("flags", "rest"), [(3, b""), (3, b"12345"), (2, BELOW), (7, BELOW), (1, BELOW)])
def test_other_flags_and_lengths_are_refused(flags: int, rest: bytes) -> None:
    with pytest.raises(BadRequest, match=r"run\.flags"):
        wire.decode_down("run", struct.pack("<IBBBBI", 7, 1, flags, 2, 0, 3) + rest, {})


def test_an_answer_says_that_its_sample_follows() -> None:
    frame = ResultFrame(7, FrameStatus.OK, 250, 5, 9, b"out" + b"raw!", has_sample=True)
    payload = wire.encode_result(frame)
    assert payload[4:6] == bytes([0, 1])
    assert wire.decode_up("result", payload, DEVICE) == frame


def test_a_refusal_has_no_sample() -> None:
    payload = struct.pack("<IBBHIII", 7, 1, 1, 0, 0, 0, 0) + b"no"
    heard = wire.decode_up("result", payload, DEVICE)
    assert isinstance(heard, ResultFrame)
    assert not heard.has_sample


def test_the_birth_says_how_much_comes_along() -> None:
    has = replace(CAPABILITIES, returns_bytes=696)
    report = decode_status(encode_status(replace(REPORT, capabilities=has)))
    assert report is not None
    assert report.capabilities.returns_bytes == 696
    assert b"returns" not in encode_status(REPORT)


@pytest.mark.parametrize(("returns", "below"), [(0, None), (64, BELOW)])
def test_the_agent_asks_its_board_only_where_that_was_announced(returns: int, below: bytes | None) -> None:
    bench = Bench(capabilities=replace(make_capabilities(), returns_bytes=returns)).start()
    bench.push(FIRST, V1)
    bench.send("run", wire.encode_run(5, slot=0, version=1, below=BELOW))
    (run,) = [each for each in bench.commands if isinstance(each, terms.RunModel)]
    assert (run.content, run.below) == (None, below)
