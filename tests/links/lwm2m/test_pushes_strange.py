"""Pushes over real CoAP to clients that go back, refuse what they did before, lose the thread or begin anew."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import PushPhase
from tests.lwm2m_client import ScriptedDevice, scripted_device
from tests.lwm2m_pushing import CONTENT, DEVICE, SHORT, TRAITS, Engine, SoftwareClient, offer, stranger

A, F = PushPhase.ACCEPTED, PushPhase.FAILED
INSTALL, ACTIVATE = 4, 10
OTHER = CONTENT[::-1]


@pytest.mark.parametrize(
    ("executed", "state"), [(INSTALL, 0), (INSTALL, 1), (INSTALL, 2), (ACTIVATE, 0), (ACTIVATE, 3)]
)
async def test_a_state_that_goes_back_ends_the_push_and_leaves_the_old_model_running(executed: int, state: int) -> None:
    async with stranger() as (server, _, client):
        client.version = "1"
        assert await Engine(server, DEVICE, offer(version=1)).push() is A
        client.version, client.falls_to = "2", {executed: state}
        engine = Engine(server, DEVICE, offer(push=2, content=OTHER), OTHER)
        assert await engine.push() is F
        assert engine.reason == f"it went back to state {state}"
        assert (client.running(), client.uninstalled) == ([0], [])


async def test_what_went_back_is_pushed_again_by_the_next_push() -> None:
    async with stranger() as (server, _, client):
        client.falls_to = {INSTALL: 1}
        assert await Engine(server, DEVICE, offer()).push() is F
        client.falls_to = {}
        assert await Engine(server, DEVICE, offer(push=2)).push() is A
        assert client.running() == [0]


@pytest.mark.parametrize("code", [codes.BAD_REQUEST, codes.METHOD_NOT_ALLOWED])
@pytest.mark.parametrize("executed", [INSTALL, ACTIVATE])
async def test_a_second_execute_that_is_refused_may_be_the_repetition_of_one_that_was_obeyed(
    executed: int, code: int
) -> None:
    """The answer to the first is lost; the client takes its repetition for another, and says no."""
    async with stranger(patience=replace(SHORT, install_s=5, activate_s=5, refusal_s=5)) as (server, device, client):
        seen: list[Message] = []

        def answer(message: Message) -> Message | None:
            if message.code != codes.POST or message.opt.uri_path[2] != str(executed):
                return client.answer(message)
            seen.append(message)
            obeyed = client.answer(message) if len(seen) == 1 else None
            return None if obeyed is not None else Message(code=code)

        device.answer = answer
        assert await Engine(server, DEVICE, offer()).push() is A
        assert [each.mid for each in seen] == [seen[0].mid] * 2
        assert client.running() == [0]


async def test_an_execute_that_is_refused_and_not_obeyed_fails_with_its_code() -> None:
    async with stranger() as (server, device, client):
        refused: list[int] = []
        device.answer = _refusing(client, INSTALL, refused)
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert engine.reason == "stuck in state 3 (it refused with 4.05)"
        assert (len(refused), client.running()) == (1, [])


def _refusing(client: SoftwareClient, resource: int, refused: list[int]) -> Callable[[Message], Message | None]:
    def answer(message: Message) -> Message | None:
        if message.code == codes.POST and message.opt.uri_path[2] == str(resource):
            refused.append(message.mid)
            return Message(code=codes.METHOD_NOT_ALLOWED)
        return client.answer(message)

    return answer


async def test_a_transfer_that_starts_over_is_asked_of_the_engine_anew() -> None:
    """Else the engine would see nothing come forward while what is held back here is sent once more, and call it dead."""
    async with stranger() as (server, _, client):
        client.fails_blocks = {18: codes.REQUEST_ENTITY_INCOMPLETE}
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is A
        assert client.packages[0] == CONTENT
    assert [offset for offset, _ in engine.wants].count(0) == 2


async def test_a_client_that_fetches_from_the_start_again_has_its_time_anew_within_the_budget() -> None:
    async with stranger(replace(TRAITS, transfers=("pull",))) as (server, device, client):
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: bool(client.uris))
        for _ in range(3):
            await _fetch(device, client.uris[0], blocks=18)
        client.delivered(0, await _fetch(device, client.uris[0], blocks=20))
        await server.until(lambda: engine.phases and engine.phases[-1] is A)
    assert client.packages[0] == CONTENT
    assert [offset for offset, _ in engine.wants].count(0) == 4


async def test_a_client_that_begins_to_fetch_for_ever_is_given_up() -> None:
    async with stranger(replace(TRAITS, transfers=("pull",))) as (server, device, client):
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: bool(client.uris))
        for _ in range(5):
            await _fetch(device, client.uris[0], blocks=2)
        await server.until(lambda: engine.phases and engine.phases[-1] is F)
    assert engine.reason == "the device began to fetch 5 times"


async def _fetch(device: ScriptedDevice, uri: str, *, blocks: int) -> bytes:
    """Fetch so many blocks of 1,024 bytes from the start."""
    path = tuple(uri.split("/")[3:])
    async with scripted_device(device.gateway) as downloader:
        answers = [await downloader.ask(codes.GET, path, block2=(number, False, 6)) for number in range(blocks)]
    return b"".join(each.payload for each in answers)
