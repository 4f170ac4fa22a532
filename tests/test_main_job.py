"""The main job on real parts: a real broker, the real daemon, simulated boards that run real TensorFlow Lite Micro."""

import base64
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatewayd.demo.client import Answer, GatewayClient, RefusedError
from gatewayd.demo.story import Recordings
from tests.broker import Broker
from tests.engine_environments import require_engine
from tests.gateway import (
    SPEAKER,
    Events,
    Gateway,
    Process,
    add_speaker,
    client,
    infer_raw,
    start_board,
)

ENDS = {"accepted", "rejected", "failed", "rolled-back", "cancelled"}
BY_REFERENCE = {"device": "door-1", "input": "mic"}
ON_DEVICE = {**BY_REFERENCE, "parameters": {"placement": "device:door-1"}}


@pytest.fixture
def gateway(tmp_path: Path, broker: Broker) -> Iterator[Gateway]:
    running = Gateway(tmp_path, broker_port=broker.port)
    yield running
    running.end()


@pytest.fixture
def board(tmp_path: Path, broker: Broker) -> Iterator[Callable[[str], Process]]:
    """Start the board `door-1` on a link; again: the same board after a power cut."""
    started: list[Process] = []

    def start(link: str = "wifi") -> Process:
        started.append(start_board(tmp_path, broker_port=broker.port, link=link))
        return started[-1]

    yield start
    for process in started:
        process.end()


def _is_online(event: Answer) -> bool:
    return event["device"] == "door-1" and bool(event["online"])


def _is_under_way(event: Answer) -> bool:
    return bool(event["state"] == "transferring" and event["offset"] > 0)


def _push(mqtt: GatewayClient, model: str) -> int:
    return int(mqtt.command("push", {"device": "door-1", "model": model})["push"])


def _end(events: Events, push: int) -> str:
    return str(events.until("event/push", lambda event: event["push"] == push and event["state"] in ENDS)["state"])


def test_a_model_is_pushed_and_answers_on_the_device_as_it_does_on_the_node(
    gateway: Gateway, broker: Broker, board: Callable[[str], Process]
) -> None:
    add_speaker(gateway)
    recordings = Recordings.load(SPEAKER)
    with client(broker.port) as (mqtt, events):
        board("wifi")
        events.until("event/device", _is_online)
        assert mqtt.infer("speaker", BY_REFERENCE)["parameters"]["ran_on"] == "node"
        assert _end(events, _push(mqtt, "speaker@1")) == "accepted"
        (pushed,) = mqtt.command("pushes.history", {"device": "door-1"})["pushes"]
        assert (pushed["state"], pushed["who"], pushed["reason"]) == ("accepted", "mqtt", "")
        assert mqtt.command("keys.export", {})["text"].strip() in (gateway.folder / "data/keys/trusted.txt").read_text()
        for _ in range(20):
            answer = mqtt.infer("speaker", ON_DEVICE)["parameters"]
            assert answer["ran_on"] == "device:door-1"
            on_node = mqtt.infer_raw("speaker", recordings.real_values(answer["sample"]))["parameters"]
            assert (answer["label"], answer["score"]) == (on_node["label"], pytest.approx(on_node["score"], abs=0.05))


def test_requests_that_would_be_cheaper_on_the_device_bring_the_model_there(
    gateway: Gateway, broker: Broker, board: Callable[[str], Process]
) -> None:
    add_speaker(gateway)
    with client(broker.port) as (mqtt, events):
        board("wifi")
        events.until("event/device", _is_online)
        ran_on = [mqtt.infer("speaker", BY_REFERENCE)["parameters"]["ran_on"] for _ in range(60)]
        assert ran_on[0] == "node"
        assert ran_on[-1] == "device:door-1"
        why = mqtt.command("why", {"request": mqtt.infer("speaker", {**BY_REFERENCE, "id": "q1"})["id"]})
        assert {option["target"] for option in why["options"]} == {"node", "device:door-1"}


def test_a_daemon_killed_in_mid_push_takes_it_up_again(
    gateway: Gateway, broker: Broker, board: Callable[[str], Process], tmp_path: Path
) -> None:
    add_speaker(gateway, version=2)
    with client(broker.port) as (mqtt, events):
        board("802.15.4")
        events.until("event/device", _is_online)
        push = _push(mqtt, "speaker@1")
        events.until("event/push", _is_under_way)
        gateway.end(signal.SIGKILL)
    again = Gateway(tmp_path, broker_port=broker.port)
    try:
        with client(broker.port) as (mqtt, events):
            assert _end(events, push) == "accepted"
            assert mqtt.infer("speaker", ON_DEVICE)["parameters"]["version"] == 1
    finally:
        again.end()


