"""Pushes over real CoAP to firmware update clients (/5) that lie, stay in a state for ever, go back or say no."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import PushPhase
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.links.lwm2m.patience import Patience
from tests.lwm2m_client import Path, ScriptedDevice, scripted_device
from tests.lwm2m_pushing import CONTENT, DEVICE, SHORT, TRAITS, Engine, offer, profile
from tests.lwm2m_server import Server, running_server

A, F = PushPhase.ACCEPTED, PushPhase.FAILED
IDLE, DOWNLOADING, DOWNLOADED, UPDATING = range(4)
PACKAGE, UPDATE = (5, 0, 0), (5, 0, 2)
LINKS = "</1/0>,</3/0>,</5/0>"
HURRIED = replace(SHORT, activate_s=0.3)
"""For pushes that can only end in a failure."""


@dataclass
class FirmwareClient:
    """`after`: state, result and version that a whole package leads to, and `updated` those that Update does; None: nothing."""

    device: ScriptedDevice
    after: tuple[int, int] = (DOWNLOADED, 0)
    updated: tuple[int, int, str] | None = (IDLE, 1, "2")
    refusal: int | None = None
    was_obeyed: bool = True
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device.tree.values |= {(3, 0, 0): "Acme", (3, 0, 1): "Stock", (3, 0, 16): "U"}
        self.show(IDLE, 0, "1")
        self.device.answer, self.device.on_execute = self.answer, self.execute

    def show(self, state: int, result: int, version: str = "1") -> None:
        self.device.tree.values |= {(5, 0, 3): state, (5, 0, 5): result, (5, 0, 6): "kws", (5, 0, 7): version}

    def answer(self, message: Message) -> Message | None:
        reply = self.device.well_behaved(message)
        if reply is not None and reply.code == codes.CHANGED and tuple(message.opt.uri_path) == ("5", "0", "0"):
            self.show(*self.after)
        return reply

    def execute(self, path: Path, _: str) -> Message | None:
        if path == UPDATE and self.updated is not None and self.was_obeyed:
            self.show(*self.updated)
        return None if self.refusal is None else Message(code=self.refusal)


@asynccontextmanager
async def firmware(patience: Patience = SHORT) -> AsyncIterator[tuple[Server, FirmwareClient]]:
    options = LinkOptions(profiles=(profile(replace(TRAITS, carrier=5)),), patience=patience)
    async with running_server(options) as server, scripted_device(server.address) as device:
        client = FirmwareClient(device)
        await device.register(DEVICE, LINKS)
        await server.born()
        yield server, client


async def pushed(server: Server) -> tuple[PushPhase, str]:
    engine = Engine(server, DEVICE, offer())
    return await engine.push(), engine.reason


async def test_firmware_that_takes_a_model() -> None:
    async with firmware() as (server, client):
        assert await pushed(server) == (A, "")
        assert client.device.writes[PACKAGE] == CONTENT


@pytest.mark.parametrize("result", [2, 5, 6])
async def test_a_bad_package_that_was_taken_with_2_04_is_told_by_its_result(result: int) -> None:
    async with firmware() as (server, client):
        client.after = (IDLE, result)
        assert await pushed(server) == (F, f"the device reports result {result}")
        assert client.device.writes[PACKAGE] == CONTENT
        assert client.device.executed == []


async def test_updating_for_ever_is_failed() -> None:
    async with firmware(HURRIED) as (server, client):
        client.updated = (UPDATING, 0, "1")
        assert await pushed(server) == (F, "/5/0 is stuck while activating")


async def test_an_update_that_answers_2_04_and_does_nothing_is_failed() -> None:
    async with firmware(HURRIED) as (server, client):
        client.updated = None
        assert await pushed(server) == (F, "/5/0 is stuck while activating")


@pytest.mark.parametrize("state", [IDLE, DOWNLOADED])
async def test_an_update_that_fails_is_told_by_its_result(state: int) -> None:
    async with firmware() as (server, client):
        client.updated = (state, 8, "1")
        assert await pushed(server) == (F, "the device reports result 8")


async def test_idle_again_with_the_old_version_and_no_result_is_no_success() -> None:
    async with firmware(HURRIED) as (server, client):
        client.updated = (IDLE, 0, "1")
        assert await pushed(server) == (F, "/5/0 is stuck while activating")


@pytest.mark.parametrize("code", [codes.BAD_REQUEST, codes.METHOD_NOT_ALLOWED])
async def test_an_update_that_is_refused(code: int) -> None:
    async with firmware() as (server, client):
        client.refusal, client.was_obeyed = code, False
        phase, reason = await pushed(server)
        assert phase is F
        assert "it refused with 4.0" in reason
    async with firmware() as (server, client):
        client.refusal = code
        assert await pushed(server) == (A, ""), "its state says that it obeyed"


@pytest.mark.parametrize("state", [DOWNLOADING, DOWNLOADED])
async def test_a_state_from_before_is_reset_with_an_empty_address(state: int) -> None:
    async with firmware() as (server, client):
        client.show(state, 0)

        def answer(message: Message) -> Message | None:
            if message.code != codes.PUT or message.opt.uri_path[2] != "1":
                return client.answer(message)
            if message.opt.content_format != 0:
                return Message(code=codes.UNSUPPORTED_CONTENT_FORMAT)  # it reads text only, and says so
            assert not message.payload
            client.show(IDLE, 0)
            return Message(code=codes.CHANGED)

        client.device.answer = answer
        assert await pushed(server) == (A, "")


async def test_one_that_booted_in_updating_is_not_written_to() -> None:
    async with firmware() as (server, client):
        client.show(UPDATING, 0)
        assert await pushed(server) == (F, "/5/0 is not free, it stays in state 3")
        assert client.device.writes == {}
