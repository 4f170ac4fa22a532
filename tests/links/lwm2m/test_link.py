import asyncio
from dataclasses import replace

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import Born, Lost, SlotState
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import DeviceRefused, DeviceTimeout, DeviceUnreachable
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.links.lwm2m.coap import Refusal
from tests.lwm2m_boards import OUR_LINKS, active_slot, our_board
from tests.lwm2m_client import Path, ScriptedDevice, scripted_device
from tests.lwm2m_server import FakeRows, Server, running_server

DEVICE = DeviceId("dev-1")


async def attached(device: ScriptedDevice, server: Server) -> Born:
    device.tree = our_board()
    device.tree.values |= {(26242, 1, key): value for key, value in active_slot().items()}
    await device.register(links=OUR_LINKS)
    return await server.born()


async def test_a_device_of_ours_is_born() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        born = await attached(device, server)
    assert (born.device, born.report.capabilities.board) == (DEVICE, "nucleo-l4r5zi")
    assert [slot.state for slot in born.report.slots] == [SlotState.EMPTY, SlotState.ACTIVE]
    assert born.report.capabilities.sensors[0].name == "mic"


def test_a_refusal_can_be_summed_up_by_whoever_tried_several_devices() -> None:
    refusal = Refusal("device dev-1 answered with 4.05", 0x85)
    assert (type(refusal)("tried dev-1, dev-2").response, refusal.response) == (0, 0x85)


def runs(device: ScriptedDevice) -> None:
    """Have the device answer a run with its input reversed."""

    def execute(path: Path, _: str) -> Message | None:
        if path[2:] == (5,):
            values, slot = device.tree.values, path[1]
            values[26242, slot, 6] = device.writes.get((26242, slot, 4), b"sensed")[::-1]
            values[26242, slot, 11] = int(values[26242, slot, 11]) + 1
            values[26242, slot, 7], values[26242, slot, 8] = 1500, 12.5
        return None

    device.on_execute = execute


@pytest.mark.parametrize("size", [3, 5000])
async def test_a_run_with_input(size: int) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        runs(device)
        content = bytes(each & 0xFF for each in range(size))
        for _ in range(2):
            result = await server.link.run_model(DEVICE, slot=1, version=1, content=content, sensor=0, timeout_s=5)
            assert (result.output, result.compute_s, result.energy_uj) == (content[::-1], 0.0015, 12.5)


async def test_runs_at_one_time_do_not_mix() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        runs(device)
        inputs = [bytes([each, 99]) for each in range(8)]
        asked = [
            server.link.run_model(DEVICE, slot=1, version=1, content=each, sensor=0, timeout_s=5) for each in inputs
        ]
        results = await asyncio.gather(*asked)
    assert [each.output for each in results] == [each[::-1] for each in inputs]


async def test_a_run_on_a_sensor() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        runs(device)
        result = await server.link.run_model(DEVICE, slot=1, version=1, content=None, sensor=2, timeout_s=5)
    assert result.output == b"sensed"[::-1]
    assert device.executed[-1] == ((26242, 1, 5), "0='2'")


async def test_a_run_that_failed() -> None:
    def execute(_: Path, __: str) -> Message | None:
        device.tree.values |= {(26242, 1, 9): 2, (26242, 1, 10): "arena too small", (26242, 1, 11): 1}
        return None

    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        device.on_execute = execute
        with pytest.raises(DeviceRefused, match="failed: arena too small"):
            await server.link.run_model(DEVICE, slot=1, version=1, content=b"1", sensor=0, timeout_s=5)


async def test_a_run_whose_execute_does_nothing() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        with pytest.raises(DeviceTimeout):
            await server.link.run_model(DEVICE, slot=1, version=1, content=b"1", sensor=0, timeout_s=0.3)


async def test_a_run_of_another_version_than_it_holds() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        runs(device)
        with pytest.raises(DeviceRefused, match="slot 1 does not run version 2"):
            await server.link.run_model(DEVICE, slot=1, version=2, content=b"1", sensor=0, timeout_s=5)
        assert device.executed == []


async def test_a_sample() -> None:
    def execute(path: Path, argument: str) -> Message | None:
        assert (path, argument) == ((26241, 0, 20), "0='0'")
        device.tree.values |= {(26241, 0, 17, 0): b"abcd", (26241, 0, 18): 7, (26241, 0, 19): 1.5}
        return None

    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        device.on_execute = execute
        sample = await server.link.read_sensor(DEVICE, sensor=0, timeout_s=5)
    assert (sample.content, sample.sample, sample.energy_uj) == (b"abcd", 7, 1.5)


DROP = Drop(DEVICE, 1, ModelName("kws"), 1, Digest("ab" * 32), is_last=False, who="ann", why="", asked_at=0.0)


async def test_a_drop_names_the_model_by_its_digest_and_the_slots_are_read_again() -> None:
    def execute(path: Path, _: str) -> Message | None:
        assert path == (26242, 1, 21)
        device.tree.values |= {(26242, 1, 0): 0}
        return None

    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        births = len(server.events)
        device.on_execute = execute
        await server.link.drop_model(DROP, timeout_s=5)
        await server.link.drop_model(replace(DROP, is_last=True), timeout_s=5)
        await server.until(lambda: len(server.events) > births)
    named = "0='" + "ab" * 32 + "'"
    assert device.executed == [((26242, 1, 21), named), ((26242, 1, 21), f"{named},1")]
    assert [each.report.slots[1].state for each in server.events if isinstance(each, Born)][-1] is SlotState.EMPTY


async def test_a_drop_that_the_device_refuses() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        device.on_execute = lambda *_: Message(code=codes.METHOD_NOT_ALLOWED, payload=b"a push needs it")
        with pytest.raises(DeviceRefused, match="a push needs it"):
            await server.link.drop_model(DROP, timeout_s=5)


async def test_a_device_that_nobody_knows() -> None:
    async with running_server() as server:
        with pytest.raises(DeviceUnreachable, match="not registered"):
            await server.link.ping(DEVICE, timeout_s=1)


async def test_a_device_that_leaves() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        assert (await device.deregister()).code == codes.DELETED
        assert server.events[-1] == Lost(DEVICE, "it said that it leaves")
        assert (await device.deregister()).code == codes.NOT_FOUND
    assert server.rows.registrations == {}


async def test_a_device_that_is_forgotten_has_to_register_anew() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await attached(device, server)
        server.link.forget(DEVICE, wholly=True)
        server.link.forget(DEVICE, wholly=True)
        assert server.events[-1] == Lost(DEVICE, "it was taken out")
        assert (await device.deregister()).code == codes.NOT_FOUND
        await server.until(lambda: server.rows.registrations == {})


async def test_a_restart_of_the_gateway() -> None:
    rows = FakeRows()
    async with running_server(rows=rows) as server, scripted_device(server.address) as device:
        await attached(device, server)
        await server.until(lambda: rows.registrations)
        async with running_server(rows=rows) as again:
            device.gateway = again.address
            await again.born()
            runs(device)
            result = await again.link.run_model(DEVICE, slot=1, version=1, content=b"ab", sensor=0, timeout_s=5)
            assert result.output == b"ba"
            assert (await device.update()).code == codes.CHANGED
