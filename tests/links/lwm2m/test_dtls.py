from contextlib import AsyncExitStack

import pytest
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.core.errors import DeviceTimeout, DeviceUnreachable
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.links.lwm2m.registrations import Access
from tests.lwm2m_boards import OUR_LINKS, active_slot, our_board
from tests.lwm2m_client import scripted_device
from tests.lwm2m_server import FakeRows, running_server

pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")

from tests.lwm2m_dtls import SecuredDevice, secured_device

KEYS = {"id-1": b"secret-1", "id-2": b"secret-2"}
ONE, TWO = DeviceId("dev-1"), DeviceId("dev-2")
OPTIONS = LinkOptions(access=Access({"id-1": ONE, "id-2": TWO}, plain=False))


async def registered(device: SecuredDevice) -> None:
    device.tree = our_board()
    device.tree.values |= {(26242, 1, key): value for key, value in active_slot().items()}
    await device.handshake()
    assert (await device.register(ONE, OUR_LINKS)).code == codes.CREATED


async def test_the_gateway_asks_over_the_session_that_the_device_began() -> None:
    async with running_server(OPTIONS, keys=KEYS) as server, secured_device(server.secured_address) as device:
        await registered(device)
        assert (await server.born()).device == ONE
        assert await server.link.ping(ONE, timeout_s=5) > 0


async def test_a_wrong_key() -> None:
    async with (
        running_server(OPTIONS, keys=KEYS) as server,
        secured_device(server.secured_address, key=b"guess") as device,
    ):
        with pytest.raises(ConnectionError):
            await device.handshake()


async def test_a_name_that_is_another_ones() -> None:
    async with (
        running_server(OPTIONS, keys=KEYS) as server,
        secured_device(server.secured_address) as device,
        secured_device(server.secured_address, identity="id-2", key=b"secret-2") as thief,
    ):
        await registered(device)
        await server.born()
        await thief.handshake()
        assert (await thief.register(ONE, OUR_LINKS)).code == codes.FORBIDDEN
        thief.location = device.location
        assert (await thief.update()).code == codes.FORBIDDEN
        assert (await thief.deregister()).code == codes.FORBIDDEN
        assert server.codes() == ["forbidden"] * 3
        assert (await device.update()).code == codes.CHANGED


@pytest.mark.parametrize("name", [ONE, "other-1"])
async def test_without_a_credential(name: str) -> None:
    async with running_server(OPTIONS, keys=KEYS) as server, scripted_device(server.address) as device:
        assert (await device.register(name, OUR_LINKS)).code == codes.FORBIDDEN


@pytest.mark.parametrize("moves", [False, True])
async def test_a_device_that_lost_its_session(*, moves: bool) -> None:
    async with running_server(OPTIONS, keys=KEYS) as server, secured_device(server.secured_address) as device:
        await registered(device)
        await server.born()
        device.forget()
        if moves:
            await device.move()
        await device.handshake()
        assert (await device.update()).code == codes.CHANGED
        before = len(device.asked)
        result = server.link.read_sensor(ONE, sensor=0, timeout_s=5)
        device.tree.values |= {(26241, 0, 17, 0): b"abcd"}
        assert (await result).content == b"abcd"
        assert len(device.asked) > before


async def test_a_restart_of_the_gateway() -> None:
    rows = FakeRows()
    async with (
        running_server(OPTIONS, keys=KEYS, rows=rows) as server,
        secured_device(server.secured_address) as device,
    ):
        await registered(device)
        await server.born()
        await server.until(lambda: rows.registrations)
        async with running_server(OPTIONS, keys=KEYS, rows=rows) as again:
            device.gateway = again.secured_address
            await device.handshake()
            assert (await device.update()).code == codes.CHANGED
            assert (await again.born()).device == ONE


async def test_an_orderly_end_is_told_to_every_device() -> None:
    async with secured_device(("127.0.0.1", 9)) as device:
        async with running_server(OPTIONS, keys=KEYS) as server:
            device.gateway = server.secured_address
            await registered(device)
            await server.born()
            assert not device.was_told
        await device.until(lambda: device.was_told)


async def test_a_device_whose_session_gives_way_to_another_one_is_told() -> None:
    async with (
        running_server(OPTIONS, keys=KEYS, sessions=1) as server,
        secured_device(server.secured_address) as device,
        secured_device(server.secured_address, identity="id-2", key=b"secret-2") as other,
    ):
        await registered(device)
        await other.handshake()
        await device.until(lambda: device.was_told)
        with pytest.raises(DeviceUnreachable, match="no DTLS session"):
            await server.link.read_sensor(ONE, sensor=0, timeout_s=5)
        await device.handshake()
        assert (await device.update()).code == codes.CHANGED


async def test_a_question_to_a_device_that_did_not_come_back_says_why() -> None:
    rows = FakeRows()
    async with (
        running_server(OPTIONS, keys=KEYS, rows=rows) as server,
        secured_device(server.secured_address) as device,
    ):
        await registered(device)
        await server.until(lambda: rows.registrations)
        async with running_server(OPTIONS, keys=KEYS, rows=rows) as again:
            await again.until(again.link.registered_count)
            with pytest.raises(DeviceTimeout, match="made no new handshake"):
                await again.link.ping(ONE, timeout_s=0.1)


async def test_more_sessions_than_64() -> None:
    names = [f"dev-{number}" for number in range(70)]
    access = Access({f"id-{name}": DeviceId(name) for name in names}, plain=False)
    keys = {f"id-{name}": b"key-of-" + name.encode() for name in names}
    async with running_server(LinkOptions(access=access), keys=keys) as server, AsyncExitStack() as devices:
        opened = []
        for name in names:
            identity = f"id-{name}"
            secured = secured_device(server.secured_address, identity=identity, key=keys[identity])
            opened.append(await devices.enter_async_context(secured))
            await opened[-1].handshake()
            assert (await opened[-1].register(name, "</3/0>")).code == codes.CREATED
        assert await server.link.ping(DeviceId(names[0]), timeout_s=5) >= 0
        assert (await opened[0].update()).code == codes.CHANGED
