"""A simulated board that is asked for inferences without a pause, and pushed to meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gatewayd.core.device import Born, PushPhase, SlotState
from gatewayd.core.errors import DeviceError, Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.core.push import Offer
from gatewayd.sim.lwm2m_device import Lwm2mDevice
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.registration import Terms
from gatewayd.wire.manifest import sign_manifest
from tests.agent_bench import Bench, content_of, offer_of
from tests.lwm2m_pushing import Engine
from tests.lwm2m_server import Server, running_server
from tests.signing import KEY, manifest_of
from tests.sim.lwm2m_bench import FAST, MemoryMachine

DEVICE = DeviceId("cam-7")
CLIENTS = 8


@asynccontextmanager
async def _board(server: Server) -> AsyncIterator[None]:
    bench = Bench()
    options = Lwm2mOptions("127.0.0.1", server.port, Terms(DEVICE, 60), "wifi")
    device = Lwm2mDevice(bench.agent, MemoryMachine(bench), radio=FAST, options=options, log=lambda *_, **__: None)
    async with asyncio.TaskGroup() as group:
        group.create_task(device.run(), name="device")
        await server.born()
        yield
        device.stop()


async def _pushed(server: Server, number: int, version: int) -> PushPhase:
    content = content_of("kws", version, size=200)
    message = offer_of(number, content, version=version)
    manifest = manifest_of(message)
    return await Engine(server, DEVICE, Offer(message.push, manifest, sign_manifest(manifest, KEY)), content).push()


def _holds(server: Server, version: int) -> list[int]:
    """Return the slots that the last report shows as running the version."""
    slots = [each.report.slots for each in server.events if isinstance(each, Born)][-1]
    return [each.index for each in slots if each.state is SlotState.ACTIVE and each.version == version]


async def _run(server: Server, version: int) -> None:
    (slot,) = _holds(server, version)
    await server.link.run_model(DEVICE, slot=slot, version=version, content=b"\x01", sensor=0, timeout_s=5)


async def _saturate(server: Server) -> None:
    """Ask again and again, whatever becomes of it, until the device has the new version."""
    while not _holds(server, 2):
        with suppress(DeviceError, Overloaded):
            await _run(server, 1)
        await asyncio.sleep(0)


async def test_a_push_ends_on_a_board_that_is_never_left_alone() -> None:
    async with running_server() as server, _board(server):
        assert await _pushed(server, 1, 1) is PushPhase.ACCEPTED
        await server.until(lambda: _holds(server, 1))
        async with asyncio.TaskGroup() as clients:
            for each in range(CLIENTS):
                clients.create_task(_saturate(server), name=f"client {each}")
            assert await _pushed(server, 2, 2) is PushPhase.ACCEPTED
            await server.until(lambda: _holds(server, 2))
        await _run(server, 2)
