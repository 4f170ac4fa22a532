"""A device that was written from the page alone, and the page's bytes."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.demo.client import Answer, GatewayClient
from tests.broker import Broker
from tests.gateway import BASE, SPEAKER, Events, Gateway, client
from tests.second_device.agent import CHUNK, PAGE, Agent, Flash, Runner, Sensor
from tests.second_device.client import Client, Power
from tests.second_device.module import trusted

SAMPLE_BYTES = 29 * 12 * 2
MODEL = (SPEAKER / "v1" / "speaker-int8.tflite").read_bytes()
BY_REFERENCE = {"device": "second", "input": "mic"}
Keys = dict[bytes, bytes]
ENDS = {"accepted", "rejected", "failed", "rolled-back", "cancelled"}


def _read(number: int) -> bytes:
    at = number % 370 * SAMPLE_BYTES
    return (SPEAKER / "samples.bin").read_bytes()[at : at + SAMPLE_BYTES]


def _runner() -> Runner:
    numpy = pytest.importorskip("numpy")
    litert = pytest.importorskip("ai_edge_litert.interpreter")

    def run(model: bytes, inputs: list[bytes]) -> list[bytes]:
        interpreter = litert.Interpreter(model_content=model)
        interpreter.allocate_tensors()
        for detail, content in zip(interpreter.get_input_details(), inputs, strict=True):
            values = numpy.frombuffer(content, detail["dtype"]).reshape(detail["shape"])
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]).tobytes() for each in interpreter.get_output_details()]

    return run


def _device(flash: Flash, *, port: int, keys: Keys, power: Power = lambda *_: True) -> Client:
    sensor = Sensor("mic", [1, 29, 1, 12], 1 / 4096, "lpc12@1", _read)
    runner = _runner()
    return Client(
        "second",
        base=BASE,
        port=port,
        make=lambda say: Agent(flash, keys=keys, runner=runner, sensor=sensor, say=say),
        power=power,
    )


def _until_chunk(number: int) -> Power:
    """The power goes when this chunk comes, once; it is not written."""
    left = [number]

    def power(leaf: str, _payload: bytes) -> bool:
        left[0] -= leaf == "chunk"
        return leaf != "chunk" or left[0] != 0

    return power


def _phases(device: Client) -> list[object]:
    """Every phase once, in the order they were said first."""
    return list(dict.fromkeys(report["phase"] for report in device.reports()))


@contextmanager
def _started(device: Client) -> Iterator[Client]:
    device.start()
    try:
        yield device
    finally:
        device.stop()


@pytest.fixture
def gateway(tmp_path: Path, broker: Broker) -> Iterator[Gateway]:
    running = Gateway(tmp_path, broker_port=broker.port)
    file = base64.b64encode(MODEL).decode()
    body = {"model": "speaker", "files": [file], "labels": [f"speaker-{n}" for n in range(1, 10)]}
    status, answer = running.post("/api/models/add", json.dumps({**body, "preprocessing": "lpc12@1"}).encode())
    try:
        assert status == 200, answer
        yield running
    finally:
        running.end()


@pytest.fixture
def keys(gateway: Gateway) -> Keys:
    return trusted((gateway.folder / "data" / "keys" / "trusted.txt").read_text())


def _is_online(event: Answer) -> bool:
    return bool(event["device"] == "second" and event["online"])


def _pushed(mqtt: GatewayClient) -> int:
    return int(mqtt.command("push", {"device": "second", "model": "speaker"})["push"])


def _end_of(push: int, events: Events) -> Answer:
    return events.until("event/push", lambda event: event["push"] == push and event["state"] in ENDS)


def _infer(gateway: Gateway, body: Answer) -> Answer:
    status, answer = gateway.post("/v2/models/speaker/infer", json.dumps(body).encode())
    assert status == 200, answer
    return dict(answer)


def _node_answers(gateway: Gateway, sample: int) -> object:
    values = [each / 4096 for each in struct.unpack(f"<{SAMPLE_BYTES // 2}h", _read(sample))]
    data = {"name": "lpc", "shape": [1, 29, 1, 12], "datatype": "FP32", "data": values}
    answer = _infer(gateway, {"inputs": [data], "parameters": {"placement": "node"}})
    assert answer["parameters"]["ran_on"] == "node"
    return answer["outputs"]


def test_it_takes_a_model_and_answers_like_the_node(gateway: Gateway, broker: Broker, keys: Keys) -> None:
    with client(broker.port) as (mqtt, events), _started(_device(Flash(), port=broker.port, keys=keys)) as device:
        events.until("event/device", _is_online)
        assert _end_of(_pushed(mqtt), events)["state"] == "accepted"
        for _ in range(20):
            there = _infer(gateway, BY_REFERENCE | {"parameters": {"placement": "device:second"}})
            assert there["parameters"]["ran_on"] == "device:second"
            assert there["outputs"] == _node_answers(gateway, there["parameters"]["sample"])
        fetched = _infer(gateway, BY_REFERENCE | {"parameters": {"placement": "node"}})
        assert fetched["parameters"]["ran_on"] == "node"
        assert fetched["outputs"] == _node_answers(gateway, fetched["parameters"]["sample"])
        assert {leaf for leaf, _ in device.said} == {"status", "push", "result", "sample", "pong"}
        assert _phases(device) == ["want", "written", "verified", "tested", "trial", "accepted"]


def test_a_connection_that_is_cut_goes_on_where_it_was(broker: Broker, keys: Keys) -> None:
    device = _device(Flash(), port=broker.port, keys=keys, power=_until_chunk(4))
    with client(broker.port) as (mqtt, events), _started(device):
        events.until("event/device", _is_online)
        push = _pushed(mqtt)
        device.join()
        events.until("event/device", lambda event: event["device"] == "second" and not event["online"])
        device.said.clear()
        device.start()
        assert _end_of(push, events)["state"] == "accepted"
        assert next(each for each in device.reports() if each["phase"] == "want")["offset"] == 3 * CHUNK


def test_a_power_cut_costs_at_most_a_page(broker: Broker, keys: Keys) -> None:
    flash = Flash()
    before = _device(flash, port=broker.port, keys=keys, power=_until_chunk(6))
    with client(broker.port) as (mqtt, events), _started(before):
        events.until("event/device", _is_online)
        push = _pushed(mqtt)
        before.join()
        assert flash.push is not None
        assert len(flash.slots[flash.push.slot].content) == 5 * CHUNK
        events.until("event/device", lambda event: event["device"] == "second" and not event["online"])
        with _started(_device(flash, port=broker.port, keys=keys)) as after:
            assert _end_of(push, events)["state"] == "accepted"
        assert after.reports()[0] == {"push": push, "phase": "want", "offset": 2 * PAGE, "length": CHUNK}
    assert hashlib.sha256(flash.slots[0].content).digest() == hashlib.sha256(MODEL).digest()


@pytest.mark.parametrize("is_known", [True, False], ids=["another key under its id", "a key nobody has"])
def test_a_key_with_one_wrong_bit_rejects(broker: Broker, keys: Keys, *, is_known: bool) -> None:
    ((kid, key),) = keys.items()
    wrong = bytes([key[0] ^ 1]) + key[1:]
    held = {kid: wrong} if is_known else trusted(wrong.hex())
    with client(broker.port) as (mqtt, events), _started(_device(Flash(), port=broker.port, keys=held)) as device:
        events.until("event/device", _is_online)
        ended = _end_of(_pushed(mqtt), events)
        assert ended["state"] == "rejected"
        assert ended["reason"] == ("signature does not hold" if is_known else f"key {kid.hex()} is not trusted")
        assert _phases(device) == ["rejected"]
        assert [each.state for each in device.agent.flash.slots] == ["empty", "empty"]
