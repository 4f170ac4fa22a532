import asyncio
import struct

import pytest
from aiocoap import Context, Message, resource  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above
from aiocoap.tokenmanager import TokenManager  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.coap_context import BoundedMessages, open_context, open_without_port
from gatewayd.core.names import DeviceId
from gatewayd.edges.coap import serve_resources
from gatewayd.links.lwm2m.coap import Ask, Method, NoAnswer, Reset, Timing
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, CoapPeer
from gatewayd.links.lwm2m.line import Line, LineLimits
from tests.lwm2m_client import ScriptedDevice, scripted_device
from tests.lwm2m_server import running_server


async def test_what_is_remembered_has_a_bound() -> None:
    async with serve_resources({}, host="127.0.0.1", port=0) as free:
        port = free
    async with open_context(resource.Site(), host="127.0.0.1", port=port, max_recent=50) as context:
        messages = context.request_interfaces[0].token_interface
        async with scripted_device(("127.0.0.1", port)) as device:
            for _ in range(120):
                assert (await device.ask(codes.GET, ("none",))).code == codes.NOT_FOUND
        assert 25 <= messages.remembered <= 50


async def test_a_repeated_message_is_answered_again_and_not_obeyed_again() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await device.register("dev-1")
        message = Message(code=codes.DELETE, uri_path=device.location)
        message.mtype, message.mid, message.token = 0, 999, struct.pack("!I", 7)
        answers = []
        for _ in range(2):
            waiting = device._waiting[message.token] = asyncio.get_running_loop().create_future()  # noqa: SLF001 - its own helper
            device.send_raw(message.encode())
            async with asyncio.timeout(5):
                answers.append((await waiting).code)
        assert answers == [codes.DELETED, codes.DELETED]


async def test_a_question_that_is_given_up_does_not_hold_back_the_next() -> None:
    endpoint = CoapEndpoint()
    async with serve_resources({}, host="127.0.0.1", port=0) as free:
        port = free
    async with open_context(resource.Site(), host="127.0.0.1", port=port) as context:
        endpoint.opened(context)
        async with scripted_device(("127.0.0.1", port)) as device:
            peer = _peer_of(endpoint, device)
            device.is_deaf = True
            with pytest.raises(NoAnswer):
                await endpoint.ask(peer, Ask(Method.GET, ("3", "0")), timeout_s=0.1, timing=Timing(5.0, 4))
            device.is_deaf = False
            answer = await endpoint.ask(peer, Ask(Method.GET, ("3", "0")), timeout_s=2, timing=Timing(5.0, 4))
            assert answer.code == codes.NOT_FOUND
            assert len(device.asked) == 1


@pytest.mark.parametrize("deaf_to", [4, 5])
async def test_a_question_is_repeated_four_times_as_the_same_message(deaf_to: int) -> None:
    endpoint = CoapEndpoint()
    async with serve_resources({}, host="127.0.0.1", port=0) as free:
        port = free
    async with open_context(resource.Site(), host="127.0.0.1", port=port) as context:
        endpoint.opened(context)
        async with scripted_device(("127.0.0.1", port)) as device:

            def answer(_: Message) -> Message | None:
                return Message(code=codes.CONTENT) if len(device.asked) > deaf_to else None

            device.answer = answer
            asking = endpoint.ask(
                _peer_of(endpoint, device), Ask(Method.GET, ("3", "0")), timeout_s=5, timing=Timing(0.01, 4)
            )
            if deaf_to < 5:
                assert (await asking).code == codes.CONTENT
            else:
                with pytest.raises(NoAnswer):
                    await asking
            assert [each.mid for each in device.asked] == [device.asked[0].mid] * 5


async def test_each_peer_has_numbers_of_its_own() -> None:
    """With one counter for all, a device would hear a number again within EXCHANGE_LIFETIME when others are asked much."""
    endpoint = CoapEndpoint()
    async with serve_resources({}, host="127.0.0.1", port=0) as free:
        port = free
    async with (
        open_context(resource.Site(), host="127.0.0.1", port=port) as context,
        scripted_device(("127.0.0.1", port)) as one,
        scripted_device(("127.0.0.1", port)) as other,
    ):
        endpoint.opened(context)
        for asked in (one, other, other, other, one):
            await endpoint.ask(_peer_of(endpoint, asked), Ask(Method.GET, ("3", "0")), timeout_s=5)
        first, second = (message.mid for message in one.asked)
        assert second == (first + 1) % 65_536


async def test_numbers_of_a_restarted_gateway_go_on_past_those_of_before() -> None:
    """50 messages a second for 100 s, then a restart: the device remembers 5,000 numbers, and the next is none of them."""
    numbers = [_first_number(wall_s) for wall_s in (1e9, 1e9 + 100)]
    used = {(numbers[0] + each) % 65_536 for each in range(5_000)}
    assert numbers[1] not in used


def _first_number(wall_s: float) -> int:
    messages = BoundedMessages(TokenManager(Context()), wall_clock=lambda: wall_s)
    return messages._next_message_id()  # noqa: SLF001 - what aiocoap calls


async def test_a_reset_is_told() -> None:
    endpoint = CoapEndpoint()
    async with serve_resources({}, host="127.0.0.1", port=0) as free:
        port = free
    async with open_context(resource.Site(), host="127.0.0.1", port=port) as context:
        endpoint.opened(context)
        async with scripted_device(("127.0.0.1", port)) as device, asyncio.TaskGroup() as tasks:
            device.answer = device.reset
            line = Line(
                DeviceId("dev-1"),
                endpoint,
                asyncio.get_running_loop().time,
                LineLimits(),
                lambda work, name: tasks.create_task(_awaited(work), name=name),
            )
            line.heard(_peer_of(endpoint, device))
            with pytest.raises(Reset):
                await line.ask(Ask(Method.GET, ("3", "0")), timeout_s=5)


async def _awaited(work: object) -> None:
    await work  # type: ignore[misc]  # a coroutine


def _peer_of(endpoint: CoapEndpoint, device: ScriptedDevice) -> CoapPeer:
    assert device._transport is not None  # noqa: SLF001 - where it listens
    host, port = device._transport.get_extra_info("sockname")  # noqa: SLF001 - as above
    peer = endpoint.peer(f"{host}|{port}")
    assert isinstance(peer, CoapPeer)
    return peer


async def test_a_context_without_a_port_ends() -> None:
    async with open_without_port(resource.Site()) as context:
        assert context.request_interfaces == []
