"""Boards with stock clients on the real link: what works with each kind, and how what does not is got around."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayd.core.device import Lwm2mTraits, PushPhase, SlotState
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.objects import INTERNAL, NOT_ALLOWED, Refusal
from gatewayd.sim.registration import Terms
from gatewayd.sim.stock_device import MANNERS, StockDevice
from gatewayd.sim.stock_software import HABITS, Persona, StockSoftware
from gatewayd.wire.lwm2m.states import SoftwareState
from gatewayd.wire.manifest import sign_manifest
from tests.lwm2m_pushing import CONTENT, PATIENT, Engine, offer, profile
from tests.lwm2m_server import Server, running_server
from tests.signing import KEY, KEYS

DEVICE = DeviceId("stock-1")
DELIVERED, INSTALLED = SoftwareState.DELIVERED, SoftwareState.INSTALLED


@asynccontextmanager
async def stock(
    folder: Path, persona: Persona, *, version: str | None = None, transfers: tuple[str, ...] = ("push", "pull")
) -> AsyncIterator[tuple[Server, StockDevice]]:
    """A board with that client, born."""
    traits = Lwm2mTraits(model_number=persona.value, transfers=transfers, block_bytes=1024)
    manner = MANNERS[persona]
    terms = Terms(DEVICE, 60, version=version or manner.version, binding=manner.binding)
    async with (
        running_server(LinkOptions(profiles=(profile(traits),), patience=PATIENT)) as server,
        asyncio.TaskGroup() as tasks,
    ):
        options = Lwm2mOptions(
            "127.0.0.1", server.port, terms, "wifi", block_exponent=manner.block_exponent, persona=persona
        )
        device = StockDevice(
            options, radio=None, keys=KEYS, slot_bytes=65_536, folder=folder, log=lambda *_, **__: None
        )
        tasks.create_task(device.run(), name="board")
        await server.born()
        yield server, device
        device.stop()


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
async def test_one_like_anjays_takes_a_push_in_every_version(tmp_path: Path, version: str) -> None:
    async with stock(tmp_path, Persona.ANJAY, version=version) as (server, device):
        assert await Engine(server, DEVICE, offer()).push() is PushPhase.ACCEPTED
        held = device.software.held[0]
    assert (held.state, held.result, held.is_active, held.package) == (INSTALLED, 2, True, CONTENT)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("transfers", [("pull",), ("push", "pull")], ids=["pull", "push-first"])
async def test_zephyrs_takes_a_pull_also_after_a_push_broke(
    tmp_path: Path, version: str, transfers: tuple[str, ...]
) -> None:
    async with stock(tmp_path, Persona.ZEPHYR, version=version, transfers=transfers) as (server, device):
        assert await Engine(server, DEVICE, offer()).push() is PushPhase.ACCEPTED
        held = device.software.held[0]
    assert (held.state, held.is_active, held.package) == (INSTALLED, True, CONTENT)


async def test_what_was_installed_outlives_a_power_cut(tmp_path: Path) -> None:
    async with stock(tmp_path, Persona.ANJAY) as (server, _):
        assert await Engine(server, DEVICE, offer()).push() is PushPhase.ACCEPTED
    async with stock(tmp_path, Persona.ANJAY) as (server, device):
        assert device.software.held[0].package == CONTENT
        slots = (await server.born()).report.slots
        assert [(each.index, each.state) for each in slots] == [(1, SlotState.EMPTY)]  # 0 runs what nobody here gave it


def software(persona: Persona) -> StockSoftware:
    return StockSoftware(HABITS[persona], 65_536, KEYS, lambda: None, lambda *_: None)


async def refused(doing: object) -> int:
    with pytest.raises(Refusal) as refusal:
        await doing  # type: ignore[misc]  # a coroutine
    return refusal.value.code


async def test_how_zephyrs_state_table_differs() -> None:
    found = software(Persona.ZEPHYR)
    await found.push(0, 0, b"one block", is_last=True)
    assert found.held[0].state is SoftwareState.DOWNLOADED  # and stays so: nothing checks a package that was written
    await found.push(1, 0, b"first", is_last=False)
    assert await refused(found.push(1, 5, b"second", is_last=True)) == INTERNAL
    assert await refused(found.execute(1, 6, "")) == INTERNAL
    await found.write(1, 3, "")
    assert (found.held[1].state, found.held[1].result) == (SoftwareState.INITIAL, 56)
    await found.write(1, 3, "coap://x/y")
    await found.feed(1, 0, b"package")
    found.pulled(1)
    await found.execute(1, 4, "")
    assert found.held[1].state is DELIVERED  # it shows no other state while it installs
    found.installed()
    await found.execute(1, 10, "")
    await found.execute(1, 6, "7 whatever")
    assert (found.held[1].state, found.held[1].is_active) == (SoftwareState.INITIAL, True)


async def test_how_anjays_state_table_differs() -> None:
    found = software(Persona.ANJAY)
    assert await refused(found.write(0, 3, "")) != NOT_ALLOWED
    await found.push(0, 0, b"all of it", is_last=True)
    assert (found.held[0].state, found.held[0].result) == (DELIVERED, 0)
    assert await refused(found.push(0, 0, b"again", is_last=True)) == NOT_ALLOWED
    await found.execute(0, 4, "")
    assert await refused(found.execute(0, 4, "")) == NOT_ALLOWED
    found.installed()
    assert found.read(0)[12] is False
    assert await refused(found.execute(0, 6, "7")) == 128
    await found.execute(0, 10, "")
    await found.execute(0, 6, "")
    assert (found.held[0].state, found.held[0].is_active) == (SoftwareState.INITIAL, False)


async def test_a_manifest_before_the_package_tells_its_name_and_is_checked() -> None:
    found, signed = software(Persona.ANJAY), sign_manifest(offer().manifest, KEY)
    module = len(signed).to_bytes(2, "big") + signed + CONTENT
    await found.push(0, 0, module, is_last=True)
    assert (found.held[0].name, found.held[0].version) == ("kws", "2")
    await found.push(1, 0, module[:40] + b"\0" + module[41:], is_last=True)
    assert (found.held[1].state, found.held[1].result) == (SoftwareState.INITIAL, 53)
