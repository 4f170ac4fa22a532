"""The ceiling of what is obeyed over MQTT, and what a flood may do. What the broker lets through is in `test_joining.py`."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from gatewayd.demo.client import RefusedError
from tests.broker import Broker
from tests.gateway import BASE, PATIENCE_S, Gateway, client


def test_a_verb_above_the_ceiling_is_refused_whoever_sends_it(tmp_path: Path, broker: Broker) -> None:
    text = (
        f"node: {{name: test, data_dir: {tmp_path / 'data'}}}\nhttp: {{port: 0}}\ncoap: {{port: 0}}\n"
        f"mqtt: {{port: {broker.port}, commands: {{role: operator}}}}\n"
    )
    gateway = Gateway(tmp_path, broker_port=broker.port, text=text)
    try:
        with client(broker.port) as (asking, _):
            with pytest.raises(RefusedError, match=r"mqtt\.commands\.role") as refused:
                asking.command("devices.permit-join", {"seconds": 5})
            assert refused.value.code == "forbidden"
            assert asking.command("models.list", {}) == {"models": []}
        assert gateway.post("/api/devices/permit-join", b'{"seconds": 5}')[0] == 200
    finally:
        gateway.end()


@pytest.mark.usefixtures("mosquitto_clients")
def test_a_flood_of_nonsense_is_counted_and_fills_no_disk(tmp_path: Path, broker: Broker) -> None:
    gateway = Gateway(tmp_path, broker_port=broker.port)
    try:
        command = ["mosquitto_pub", "-p", str(broker.port), "-t", f"{BASE}/device/cam-7/up/push", "-q", "1", "-l"]
        subprocess.run(command, input="nonsense\n" * 500, text=True, timeout=30, check=True)
        until_s = time.monotonic() + PATIENCE_S
        while not re.search('gatewayd_inputs_refused_total{.*where="mqtt-device".*} 500.0', gateway.get("/metrics")[1]):
            assert time.monotonic() < until_s
    finally:
        gateway.end()
    told = [line for line in gateway.lines if "input refused" in line]
    assert 1 <= len(told) <= 100
