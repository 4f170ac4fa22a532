"""Models that devices with standard objects only let go: switched off, then uninstalled; or for another one that is accepted."""

from dataclasses import replace

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import Born, Packaging, PushPhase, Slot, SlotState
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import DeviceRefused
from gatewayd.core.module import Held
from gatewayd.core.names import Digest, ModelName
from tests.lwm2m_client import Path
from tests.lwm2m_pushing import DEVICE, TRAITS, Engine, offer, stranger
from tests.lwm2m_server import Server

SPEAKER = bytes(5_000)
_PLAIN = offer(3, SPEAKER).manifest
OTHER = replace(offer(3), manifest=replace(_PLAIN, model=ModelName("speaker"), instead_of=Held(ModelName("kws"), 2)))


def slots(server: Server) -> tuple[Slot, ...]:
    return [each.report.slots for each in server.events if isinstance(each, Born)][-1]


def order(digest: str = "") -> Drop:
    named = Digest(digest or offer().manifest.digest)
    return Drop(DEVICE, 0, ModelName("kws"), 2, named, is_last=True, who="ann", why="", asked_at=0.0)


async def pushed(server: Server) -> None:
    assert await Engine(server, DEVICE, offer()).push() is PushPhase.ACCEPTED
    await server.until(lambda: slots(server)[0].state is SlotState.ACTIVE)


async def test_it_is_switched_off_and_then_uninstalled() -> None:
    async with stranger() as (server, device, client):
        await pushed(server)
        await server.link.drop_model(order(), timeout_s=5)
        assert [path for path, _ in device.executed[-2:]] == [(9, 0, 11), (9, 0, 6)]
        assert client.running() == []
        await server.until(lambda: slots(server)[0].state is SlotState.EMPTY)
        await server.link.drop_model(order(), timeout_s=5)


async def test_what_the_gateway_did_not_write_stays() -> None:
    async with stranger() as (server, device, client):
        await pushed(server)
        executed = len(device.executed)
        with pytest.raises(DeviceRefused, match="not known to hold"):
            await server.link.drop_model(order("0" * 64), timeout_s=5)
        client.show(0, state=4, result=2, active=True, name="theirs", version="9")
        with pytest.raises(DeviceRefused, match="something else"):
            await server.link.drop_model(order(), timeout_s=5)
        assert (len(device.executed), client.running()) == (executed, [0])


async def test_a_client_that_stays_on_keeps_its_model() -> None:
    async with stranger() as (server, device, client):
        await pushed(server)
        client.execute_does_nothing = True
        with pytest.raises(DeviceRefused, match="switched on"):
            await server.link.drop_model(order(), timeout_s=5)
        assert device.executed[-1][0] == (9, 0, 11)


async def test_a_client_that_uninstalls_nothing_runs_it_no_more() -> None:
    async with stranger() as (server, device, client):
        await pushed(server)
        well = device.on_execute

        def execute(path: Path, argument: str) -> Message | None:
            if path[2] == 6:
                return Message(code=codes.METHOD_NOT_ALLOWED)
            return well(path, argument) if well is not None else None

        device.on_execute = execute
        await server.link.drop_model(order(), timeout_s=5)
        assert client.running() == []
        await server.until(lambda: slots(server)[0].state is SlotState.STAGING)


async def test_another_model_takes_its_place_when_it_is_accepted() -> None:
    async with stranger() as (server, _, client):
        await pushed(server)
        client.name = "speaker"
        assert await Engine(server, DEVICE, OTHER, SPEAKER).push() is PushPhase.ACCEPTED
        await server.until(lambda: client.running() == [1])


@pytest.mark.parametrize(("traits", "can"), [(TRAITS, True), (replace(TRAITS, packaging=Packaging.MODULE), False)])
async def test_a_reader_of_modules_is_never_told_what_gives_way(traits: object, can: bool) -> None:  # noqa: FBT001 - a parameter
    async with stranger(traits) as (server, _, _):  # type: ignore[arg-type]  # the parameters' common type
        born = await server.born()
    assert born.report.capabilities.drops_models is can
