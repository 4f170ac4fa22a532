"""A key that the gateway issued, and a device that attaches with it."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from tests.broker import Broker
from tests.gateway import Gateway

pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")

from tests.lwm2m_dtls import secured_device


async def test_a_key_from_the_gateway(tmp_path: Path, broker: Broker) -> None:
    extra = "devices: {join: open}\nlwm2m: {dtls: true, dtls_port: 0}"
    gateway = await asyncio.to_thread(lambda: Gateway(tmp_path, broker_port=broker.port, extra=extra))
    try:
        body = json.dumps({"device": "door-1", "kind": "psk"}).encode()
        status, made = await asyncio.to_thread(gateway.post, "/api/devices/credentials/new", body)
        assert status == 200, made
        (port,) = re.findall(r"coaps_port=([0-9]+)", "\n".join(gateway.lines))
        key = bytes.fromhex(re.findall(r"[0-9a-f]{32}", json.dumps(made))[0])
        async with secured_device(("127.0.0.1", int(port)), identity="door-1", key=key) as device:
            await device.handshake()
            assert (await device.register("door-2")).code == codes.FORBIDDEN
            assert (await device.register("door-1")).code == codes.CREATED
    finally:
        await asyncio.to_thread(gateway.end)