def test_a_device_killed_in_mid_push_keeps_its_model_and_the_push_goes_on(
    gateway: Gateway, broker: Broker, board: Callable[[str], Process]
) -> None:
    add_speaker(gateway)
    add_speaker(gateway, version=2)
    with client(broker.port) as (mqtt, events):
        device = board("ble")
        events.until("event/device", _is_online)
        assert _end(events, _push(mqtt, "speaker@1")) == "accepted"
        push = _push(mqtt, "speaker@2")
        cut = events.until("event/push", lambda event: event["push"] == push and _is_under_way(event))
        device.end(signal.SIGKILL)
        events.until("event/device", lambda event: not event["online"])
        events.forget()
        board("ble")
        events.until("event/device", _is_online)
        # Whatever becomes of the push, the old model answers at once.
        assert mqtt.infer("speaker@1", ON_DEVICE)["parameters"]["ran_on"] == "device:door-1"
        resumed = events.until("event/push", lambda event: event["push"] == push and event["offset"] > cut["offset"])
        assert resumed["offset"] > 0
        assert _end(events, push) == "accepted"
        assert mqtt.infer("speaker@2", ON_DEVICE)["parameters"]["version"] == 2


INLINE = {"name": "lpc", "shape": [1, 29, 1, 12], "datatype": "FP32", "data": [0.0] * 348}


@pytest.mark.parametrize(
    ("topic", "payload", "code", "words"),
    [
        ("infer/speaker", b'{"inputs": [', "bad_request", "JSON"),
        ("infer/speaker", json.dumps({"inputs": [INLINE | {"shape": [1, 12]}]}).encode(), "bad_request", "inputs[0]"),
        (
            "infer/speaker",
            json.dumps({"inputs": [INLINE | {"datatype": "INT8"}]}).encode(),
            "bad_request",
            "inputs[0].data",
        ),
        (
            "infer/speaker",
            json.dumps({"inputs": [INLINE | {"name": "z"}]}).encode(),
            "bad_request",
            "'lpc' FP32 [1, 29, 1, 12]",
        ),
        ("infer/speaker", b"\x00" * 100, "bad_request", "takes 1392 bytes (FP32 of shape [1, 29, 1, 12])"),
        ("infer/nobody", json.dumps({"inputs": [INLINE]}).encode(), "unknown_model", "nobody"),
        ("infer/speaker", b"\x00" * (10 * 2**20), "too_large", "1048576"),
        ("cmd/models.addd", b"{}", "not_found", "models.add"),
        ("cmd/push", b'{"device": 7, "mdoel": "speaker"}', "bad_request", "mdoel"),
        ("cmd/models.add", b'{"model": "cut", "files": ["VEZMMw=="]}', "model_refused", "files[0]"),
    ],
)
def test_bad_input_gets_one_clear_answer_and_the_daemon_goes_on(
    gateway: Gateway,
    broker: Broker,
    topic: str,
    payload: bytes,
    code: str,
    words: str,
) -> None:
    add_speaker(gateway)
    with client(broker.port) as (mqtt, _), pytest.raises(RefusedError) as refused:
        mqtt.ask(topic, payload, None)
    assert (refused.value.code, words in str(refused.value)) == (code, True), str(refused.value)
    assert infer_raw(gateway)[0] == 200


@pytest.mark.usefixtures("gateway")
def test_a_truncated_model_is_refused_and_nothing_is_kept(broker: Broker) -> None:
    whole = (SPEAKER / "v1" / "speaker-int8.tflite").read_bytes()
    with client(broker.port) as (mqtt, _):
        arguments: Answer = {"model": "speaker", "files": [base64.b64encode(whole[: len(whole) // 2]).decode()]}
        with pytest.raises(RefusedError, match=r"files\[0\]"):
            mqtt.command("models.add", arguments)
        assert mqtt.command("models.list", {})["models"] == []


def test_metrics_count_what_happened_and_promtool_is_silent(gateway: Gateway, promtool: str) -> None:
    add_speaker(gateway)
    assert infer_raw(gateway)[0] == 200
    assert infer_raw(gateway, b"short")[0] == 400
    status, text = gateway.get("/metrics")
    assert status == 200
    served = [line for line in text.splitlines() if line.startswith("gatewayd_requests_total{")]
    assert [re.findall(r'outcome="(\w+)"', line)[0] for line in served] == ["ok", "bad_request"]
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_an_engine_in_an_environment_of_its_own_serves_the_same_answers(tmp_path: Path, broker: Broker) -> None:
    python = require_engine("tflite-runtime").python
    engines = f"engines: [{{name: tflite-runtime, python: {python}}}]"
    gateway = Gateway(tmp_path, broker_port=broker.port, extra=engines)
    try:
        variants = add_speaker(gateway)["variants"]
        engines_tried = {verdict["engine"] for variant in variants for verdict in variant["verdicts"]}
        assert "tflite-runtime" in engines_tried
        assert "litert" not in engines_tried
        recordings = Recordings.load(SPEAKER)
        answers = [infer_raw(gateway, recordings.real_values(index))[1] for index in range(20)]
        labels = [answer["parameters"]["label"] for answer in answers]
        assert labels == [recordings.labels[index] for index in recordings.expected[:20]]
    finally:
        assert gateway.end() == 0
