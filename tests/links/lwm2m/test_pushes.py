import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.core.device import Born, Lost, Packaging, PushPhase, Slot, SlotState
from gatewayd.core.errors import DeviceTimeout, DeviceUnreachable
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import LinkOptions
from tests.lwm2m_client import ScriptedDevice, scripted_device
from tests.lwm2m_pushing import (
    CONTENT,
    DEVICE,
    SIGNED,
    STRANGER_LINKS,
    TRAITS,
    Engine,
    SoftwareClient,
    offer,
    profile,
    stranger,
)
from tests.lwm2m_server import FakeRows, Server, running_server

W, V, T, R, A, F = (
    PushPhase.WANT, PushPhase.VERIFIED, PushPhase.TESTED, PushPhase.TRIAL, PushPhase.ACCEPTED, PushPhase.FAILED,
)  # fmt: skip
WELL = [W, PushPhase.WRITTEN, V, T, R, A]


async def test_a_stock_client_takes_a_model() -> None:
    async with stranger() as (server, _, client):
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is A
        assert engine.phases == WELL
        assert client.packages == {0: CONTENT}
        await server.until(lambda: _slots(server)[0].state is SlotState.ACTIVE)
        assert _slots(server)[0].digest == offer().manifest.digest
        assert [(each.model, each.version) for each in server.rows.packages.values()] == [("kws", 2)]


def _slots(server: Server) -> tuple[Slot, ...]:
    return [each.report.slots for each in server.events if isinstance(each, Born)][-1]


async def test_a_module_has_its_manifest_before_it() -> None:
    async with stranger(replace(TRAITS, packaging=Packaging.MODULE)) as (server, _, client):
        assert await Engine(server, DEVICE, offer()).push() is A
    assert client.packages[0] == len(SIGNED).to_bytes(2, "big") + SIGNED + CONTENT


@pytest.mark.parametrize("code", [codes.REQUEST_ENTITY_INCOMPLETE, codes.SERVICE_UNAVAILABLE])
async def test_a_block_that_broke_the_transfer_starts_it_again(code: int) -> None:
    async with stranger() as (server, _, client):
        client.fails_blocks = {5: code}
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is A
    assert client.packages[0] == CONTENT
    assert client.blocks == 6 + 20


async def test_a_client_that_only_pulls() -> None:
    async with stranger() as (server, device, client):
        client.pull_only = True
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: bool(client.uris))
        content = await _fetch(device, client.uris[0], exponent=5)
        client.delivered(0, content)
        await server.until(lambda: engine.phases and engine.phases[-1] is A)
    assert (content, engine.reason) == (CONTENT, "")


async def _fetch(device: ScriptedDevice, uri: str, *, exponent: int, first: int = 0) -> bytes:
    """Fetch block by block; from a socket of its own, as some clients do."""
    path = tuple(uri.split("/")[3:])
    async with scripted_device(device.gateway) as downloader:
        content, number, etags = bytearray(), first, set()
        while True:
            answer = await downloader.ask(codes.GET, path, block2=(number, False, exponent))
            assert answer.code == codes.CONTENT, answer.code
            content += answer.payload
            etags.add(answer.opt.etag)
            if not answer.opt.block2.more:
                assert len(etags) == 1
                return bytes(content)
            number += 1


async def test_a_fetch_goes_on_from_any_block_and_for_nobody_else() -> None:
    async with stranger(replace(TRAITS, transfers=("pull",))) as (server, device, client):
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: bool(client.uris))
        assert await _fetch(device, client.uris[0], exponent=6, first=11) == CONTENT[11 * 1024 :]
        guessed = client.uris[0] + "A"
        async with scripted_device(device.gateway) as other:
            assert (await other.ask(codes.GET, tuple(guessed.split("/")[3:]))).code == codes.NOT_FOUND
            path = tuple(client.uris[0].split("/")[3:])
            past = await other.ask(codes.GET, path, block2=(999, False, 6))
            assert past.code == codes.BAD_OPTION
            first = await other.ask(codes.GET, path, block2=(0, False, 4))
            assert (first.opt.size2, first.payload) == (len(CONTENT), CONTENT[:256])
            again = await other.ask(codes.GET, path, etags=[first.opt.etag])
            assert again.code == codes.VALID


async def test_a_failed_installation_is_reported() -> None:
    async with stranger() as (server, _, client):
        client.result = 58
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert "result 58" in engine.reason


@pytest.mark.parametrize(
    ("deviation", "reason"),
    [
        ({"stuck_at": 1}, "stuck in state 1"),
        ({"stuck_at": 2}, "stuck in state 2"),
        ({"stuck_at": 3}, "stuck in state 3"),
        ({"execute_does_nothing": True}, "stuck in state 3"),
        ({"activates": False}, "it does not run"),
    ],
)
async def test_a_client_that_is_stuck(deviation: dict[str, Any], reason: str) -> None:
    async with stranger() as (server, _, client):
        for name, value in deviation.items():
            setattr(client, name, value)
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert reason in engine.reason


@pytest.mark.parametrize("code", [codes.INTERNAL_SERVER_ERROR, codes.METHOD_NOT_ALLOWED])
async def test_a_client_that_takes_only_a_first_block_is_given_an_address(code: int) -> None:
    async with stranger() as (server, device, client):
        client.fails_blocks = {1: code}
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: bool(client.uris))
        client.delivered(0, await _fetch(device, client.uris[0], exponent=6))
        await server.until(lambda: engine.phases and engine.phases[-1] is A)


