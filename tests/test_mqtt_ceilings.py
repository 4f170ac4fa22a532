"""The ceiling of what is obeyed over MQTT, and what a flood may do. What the broker lets through is in `test_joining.py`."""

import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from gatewayd.demo.client import RefusedError
from tests.broker import MOSQUITTO, Broker
from tests.gateway import BASE, PATIENCE_S, Gateway, client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Broker]]:
    """A daemon that obeys operators' verbs only."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (Debian: apt install mosquitto)")
    folder = tmp_path_factory.mktemp("ceilings")
    broker = Broker(folder)
    broker.start()
    text = (
        f"node: {{name: test, data_dir: {folder / 'data'}}}\nhttp: {{port: 0}}\ncoap: {{port: 0}}\n"
        f"mqtt: {{port: {broker.port}, commands: {{role: operator}}}}\n"
    )
    gateway = Gateway(folder, broker_port=broker.port, text=text)
    yield gateway, broker
    gateway.end()
    broker.stop()


def test_a_verb_above_the_ceiling_is_refused_whoever_sends_it(site: tuple[Gateway, Broker]) -> None:
    gateway, broker = site
    with client(broker.port) as (asking, _):
        with pytest.raises(RefusedError, match=r"mqtt\.commands\.role") as refused:
            asking.command("devices.permit-join", {"seconds": 5})
        assert refused.value.code == "forbidden"
        assert asking.command("models.list", {}) == {"models": []}
    assert gateway.post("/api/devices/permit-join", b'{"seconds": 5}')[0] == 200


@pytest.mark.usefixtures("mosquitto_clients")
def test_a_flood_of_nonsense_is_counted_and_fills_no_disk(site: tuple[Gateway, Broker]) -> None:
    gateway, broker = site
    command = ["mosquitto_pub", "-p", str(broker.port), "-t", f"{BASE}/device/cam-7/up/push", "-q", "1", "-l"]
    subprocess.run(command, input="nonsense\n" * 500, text=True, timeout=30, check=True)
    until_s = time.monotonic() + PATIENCE_S
    while not re.search('gatewayd_inputs_refused_total{.*where="mqtt-device".*} 500.0', gateway.get("/metrics")[1]):
        assert time.monotonic() < until_s
    told = [line for line in gateway.lines if "input refused" in line]
    assert 1 <= len(told) <= 100
