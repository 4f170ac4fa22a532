"""Which instance a push goes to over real CoAP: never one that somebody else may need, and only of objects that carry models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.core.device import Lwm2mTraits, PushPhase
from gatewayd.core.registration import NOT_WHOLE
from gatewayd.links.lwm2m.link import LinkOptions
from tests.lwm2m_client import ScriptedDevice, scripted_device
from tests.lwm2m_pushing import CONTENT, DEVICE, SHORT, TRAITS, Engine, SoftwareClient, offer, profile, stranger
from tests.lwm2m_server import FakeRows, Server, running_server

A, F, W = PushPhase.ACCEPTED, PushPhase.FAILED, PushPhase.WANT
LINKS = "</1/0>,</3/0>,</5/0>,</9/0>,</9/1>,</26245/0>"


@asynccontextmanager
async def _with_firmware(traits: Lwm2mTraits, links: str) -> AsyncIterator[tuple[Server, ScriptedDevice]]:
    """A device that has /5, /9 and an object of its vendor's as well."""
    options = LinkOptions(profiles=(profile(traits),), patience=SHORT)
    async with running_server(options) as server, scripted_device(server.address) as device:
        SoftwareClient(device)
        device.tree.values |= {(5, 0, 3): 0, (5, 0, 5): 0, (26245, 0, 0): 0}
        await device.register(DEVICE, links)
        await server.born()
        yield server, device


def their_standby(client: SoftwareClient) -> None:
    """Instance 0 runs somebody's software; instance 1 holds what they would go back to."""
    client.show(0, state=4, result=2, active=True, name="their-app", version="8")
    client.show(1, state=4, result=2, name="their-app", version="7")


async def test_standby_software_of_others_is_left_alone_and_the_reason_names_the_remedy() -> None:
    async with stranger() as (server, device, client):
        their_standby(client)
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert "/9/1 holds 'their-app' '7', which gatewayd did not put there: uninstall it, or name" in engine.reason
        assert "`instances`" in engine.reason
        assert (device.executed, client.packages) == ([], {})


async def test_an_instance_that_the_profile_names_may_be_emptied() -> None:
    async with stranger(replace(TRAITS, instances=(1,))) as (server, _, client):
        their_standby(client)
        assert await Engine(server, DEVICE, offer()).push() is A
        assert (client.uninstalled, client.running()) == ([1], [0, 1])


async def test_a_profile_whose_instances_all_run_says_which() -> None:
    async with stranger(replace(TRAITS, instances=(0,))) as (server, _, client):
        their_standby(client)
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert engine.reason == "device stock-1: no instance of /9 among [0], those for models, is inactive"


async def test_what_gatewayd_wrote_before_is_replaced_and_what_somebody_wrote_over_it_is_not() -> None:
    async with stranger() as (server, device, client):
        for version in (1, 2, 3):
            client.version = str(version)
            content = bytes([version]) * 3000
            engine = Engine(server, DEVICE, offer(push=version, content=content, version=version), content)
            assert await engine.push() is A, engine.reason
        await device.until(lambda: client.running() == [0])
        assert client.uninstalled == [0]
        client.show(1, state=4, result=2, name="their-app", version="7")
        engine = Engine(server, DEVICE, offer(push=4, version=4))
        assert await engine.push() is F
        assert "'their-app' '7', which gatewayd did not put there" in engine.reason
        assert client.uninstalled == [0]


async def test_a_package_that_somebody_replaced_by_his_own_does_not_count_as_held() -> None:
    async with stranger() as (server, _, client):
        assert await Engine(server, DEVICE, offer()).push() is A
        client.show(0, state=4, result=2, name="their-app", version="7")
        client.show(1, state=4, result=2, active=True, name="their-app", version="8")
        engine = Engine(server, DEVICE, offer(push=2))
        assert await engine.push() is F
        assert "did not put there" in engine.reason
        assert (client.uninstalled, client.activated) == ([], [0])


async def test_what_a_broken_transfer_left_is_known_as_ours_after_a_restart_of_the_gateway() -> None:
    rows = FakeRows()
    async with stranger(rows=rows) as (server, device, client):
        client.show(1, state=4, result=2, active=True, name="their-app", version="8")
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: client.blocks > 3)
        assert [each.digest for each in rows.packages.values()] == [NOT_WHOLE]
        client.show(0, state=2, result=0)
        await server.until(lambda: rows.registrations)
        async with running_server(LinkOptions(profiles=(profile(TRAITS),), patience=SHORT), rows=rows) as again:
            device.gateway = again.address
            born = await again.born()
            assert born.report.slots[0].digest is None, "nothing is known of what is there"
            assert await Engine(again, DEVICE, offer(push=2)).push() is A
    assert client.packages == {0: CONTENT}


@pytest.mark.parametrize("links", [LINKS, "</1/0>,</3/0>,</5/0>,</26245/0>"])
async def test_without_a_profile_that_says_so_firmware_and_vendor_objects_are_not_touched(links: str) -> None:
    async with _with_firmware(TRAITS, links) as (server, device):
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is (A if "</9/0>" in links else F)
        touched = {each.opt.uri_path[0] for each in device.asked}
        assert touched <= {"3", "9"}
        assert not device.writes.keys() & {(5, 0, 0), (5, 0, 1)}


async def test_without_any_profile_nothing_is_written() -> None:
    async with _with_firmware(replace(TRAITS, endpoint="other-*"), LINKS) as (server, device):
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert "neither our objects nor a profile that says how it takes models" in engine.reason
        assert {each.code for each in device.asked} == {codes.GET}
        assert {each.opt.uri_path[0] for each in device.asked} == {"3"}


async def test_a_profile_may_say_that_firmware_updates_carry_models() -> None:
    async with _with_firmware(replace(TRAITS, carrier=5), LINKS) as (server, device):
        device.on_execute = lambda *_: device.tree.values.update({(5, 0, 3): 0, (5, 0, 5): 1, (5, 0, 7): "2"})
        engine = Engine(server, DEVICE, offer())
        server.link.send_offer(DEVICE, engine.offer)
        await device.until(lambda: (5, 0, 0) in device.writes)
        device.tree.values[5, 0, 3] = 2
        await server.until(lambda: engine.phases and engine.phases[-1] in {A, F})
        assert engine.phases[-1] is A, engine.reason
        assert device.executed == [((5, 0, 2), "")]
        assert {each.opt.uri_path[0] for each in device.asked} == {"3", "5"}
        assert device.writes[5, 0, 0] == CONTENT
