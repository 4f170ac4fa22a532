"""The main job over LwM2M: the real daemon, real boards that run real TensorFlow Lite Micro, packages pushed and pulled."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatewayd.demo.client import Answer, GatewayClient
from tests.broker import Broker
from tests.gateway import Events, Gateway, Process, add_speaker, client
from tests.lwm2m_processes import free_udp_port, start_lwm2m_board

ENDS = {"accepted", "rejected", "failed", "rolled-back", "cancelled"}
BY_REFERENCE = {"device": "door-1", "input": "mic"}
ON_DEVICE = {**BY_REFERENCE, "parameters": {"placement": "device:door-1"}}
CHUNK = 1024
_MID_PUSH = f"'phase':'want','offset':{5 * CHUNK}"

StartGateway = Callable[..., Gateway]
StartBoard = Callable[..., Process]


@pytest.fixture
def coap_port() -> int:
    return free_udp_port()


@pytest.fixture
def gateway(tmp_path: Path, broker: Broker, coap_port: int) -> Iterator[StartGateway]:
    """Start the daemon; again: the same daemon after its end."""
    started: list[Gateway] = []

    def start(more: str = "") -> Gateway:
        extra = f"devices: {{join: open}}\nlwm2m: {{port: {coap_port}}}\n{more}"
        started.append(Gateway(tmp_path, broker_port=broker.port, extra=extra))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture
def board(tmp_path: Path, coap_port: int) -> Iterator[StartBoard]:
    """Start the board `door-1`; again: the same board after a power cut."""
    started: list[Process] = []

    def start(*more: str) -> Process:
        started.append(start_lwm2m_board(tmp_path, "door-1", *more, port=coap_port))
        return started[-1]

    yield start
    for process in started:
        process.end()


def _is_online(event: Answer) -> bool:
    return event["device"] == "door-1" and bool(event["online"])


def _push(mqtt: GatewayClient, model: str) -> int:
    return int(mqtt.command("push", {"device": "door-1", "model": model})["push"])


def _end(events: Events, push: int) -> str:
    ended = events.until("event/push", lambda event: event["push"] == push and event["state"] in ENDS)
    return f"{ended['state']} {ended['reason']}".strip()


def _wanted(board: Process) -> list[int]:
    """The bytes of the package that the board wanted, one after the other."""
    return [int(found[1]) for line in board.lines if (found := re.search(r"'phase':'want','offset':(\d+)", line))]


def test_a_model_is_pushed_over_lossy_air_and_answers_on_the_device(
    gateway: StartGateway, broker: Broker, board: StartBoard
) -> None:
    running = gateway()
    add_speaker(running)
    with client(broker.port) as (mqtt, events):
        board("--loss", "0.05", "--update-every", "1")
        device = events.until("event/device", _is_online)
        assert device["what"] == "online"
        on_node = mqtt.infer("speaker", BY_REFERENCE)
        assert on_node["parameters"]["ran_on"] == "node"
        assert _end(events, _push(mqtt, "speaker@1")) == "accepted"
        on_device = mqtt.infer("speaker", ON_DEVICE)
        assert on_device["parameters"]["ran_on"] == "device:door-1"
        (listed,) = mqtt.command("devices.list", {})["devices"]
    assert (listed["device"], listed["link"]["kind"]) == ("door-1", "lwm2m")


def test_a_board_that_loses_power_in_mid_push_goes_on_within_a_chunk(
    gateway: StartGateway, broker: Broker, board: StartBoard
) -> None:
    running = gateway()
    add_speaker(running, version=2)
    with client(broker.port) as (mqtt, events):
        first = board("--link", "ble")
        events.until("event/device", _is_online)
        push = _push(mqtt, "speaker@1")
        first.until(_MID_PUSH)
        first.end(signal.SIGKILL)
        again = board("--link", "ble")
        assert _end(events, push) == "accepted"
        assert mqtt.infer("speaker", ON_DEVICE)["parameters"]["ran_on"] == "device:door-1"
    before, after = _wanted(first), _wanted(again)
    assert before[0] == 0
    assert max(before) - CHUNK <= after[0] <= max(before) + CHUNK
    assert sorted(set(after)) == list(range(after[0], after[-1] + 1, CHUNK))


def test_a_daemon_that_is_killed_while_a_package_is_pulled_goes_on_within_a_chunk(
    gateway: StartGateway, broker: Broker, board: StartBoard
) -> None:
    running = gateway()
    add_speaker(running, version=2)
    with client(broker.port) as (mqtt, events):
        attached = board("--link", "ble", "--pull-only", "--update-every", "1")
        events.until("event/device", _is_online)
        push = _push(mqtt, "speaker@1")
        attached.until(_MID_PUSH)
        running.end(signal.SIGKILL)
        gateway()
        assert _end(events, push) == "accepted"
        assert mqtt.infer("speaker", ON_DEVICE)["parameters"]["ran_on"] == "device:door-1"
    assert any("event=pulling" in line for line in attached.lines)
    wanted = _wanted(attached)
    assert wanted == sorted(wanted), "the board never went back"
    assert sorted(set(wanted)) == list(range(0, wanted[-1] + 1, CHUNK))


def test_a_board_that_dies_with_the_manifest_in_its_hands_keeps_its_model_and_is_pushed_to_again(
    gateway: StartGateway, broker: Broker, board: StartBoard
) -> None:
    """It is silent, so the push fails; when it is back it runs the old model until the next try is through."""
    running = gateway("pushes: {automatic: false, offer_s: 2, stall_s: 2, retry_s: 1}")
    add_speaker(running)
    with client(broker.port) as (mqtt, events):
        dies = board("--link", "ble")
        events.until("event/device", _is_online)
        assert _end(events, _push(mqtt, "speaker@1")) == "accepted"
        add_speaker(running, version=2)
        push = _push(mqtt, "speaker@2")
        dies.until(f"'push':{push},'phase':'want','offset':0")
        dies.end(signal.SIGKILL)
        assert _end(events, push).startswith("failed timed out")
        back = board("--link", "ble")
        back.until("event=registered")
        (listed,) = mqtt.command("devices.list", {})["devices"]
        again = events.until("event/push", lambda event: event["push"] > push and event["state"] in ENDS)
    assert next((each["state"], each["version"]) for each in listed["slots"]) == ("active", 1)
    assert (again["version"], again["state"]) == (2, "accepted")
