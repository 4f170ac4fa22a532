"""Pushes over real CoAP to clients of which only the state tells the truth: an answer proves nothing, a lost one breaks all."""

from dataclasses import replace

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import PushPhase
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import LinkOptions
from tests.lwm2m_client import scripted_device
from tests.lwm2m_pushing import (
    CONTENT,
    DEVICE,
    SHORT,
    STRANGER_LINKS,
    TRAITS,
    Engine,
    SoftwareClient,
    offer,
    profile,
    stranger,
)
from tests.lwm2m_server import running_server

W, A, F = PushPhase.WANT, PushPhase.ACCEPTED, PushPhase.FAILED
PATIENT = replace(SHORT, transfer_s=20.0)


@pytest.mark.parametrize(
    ("result", "meaning"), [(53, "integrity failed"), (54, "unsupported type"), (50, "no storage")]
)
async def test_a_bad_package_that_was_taken_with_2_04_is_told_by_its_result(result: int, meaning: str) -> None:
    async with stranger() as (server, device, client):
        client.rejects = result
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert engine.reason == f"the device reports result {result} ({meaning})"
        assert (client.packages, engine.phases, device.executed) == ({0: CONTENT}, [W, F], [])


async def test_a_package_that_was_taken_with_2_04_and_is_not_there_is_stuck() -> None:
    async with stranger(patience=replace(SHORT, deliver_s=0.3)) as (server, device, client):
        client.stuck_at = 0
        client.show(0, state=0, result=0)
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert engine.phases == [W, F]
        assert device.executed == []


@pytest.mark.parametrize("observes", [True, False])
async def test_states_in_between_that_are_never_shown(observes: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with stranger() as (server, device, client):
        device.observes, client.by_itself = observes, True
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is A
        assert engine.phases == [
            W, PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED, PushPhase.TRIAL, A,
        ]  # fmt: skip
        assert (device.executed, client.running()) == ([], [0])


async def test_delivered_also_means_installing_and_is_not_installed_once_more() -> None:
    async with stranger() as (server, device, client):
        looks: list[Message] = []

        def answer(message: Message) -> Message | None:
            if message.code == codes.POST and message.opt.uri_path[2] == "4":
                looks.append(message)
                return Message(code=codes.CHANGED if len(looks) == 1 else codes.METHOD_NOT_ALLOWED)
            if looks and message.code == codes.GET and client.state(0) == 3:
                looks.append(message)
                if len(looks) == 4:
                    client.show(0, state=4, result=2, name="kws", version="2")
            return client.answer(message)

        device.answer = answer
        assert await Engine(server, DEVICE, offer()).push() is A
        assert [each.code for each in looks] == [codes.POST, *[codes.GET] * 3]
        assert client.running() == [0]


async def test_an_uninstall_that_answers_2_04_and_does_nothing_is_failed_and_nothing_is_written() -> None:
    async with stranger() as (server, device, client):
        client.show(1, state=4, result=2, active=True, name="other", version="1")
        client.result = 58
        assert await Engine(server, DEVICE, offer()).push() is F
        written, client.result, obeyed = client.blocks, 2, device.on_execute
        device.on_execute = lambda path, argument: None if path[2] == 6 else obeyed(path, argument)
        engine = Engine(server, DEVICE, offer(push=2))
        assert await engine.push() is F
        assert engine.reason == "it could not be emptied, it stays in state 3"
        assert client.blocks == written
        assert ((9, 0, 6), "") in device.executed


async def test_a_client_without_its_pull_that_breaks_at_the_second_block_has_no_way_left() -> None:
    async with stranger() as (server, device, client):

        def answer(message: Message) -> Message | None:
            block = message.opt.block1
            if message.code == codes.PUT and block is not None and block.start:
                return Message(code=codes.INTERNAL_SERVER_ERROR)
            if message.code == codes.PUT and message.opt.uri_path[2] == "3" and message.payload:
                return Message(code=codes.METHOD_NOT_ALLOWED)
            return client.answer(message)

        device.answer = answer
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert engine.reason == "the package was refused with 4.05"
        assert client.running() == []


class Duplicate:
    """Block 5 is taken and its acknowledgement lost; its repetition is taken for another block, refused, and all is forgotten.

    `returns`: its state goes back to 0 by itself; else it takes no package until an empty address was written.
    """

    def __init__(self, client: SoftwareClient, code: int, *, returns: bool) -> None:
        self.client = client
        self.code = code
        self.returns = returns
        self.blocks: list[int] = []
        self.mids: list[int] = []

    def answer(self, message: Message) -> Message | None:
        block = message.opt.block1
        if message.code != codes.PUT or block is None:
            return self.client.answer(message)
        self.blocks.append(block.block_number)
        if block.start == 0 and self.client.state(0) != 0:
            return Message(code=codes.METHOD_NOT_ALLOWED)
        if block.block_number != 5 or len(self.mids) == 2:
            return self.client.answer(message)
        self.mids.append(message.mid)
        if len(self.mids) == 1:
            self.client.answer(message)
            return None
        if self.returns:
            self.client.show(0, state=0, result=0)
        return Message(code=self.code)


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("code", [codes.REQUEST_ENTITY_INCOMPLETE, codes.SERVICE_UNAVAILABLE])
async def test_a_lost_acknowledgement_that_ends_in_a_duplicate_starts_the_transfer_from_its_beginning(
    code: int,
    returns: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    line = LineLimits(ack_first_s=0.2)
    options = LinkOptions(profiles=(profile(TRAITS),), patience=PATIENT, line=line)
    async with running_server(options) as server, scripted_device(server.address) as device:
        client = SoftwareClient(device)
        await device.register(DEVICE, STRANGER_LINKS)
        await server.born()
        duplicate = Duplicate(client, code, returns=returns)
        device.answer = duplicate.answer
        assert await Engine(server, DEVICE, offer()).push() is A
    assert duplicate.mids[0] == duplicate.mids[1], "the same message once more"
    assert duplicate.blocks == [*range(6), 5, *range(20)]
    assert client.packages == {0: CONTENT}


@pytest.mark.parametrize("links", ["</1/0>,</3/0>,</9>", "</1>;ver=1.1,</1/0>,</3>,</9>;ver=1.0"])
async def test_a_client_that_names_no_instances_is_pushed_to(links: str) -> None:
    options = LinkOptions(profiles=(profile(TRAITS),), patience=SHORT)
    async with running_server(options) as server, scripted_device(server.address) as device:
        client = SoftwareClient(device)
        await device.register(DEVICE, links)
        await server.born()
        assert await Engine(server, DEVICE, offer()).push() is A
        assert client.running() == [0]


async def test_a_client_that_breaks_every_transfer_is_given_up_after_some() -> None:
    traits, patience = replace(TRAITS, transfers=("push",)), replace(SHORT, restart_pause_s=0.01)
    async with stranger(traits, patience=patience) as (server, device, client):
        begun: list[int] = []

        def answer(message: Message) -> Message | None:
            block = message.opt.block1
            if message.code != codes.PUT or block is None or block.block_number < 2:
                begun.extend([message.mid] if block is not None and block.start == 0 else [])
                return client.answer(message)
            client.show(0, state=0, result=0)
            return Message(code=codes.SERVICE_UNAVAILABLE)

        device.answer = answer
        engine = Engine(server, DEVICE, offer())
        assert await engine.push() is F
        assert engine.reason == "the transfer broke (5.03) 4 times"
        assert len(begun) == 4
