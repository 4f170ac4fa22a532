"""The ceiling of what is obeyed over MQTT; what the broker lets through by roles is in `test_joining.py`."""

from pathlib import Path

import pytest

from gatewayd.demo.client import RefusedError
from tests.broker import Broker
from tests.gateway import Gateway, client


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
