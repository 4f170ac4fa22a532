"""The demonstration is what a newcomer sees first: it must end with 0 and show what it promises."""

import importlib.util
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from paho.mqtt import publish, subscribe

from gatewayd.demo.processes import Ports, Stage, choose_ports
from tests.broker import Broker
from tests.gateway import REPOSITORY

LONGEST_S = 120


@pytest.mark.skipif(
    importlib.util.find_spec("iotcore") is None, reason="iotcore, the embedded broker, is not installed"
)
def test_the_demonstration_shows_the_main_job() -> None:
    command = [sys.executable, "-m", "gatewayd", "demo"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, cwd=REPOSITORY, check=False)
    assert shown.returncode == 0, shown.stdout[-3000:] + shown.stderr
    text = shown.stdout
    for board in ("hall-1", "door-2"):
        assert re.search(rf"{board} +\S+ +device:{board} .* ms \([0-9.]+\) .* µJ \([0-9]+\)", text)
        assert f"speaker@2 -> {board}: accepted" in text
    for board, how in (("hall-1", "MQTT over wifi"), ("door-2", "LwM2M over ble"), ("attic-3", "LwM2M over 802.15.4")):
        assert re.search(rf"{board}: [a-z0-9-]+, {re.escape(how)}, arena", text)
    assert re.search(r"speaker@1 does not fit on attic-3: .*arena", text)
    assert len(re.findall(r"(\d+\.\d+%) right, the card says \1", text)) == 2
    assert "the node serves instead of device:hall-1: offline" in text
    assert re.search(r"metrics while this runs: http://127\.0\.0\.1:\d+/metrics", text)
    pushes = re.findall(r"(speaker@\d -> \S+): transferring", text)
    assert len(pushes) == len(set(pushes)) == 4, "elsewhere than on a terminal each state is told once"


@pytest.mark.skipif(
    importlib.util.find_spec("iotcore") is None, reason="iotcore, the embedded broker, is not installed"
)
def test_a_termination_in_mid_story_leaves_nothing_behind() -> None:
    command = [sys.executable, "-m", "gatewayd", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as demo:
        assert demo.stdout is not None
        seen: list[str] = []
        for line in demo.stdout:
            seen.append(line)
            if "tflite-int8" in line:
                break
        else:
            raise AssertionError("".join(seen))
        children = [
            os.pidfd_open(int(pid)) for pid in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        ]
        demo.send_signal(signal.SIGTERM)
        told = demo.stdout.read()
    assert children, seen
    assert demo.returncode == 130
    assert "Stopped before the end" in told
    for child in children:
        readable, _, _ = select.select([child], [], [], LONGEST_S)
        os.close(child)
        assert readable


def test_without_the_model_it_says_where_to_look(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gatewayd", "demo", "--models", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, cwd=REPOSITORY, check=False)
    assert shown.returncode == 1
    assert "--models" in shown.stdout


@pytest.mark.parametrize(
    ("broker", "problem"),
    [
        ("nonsense", "--broker nonsense: must be HOST:PORT"),
        ("127.0.0.1:99999", "--broker 127.0.0.1:99999: must be HOST:PORT"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1 (Connection refused)"),
    ],
)
def test_a_broker_that_cannot_be_used_is_one_clear_line(broker: str, problem: str) -> None:
    command = [sys.executable, "-m", "gatewayd", "demo", "--broker", broker]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, cwd=REPOSITORY, check=False)
    assert shown.returncode == 2
    assert problem in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_two_on_one_broker_have_names_of_their_own(tmp_path: Path) -> None:
    ports = Ports("127.0.0.1", 1, 1, 1, 1, embedded=False)
    assert len({Stage(tmp_path, ports).node for _ in range(8)}) > 1


def test_nothing_stays_retained_at_a_broker_of_yours(broker: Broker, tmp_path: Path) -> None:
    with Stage(tmp_path, choose_ports(f"{broker.host}:{broker.port}")) as stage:
        status = f"gatewayd/{stage.node}/status"
        for topic in (status, "yours"):
            publish.single(topic, b"x", qos=1, retain=True, hostname=broker.host, port=broker.port)
    first = subscribe.simple([status, "yours"], hostname=broker.host, port=broker.port)  # type: ignore[no-untyped-call]  # paho left it so
    assert not isinstance(first, list)
    assert first.topic == "yours"
