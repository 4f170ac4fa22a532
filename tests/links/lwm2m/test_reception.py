"""How a device is connected: read with its birth, observed where it has a choice, read again when it moves."""

import time

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import Bearer, Connectivity
from gatewayd.core.names import DeviceId
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import ScriptedDevice, scripted_device
from tests.lwm2m_server import running_server

DEVICE = DeviceId("dev-1")
LINKS = OUR_LINKS + ",</4/0>"


def board(device: ScriptedDevice, *bearers: int) -> None:
    device.tree = our_board()
    device.tree.values |= {(4, 0, 0): bearers[0], (4, 0, 2): -71, (4, 0, 4, 0): "10.0.0.7"}
    device.tree.values |= {(4, 0, 1, index): each for index, each in enumerate(bearers)}
    device.observes = True


def reads_of_4(device: ScriptedDevice) -> list[tuple[str, ...]]:
    return [each.opt.uri_path for each in device.asked if each.opt.uri_path[0] == "4"]


async def test_a_device_with_one_bearer_is_read_once_and_not_observed() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board(device, 7)
        await device.register(links=LINKS)
        born = await server.born()
        assert born.report.connectivity == Connectivity(Bearer.NB_IOT, -71, None, ("10.0.0.7",))
        for _ in range(3):
            await device.update()
        await server.link.ping(DEVICE, timeout_s=5)
        assert reads_of_4(device) == [("4", "0")]


async def test_a_change_of_bearer_is_told_but_not_over_and_over() -> None:
    ahead_s = 0.0
    async with (
        running_server(clock=lambda: time.monotonic() + ahead_s) as server,
        scripted_device(server.address) as device,
    ):
        board(device, 21, 7)
        await device.register(links=LINKS)
        assert (await server.born()).report.bearer is Bearer.WLAN
        await device.until(lambda: (4, 0, 0) in device.observed)
        device.tree.values[4, 0, 0] = 7
        device.tell((4, 0, 0))
        assert (await server.born(2)).report.bearer is Bearer.NB_IOT
        device.asked.clear()
        for bearer in (21, 7, 21):
            device.tree.values[4, 0, 0] = bearer
            device.tell((4, 0, 0))
        await server.link.ping(DEVICE, timeout_s=5)
        assert reads_of_4(device) == []
        ahead_s += 61.0
        device.tell((4, 0, 0))
        assert (await server.born(3)).report.bearer is Bearer.WLAN


async def test_a_device_that_moves_is_asked_how_it_is_connected_now() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board(device, 21)
        await device.register(links=LINKS)
        await server.born()
        device.tree.values[4, 0, 0] = 7
        await device.move()
        await device.update()
        assert (await server.born(2)).report.bearer is Bearer.NB_IOT


@pytest.mark.parametrize("code", [codes.NOT_FOUND, codes.INTERNAL_SERVER_ERROR, codes.UNAUTHORIZED])
async def test_a_device_that_does_not_say_is_born_all_the_same(code: int) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board(device, 21)

        def answer(message: Message) -> Message | None:
            if message.opt.uri_path[0] == "4":
                return Message(code=code)
            return device.well_behaved(message)

        device.answer = answer
        await device.register(links=LINKS)
        assert (await server.born()).report.connectivity is None