async def test_a_client_that_notifies_its_state() -> None:
    async with stranger() as (server, device, client):
        observed: list[Message] = []

        def answer(message: Message) -> Message | None:
            reply = client.answer(message)
            if message.code == codes.GET and message.opt.observe == 0 and reply is not None:
                observed.append(message)
                reply.opt.observe = 1
            return reply

        device.answer = answer
        assert await Engine(server, DEVICE, offer()).push() is A
        assert [tuple(each.opt.uri_path) for each in observed] == [("9", "0", "7")]
        # the observation was forgotten with the push: its next notification is rejected
        device.notify(observed[0], b"\xc1\x07\x04", number=9)


async def test_the_next_push_after_a_failed_installation_uninstalls_first() -> None:
    async with stranger() as (server, _, client):
        client.show(1, state=4, result=2, active=True, name="other", version="1")
        client.result = 58
        assert await Engine(server, DEVICE, offer()).push() is F
        client.result = 2
        assert await Engine(server, DEVICE, offer(push=2)).push() is A
        assert client.uninstalled == [0]
        assert client.packages == {0: CONTENT}


async def test_the_active_instance_is_never_uninstalled() -> None:
    async with stranger() as (server, _, client):
        for instance in (0, 1):
            client.show(instance, state=4, result=2, active=True, name="other", version="1")
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert "no instance of /9 is inactive" in engine.reason
        assert client.uninstalled == []


async def test_another_version_than_sent_is_not_activated() -> None:
    async with stranger() as (server, _, client):
        client.version = "1"
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert client.activated == []


async def test_a_client_that_started_in_state_1() -> None:
    async with stranger() as (server, _, client):
        client.show(0, state=1, result=0)
        client.show(1, state=1, result=0)
        assert await Engine(server, DEVICE, offer()).push() is A


async def test_what_was_given_is_known_after_a_restart() -> None:
    rows = FakeRows()
    async with stranger(rows=rows) as (server, device, _):
        assert await Engine(server, DEVICE, offer()).push() is A
        await server.until(lambda: rows.registrations and rows.packages)
        async with running_server(LinkOptions(profiles=(profile(TRAITS),)), rows=rows) as again:
            device.gateway = again.address
            born = await again.born()
            assert born.report.slots[0].digest == offer().manifest.digest
            engine = Engine(again, DEVICE, offer(push=2))
            assert await engine.push() is A
            assert engine.wants == []


@pytest.mark.parametrize("wholly", [False, True])
async def test_what_was_given_to_a_device_that_was_forgotten_is_believed_of_no_other_one(*, wholly: bool) -> None:
    async with stranger() as (server, device, _):
        assert await Engine(server, DEVICE, offer()).push() is A
        server.link.forget(DEVICE, wholly=wholly)
        before = sum(isinstance(each, Born) for each in server.events)
        await device.register(DEVICE, STRANGER_LINKS)
        again = await server.born(before + 1)
        models = {slot.model for slot in again.report.slots}
        assert (offer().manifest.model in models) is not wholly


async def test_an_address_for_a_device_that_was_not_heard_of_since_the_restart() -> None:
    rows, pull = FakeRows(), replace(TRAITS, transfers=("pull",))
    async with stranger(pull, rows=rows) as (server, device, client):
        await server.until(lambda: rows.registrations)
        async with running_server(LinkOptions(profiles=(profile(pull),)), rows=rows) as again:
            device.gateway = again.address
            await again.born()
            engine = Engine(again, DEVICE, offer())
            again.link.send_offer(DEVICE, engine.offer)
            await device.until(lambda: bool(client.uris))
            assert client.uris[0].startswith(f"coap://127.0.0.1:{again.port}/pkg/1/")
            client.delivered(0, await _fetch(device, client.uris[0], exponent=6))
            await again.until(lambda: engine.phases and engine.phases[-1] is A)


async def test_a_sleeping_device_is_pushed_to_when_it_wakes() -> None:
    options = LinkOptions(profiles=(profile(TRAITS),), line=LineLimits(awake_s=0.2, ack_first_s=0.1))
    async with running_server(options) as server, scripted_device(server.address) as device:
        client = SoftwareClient(device)
        await device.register(DEVICE, STRANGER_LINKS, query=("lwm2m=1.0", "lt=300", "b=UQ"))
        await server.born()
        device.is_deaf = True
        with pytest.raises(DeviceTimeout):
            await server.link.read_sensor(DEVICE, sensor=0, timeout_s=0.6)
        with pytest.raises(DeviceUnreachable, match="pushed to when it wakes"):
            server.link.send_offer(DEVICE, offer())
        assert isinstance(server.events[-1], Lost)
        device.is_deaf = False
        await device.update()
        await server.born(2)
        assert await Engine(server, DEVICE, offer()).push() is A
        assert client.packages == {0: CONTENT}


async def test_a_cancelled_push_sends_no_more() -> None:
    async with stranger() as (server, device, client):
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: client.blocks >= 3)
        server.link.send_cancel(DEVICE, engine.offer.push, "not wanted")
        await asyncio.sleep(0)
        await device.ask(codes.GET, ("nowhere",))
        count = client.blocks
        await device.ask(codes.GET, ("nowhere",))
        assert client.blocks <= count + 1
        assert await Engine(server, DEVICE, offer(push=2)).push() is A
