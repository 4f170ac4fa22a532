"""A real daemon and a scripted LwM2M device with OSCORE, over a stop, a power cut and its being revoked."""

import asyncio
import json
import re
import signal
from pathlib import Path

from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.credentials import OscoreKey
from gatewayd.core.names import DeviceId
from tests.broker import Broker
from tests.gateway import Gateway
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import scripted_device
from tests.lwm2m_oscore import oscore_device
from tests.test_lwm2m_daemon import device_of


def oscore_of(gateway: Gateway, device: str) -> OscoreKey:
    """Have credentials made, as the device's end needs them."""
    _, answer = gateway.post("/api/devices/credentials/new", json.dumps({"device": device, "kind": "oscore"}).encode())
    made = answer["oscore"]
    secret, salt, sender, recipient = (
        bytes.fromhex(made[each]) for each in ("master_secret", "master_salt", "sender_id", "recipient_id")
    )
    return OscoreKey(DeviceId(device), secret, salt, sender, recipient)


async def test_a_device_with_oscore_over_a_stop_and_a_power_cut(tmp_path: Path, broker: Broker) -> None:
    text = (
        f"node: {{name: test, data_dir: {tmp_path / 'data'}}}\nmqtt: {{port: {broker.port}}}\nhttp: {{port: 0}}\n"
        "coap: {enabled: false}\nlwm2m: {port: 0}\ndevices: {join: approve}\n"
    )

    def start() -> Gateway:
        return Gateway(tmp_path, broker_port=broker.port, text=text)

    gateway = await asyncio.to_thread(start)
    key = await asyncio.to_thread(oscore_of, gateway, "cam-7")
    async with oscore_device(lwm2m_address(gateway), key) as device, scripted_device(lwm2m_address(gateway)) as plain:
        device.tree = our_board()
        assert (await device.register("cam-7", links=OUR_LINKS)).code == codes.CREATED
        assert (await plain.register("cam-7", links=OUR_LINKS)).code == codes.FORBIDDEN
        assert (await device_of(gateway))["link"]["kind"] == "lwm2m"
        assert await asyncio.to_thread(gateway.end) == 0

        gateway = await asyncio.to_thread(start)
        device.gateway = lwm2m_address(gateway)
        assert (await device_of(gateway))["device"] == "cam-7", "it was asked where it was heard last"
        assert (await device.ask_once(codes.POST, device.location)).code == codes.CHANGED, "nothing has to be proved"
        assert await asyncio.to_thread(gateway.end, signal.SIGKILL) == -signal.SIGKILL

        gateway = await asyncio.to_thread(start)
        device.gateway = lwm2m_address(gateway)
        assert (await device_of(gateway))["device"] == "cam-7"
        assert (await device.ask_once(codes.POST, device.location)).opt.echo, "this has to"
        assert (await device.update()).code == codes.CHANGED
        status, _ = await asyncio.to_thread(gateway.post, "/api/devices/revoke", b'{"device": "cam-7"}')
        assert status == 200
        sealed, _ = device.context.protect(Message(code=codes.POST, uri_path=device.location))
        plain.gateway = device.gateway
        refused = await plain.ask(codes.POST, (), oscore=sealed.opt.oscore, payload=sealed.payload)
        assert refused.code == codes.UNAUTHORIZED
        assert await asyncio.to_thread(gateway.end) == 0


def lwm2m_address(gateway: Gateway) -> tuple[str, int]:
    (port,) = re.findall(r"lwm2m_port=([0-9]+)", "\n".join(gateway.lines))
    return "127.0.0.1", int(port)
