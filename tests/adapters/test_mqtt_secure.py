"""The ways to a broker beside plain TCP: TLS with certificates, users, WebSocket. All on a real mosquitto."""

import asyncio
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.wire.mqtt import Message
from tests.broker import Broker, free_port
from tests.mqtt_client import Client, options, running

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in `key.pem` beside it."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=broker "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


@VERSIONS
async def test_over_tls_a_burst_arrives_whole(tmp_path: Path, certificate: Path, version: str) -> None:
    key = tmp_path / "key.pem"
    broker = Broker(tmp_path, lines=[f"certfile {certificate}", f"keyfile {key}"])
    broker.start()
    one = Client(replace(options(broker.port, version=version), ca_file=str(certificate)))
    box = one.inbox("t")
    async with running(one):
        for number in range(300):
            one.publish(Message("t", json.dumps(number).encode(), qos=number % 2))
        assert sorted(map(int, await box.payloads(300))) == list(range(300))
    broker.stop()


async def test_a_certificate_that_is_not_trusted_is_an_error_in_the_log(
    tmp_path: Path, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(tmp_path, lines=[f"certfile {certificate}", f"keyfile {tmp_path / 'key.pem'}"])
    broker.start()
    one = Client(replace(options(broker.port), tls=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.run(), 0.5)
    broker.stop()
    assert any("certificate verify failed" in str(vars(record).get("fields")) for record in caplog.records)


@VERSIONS
@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_over_a_websocket_everything_passes_too(
    tmp_path: Path, certificate: Path, version: str, *, tls: bool
) -> None:
    port = free_port()
    secure = [f"certfile {certificate}", f"keyfile {tmp_path / 'key.pem'}"] if tls else []
    broker = Broker(tmp_path, lines=[f"listener {port} 127.0.0.1", "protocol websockets", *secure])
    broker.start()
    over = replace(options(port, version=version), websocket_path="/mqtt", ca_file=str(certificate) if tls else None)
    one = Client(over)
    box = one.inbox("t")
    async with running(one):
        assert one.protocol == version
        for number in range(200):
            one.publish(Message("t", json.dumps(number).encode(), qos=number % 2))
        # mosquitto 2.0 holds larger ones back towards a WebSocket until something else happens on it.
        one.publish(Message("t", b"1" * 90_000, qos=1))
        one.publish(Message("big", b"1" * 900_000, qos=1))
        assert max(map(len, await box.payloads(201))) == 90_000
    broker.stop()


async def test_a_client_certificate_is_shown_where_the_broker_asks_for_one(
    tmp_path: Path, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key.pem"
    lines = [f"cafile {certificate}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true"]
    broker = Broker(tmp_path, lines=lines)
    broker.start()
    with_one = replace(options(broker.port), ca_file=str(certificate), cert_file=str(certificate), key_file=str(key))
    async with running(Client(with_one)):
        pass
    without = Client(replace(options(broker.port), ca_file=str(certificate)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(without.run(), 0.5)
    broker.stop()
    assert "not connected" in caplog.text


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """A password file of mosquitto's with the user `gw`, whose password is `gw`."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed (Debian: apt install mosquitto)")
    path = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", path, "gw", "gw"], check=True, capture_output=True)
    return path


async def test_user_and_password_open_a_broker_that_asks_for_them(tmp_path: Path, passwords: Path) -> None:
    broker = Broker(tmp_path, lines=["allow_anonymous false", f"password_file {passwords}"])
    broker.start()
    user = "gw"
    async with running(Client(replace(options(broker.port), username=user, password=user))):
        pass
    broker.stop()
