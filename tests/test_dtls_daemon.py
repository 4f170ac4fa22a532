"""A real daemon whose only port for devices is that of DTLS."""

import asyncio
import re
from pathlib import Path

import pytest
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from tests.broker import Broker
from tests.gateway import Gateway
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.test_lwm2m_daemon import device_of

pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")

from tests.lwm2m_dtls import secured_device


async def test_devices_with_dtls_alone(tmp_path: Path, broker: Broker) -> None:
    (tmp_path / "keys").write_text("cam-7 id-1 73656372657431\n")
    text = (
        f"node: {{name: test, data_dir: {tmp_path / 'data'}}}\nmqtt: {{port: {broker.port}}}\nhttp: {{port: 0}}\n"
        f"coap: {{enabled: false}}\nlwm2m: {{credentials_file: {tmp_path / 'keys'}, dtls_port: 0}}\n"
    )
    gateway = await asyncio.to_thread(lambda: Gateway(tmp_path, broker_port=broker.port, text=text))
    try:
        ready = "\n".join(gateway.lines)
        (port,) = re.findall(r"coaps_port=([0-9]+)", ready)
        ask = ("/api/devices/credentials/new", b'{"device": "cam-8", "kind": "all"}')
        _, made = await asyncio.to_thread(gateway.post, *ask)
        told = "the OSCORE context: no port is open without DTLS: set lwm2m.port and restart the gateway"
        assert made["coap"] == [told]  # and nothing about the key
        assert "coap_port" not in ready
        assert "lwm2m_port" not in ready
        async with secured_device(("127.0.0.1", int(port)), key=b"secret1") as device:
            device.tree = our_board()
            await device.handshake()
            assert (await device.register("cam-7", links=OUR_LINKS)).code == codes.CREATED
            assert (await device_of(gateway))["device"] == "cam-7"
            assert await asyncio.to_thread(gateway.end) == 0
            await device.until(lambda: device.was_told)
    finally:
        await asyncio.to_thread(gateway.end)
