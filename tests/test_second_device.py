"""A device that was written from the page alone, and the page's bytes."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.core.names import parse_device_id
from gatewayd.core.selftest import self_test_input
from gatewayd.core.tensor import DType
from gatewayd.demo.client import Answer, GatewayClient
from gatewayd.wire import mqttdevice
from tests.broker import Broker
from tests.gateway import BASE, REPOSITORY, SPEAKER, Events, Gateway, client
from tests.second_device.agent import CHUNK, PAGE, Agent, Runner
from tests.second_device.bench import ARTIFACT, SECRET, Bench, conversation, push_of, requests, unsure
from tests.second_device.client import Client, Power
from tests.second_device.flash import Flash, Sensor
from tests.second_device.module import Tensor, made, trusted

PAGE_TEXT = (REPOSITORY / "docs" / "device-protocol-mqtt.md").read_text()
SAMPLE_BYTES = 29 * 12 * 2
MODEL = (SPEAKER / "v1" / "speaker-int8.tflite").read_bytes()
BY_REFERENCE = {"device": "second", "input": "mic"}
Keys = dict[bytes, bytes]
LABELS = [f"speaker-{n}" for n in range(1, 10)]
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
    body = {"model": "speaker", "files": [file], "labels": LABELS}
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


def _node_answers(gateway: Gateway, sample: int) -> list[Answer]:
    values = [each / 4096 for each in struct.unpack(f"<{SAMPLE_BYTES // 2}h", _read(sample))]
    data = {"name": "lpc", "shape": [1, 29, 1, 12], "datatype": "FP32", "data": values}
    answer = _infer(gateway, {"inputs": [data], "parameters": {"placement": "node"}})
    assert answer["parameters"]["ran_on"] == "node"
    return list(answer["outputs"])


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


def test_the_page_shows_a_push_to_the_byte() -> None:
    assert f"```text\n{conversation(Bench(), push_of(7))}```" in PAGE_TEXT


def test_the_page_shows_every_request_to_the_byte() -> None:
    bench = Bench()
    conversation(bench, push_of(7))
    assert f"```text\n{conversation(bench, requests())}```" in PAGE_TEXT


def test_the_page_shows_an_answer_with_its_sample_to_the_byte() -> None:
    bench = Bench()
    conversation(bench, [*push_of(7), *requests()])
    assert f"```text\n{conversation(bench, unsure())}```" in PAGE_TEXT


def test_the_gateway_reads_what_the_page_shows() -> None:
    keys = trusted(SECRET.public_key().public_bytes_raw().hex())
    bench = Bench()
    for leaf, payload in [*push_of(7), *requests(), *unsure()]:
        assert mqttdevice.decode_down(leaf, payload, keys) is not None
        for kind, answer in bench.hear(leaf, payload):
            assert mqttdevice.decode_up(kind, answer, parse_device_id("second")) is not None


def _wants(reports: list[Answer]) -> list[tuple[float, int]]:
    return [(each["at"], each["offset"]) for each in reports if each["phase"] == "want"]


def test_a_want_is_repeated_as_the_page_works_it_out() -> None:
    bench = Bench()
    offer, chunk, *_ = push_of(7)
    assert len(bench.hear(*offer)) == 1
    assert bench.pass_time(0.5) == []
    assert bench.hear(*offer) == []
    assert bench.pass_time(0.5) == []
    assert len(bench.hear(*chunk)) == 1
    assert bench.hear(*chunk) == []  # it is not wanted any more
    assert _wants(bench.pass_time(89)) == [(2.0 * number, 16) for number in range(1, 31)]
    assert len(bench.hear(*offer)) == 1
    assert len(bench.pass_time(89)) == 30


def test_a_trial_ends_as_the_page_works_it_out() -> None:
    bench = Bench()
    bench.to_trial()
    assert bench.pass_time(5) == []
    assert bench.hear("activate", b'{"push":7}') == [("push", b'{"push": 7, "phase": "trial"}')]
    failed = {"push": 7, "phase": "failed", "reason": "trial not confirmed", "at": 25.0}
    assert bench.pass_time(60) == [failed]


def test_an_end_that_nobody_heard_is_said_after_the_birth_once() -> None:
    bench = Bench()
    bench.to_trial()
    bench.agent.lost()
    assert bench.pass_time(31) == []
    for expected in (["status", "push"], ["status"]):
        bench.said.clear()
        bench.agent.connected(bench.now)
        assert [leaf for leaf, _ in bench.said] == expected
        bench.agent.lost()


def test_a_trial_begins_anew_three_times() -> None:
    flash = Flash()
    before = Bench(flash)
    before.to_trial()
    before.pass_time(20)
    for _ in range(3):
        again = Bench(flash)
        assert again.reports() == [{"push": 7, "phase": "trial"}]
        assert again.pass_time(29.75) == []
    reason = "trial: the device restarted 4 times"
    assert Bench(flash).reports() == [{"push": 7, "phase": "failed", "reason": reason}]


def test_a_newer_version_takes_over_and_an_older_one_does_not() -> None:
    bench, newer = Bench(), ARTIFACT[::-1]
    for push, version, artifact in ((7, 1, ARTIFACT), (8, 3, newer)):
        told = [bench.hear(*each) for each in push_of(push, version=version, artifact=artifact)]
        assert json.loads(told[-1][0][1]) == {"push": push, "phase": "accepted"}
    assert [each.state for each in bench.agent.flash.slots] == ["empty", "active"]
    ((_, answer),) = bench.hear(*push_of(9, version=2)[0])
    assert json.loads(answer) == {"push": 9, "phase": "rejected", "reason": "version 2 is not newer"}
    ((_, answer),) = bench.hear(*push_of(10, version=4, artifact=newer)[0])
    assert json.loads(answer) == {"push": 10, "phase": "accepted"}
    ((_, answer),) = bench.hear("run", struct.pack("<IBBBBI", 1, 1, 0, 0, 0, 4) + bytes(4))
    assert answer[4] == 0


def test_another_push_number_of_the_same_content_goes_on_and_of_another_supersedes() -> None:
    bench = Bench()
    for message in push_of(7)[:2]:
        bench.hear(*message)
    ((_, answer),) = bench.hear(*push_of(8)[0])
    assert json.loads(answer) == {"push": 8, "phase": "want", "offset": 16, "length": 16}
    ended, wanted = (json.loads(each) for _, each in bench.hear(*push_of(9, version=2)[0]))
    assert ended == {"push": 8, "phase": "failed", "reason": "superseded by push 9"}
    assert wanted == {"push": 9, "phase": "want", "offset": 0, "length": 16}


def test_a_flipped_bit_in_an_offer_rejects_it() -> None:
    (leaf, offer), *_ = push_of(7)
    bench = Bench()
    for at in range(4, len(offer)):
        changed = offer[:at] + bytes([offer[at] ^ 1 << at % 8]) + offer[at + 1 :]
        ((_, answer),) = bench.hear(leaf, changed)
        assert json.loads(answer)["phase"] == "rejected"
        assert bench.agent.flash.push is None


def test_the_page_shows_how_self_tests_are_made() -> None:
    module = (REPOSITORY / "docs" / "inference-module.md").read_text()
    tensor = Tensor("b", elements=8, scale=1.0, zero=0, is_bool=False)
    assert f"Seed 1 gives `{made(tensor, 1).hex()}`." in module
    for code, dtype in {"b": DType.INT8, "h": DType.INT16, "f": DType.FP32, "i": DType.INT32, "q": DType.INT64}.items():
        tensor = Tensor(code, elements=50, scale=1.0, zero=0, is_bool=False)
        assert made(tensor, 77) == self_test_input(77, tensor.size, dtype)


def _held(device: Client) -> set[str]:
    return {each.manifest.model for each in device.agent.flash.slots if each.manifest and each.state == "active"}


def test_a_model_gives_way_to_another_one_and_is_dropped_when_told_to(
    gateway: Gateway, broker: Broker, keys: Keys
) -> None:
    file = base64.b64encode(MODEL).decode()
    body = {"model": "voices", "files": [file], "labels": LABELS, "preprocessing": "lpc12@1"}
    assert gateway.post("/api/models/add", json.dumps(body).encode())[0] == 200
    with client(broker.port) as (mqtt, events), _started(_device(Flash(), port=broker.port, keys=keys)) as device:
        events.until("event/device", _is_online)
        assert _end_of(_pushed(mqtt), events)["state"] == "accepted"
        order = {"device": "second", "model": "voices", "instead_of": "speaker"}
        assert "--instead-of" in _refusal(gateway, "push", {"device": "second", "model": "voices"})
        push = mqtt.command("push", order)
        assert (push["instead_of"], _end_of(push["push"], events)["state"]) == ("speaker@1", "accepted")
        assert _held(device) == {"voices"}
        _is_judged_on_the_same_sample(gateway, mqtt)
        drop = {"device": "second", "model": "voices"}
        assert "--last" in _refusal(gateway, "devices/drop", drop)
        dropped = mqtt.command("devices.drop", drop | {"last": True, "why": "to see"})
        assert (dropped["state"], _held(device)) == ("dropped", set())
        told = events.until("event/drop", lambda event: event["device"] == "second")
        assert (told["model"], told["state"]) == ("voices", "dropped")
        (row,) = mqtt.command("devices.drops", {"device": "second"})["drops"]
        assert (row["drop"], row["why"]) == (dropped["drop"], "to see")
        wishes = mqtt.command("devices.list", {})["devices"][0]["wishes"]
        assert wishes == []


def _is_judged_on_the_same_sample(gateway: Gateway, mqtt: GatewayClient) -> None:
    mqtt.command("opinions.set", {"model": "voices", "bigger": "speaker"})
    asked = BY_REFERENCE | {"id": "judged", "parameters": {"placement": "device:second"}}
    status, answer = gateway.post("/v2/models/voices/infer", json.dumps(asked).encode())
    assert (status, answer["parameters"]["ran_on"]) == (200, "node"), answer
    assert "about the same sample; speaker@1 agreed" in mqtt.command("why", {"request": "judged"})["opinion"]
    assert answer["outputs"][0]["data"] == _node_answers(gateway, answer["parameters"]["sample"])[0]["data"]


def _refusal(gateway: Gateway, verb: str, body: Answer) -> str:
    status, answer = gateway.post(f"/api/{verb}", json.dumps(body).encode())
    assert status == 409, answer
    return str(answer)
