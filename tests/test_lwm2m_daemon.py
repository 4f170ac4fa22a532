"""A real daemon and scripted LwM2M devices: its HTTP API shows what they said over CoAP."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from tests.broker import Broker
from tests.gateway import Gateway, gatewayd
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import PATIENCE_S, scripted_device


def coap_address(gateway: Gateway) -> tuple[str, int]:
    (port,) = re.findall(r"coap_port=([0-9]+)", "\n".join(gateway.lines))
    return "127.0.0.1", int(port)


async def device_of(gateway: Gateway) -> dict[str, Any]:
    """Wait until the gateway shows a device as online."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            _, text = await asyncio.to_thread(gateway.get, "/api/devices/list")
            found = [each for each in json.loads(text)["devices"] if each["online"]]
            if found:
                return dict(found[0])


async def test_a_device_over_a_restart_of_the_daemon(tmp_path: Path, broker: Broker) -> None:
    def start() -> Gateway:
        return Gateway(tmp_path, broker_port=broker.port, extra="devices: {join: approve}")

    gateway = await asyncio.to_thread(start)
    async with scripted_device(coap_address(gateway)) as device:
        device.tree = our_board()
        await device.register("cam-7", links=OUR_LINKS)
        shown = await device_of(gateway)
        assert (shown["device"], shown["link"]["kind"], shown["approved"]) == ("cam-7", "lwm2m", False)
        await asyncio.to_thread(gateway.end)

        gateway = await asyncio.to_thread(start)
        device.gateway = coap_address(gateway)
        assert (await device_of(gateway))["device"] == "cam-7"
        assert (await device.update()).code == codes.CHANGED
        assert await asyncio.to_thread(gateway.end) == 0


def test_a_key_for_dtls_without_its_package_does_not_keep_the_daemon_down(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "mbedtls.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(shadow))
    (tmp_path / "keys").write_text("cam-7 id-1 73656372657431\n")
    lwm2m = f"credentials_file: {tmp_path / 'keys'}, dtls_port: 0"
    gateway = Gateway(tmp_path, broker_port=broker.port, extra=f"lwm2m: {{{lwm2m}}}")
    _, made = gateway.post("/api/devices/credentials/new", b'{"device": "cam-8", "kind": "psk"}')
    assert gateway.end() == 0
    assert [note.split(":")[:3] for note in made["coap"]] == [
        ["the key", " lwm2m.dtls", " DTLS needs the package python-mbedtls"]
    ]
    assert "coaps_port" not in "\n".join(gateway.lines)
    assert any("no DTLS" in line and "level=warning" in line for line in gateway.lines)
    config = tmp_path / "gatewayd.yaml"
    config.write_text(config.read_text().replace(lwm2m, f"{lwm2m}, dtls: always"))
    ended = gatewayd("run", "--config", str(config))
    assert ended.returncode == 1
    assert "DTLS needs the package python-mbedtls" in ended.stderr
