"""What devices in the field do when they register, and what the server then does."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import Lost
from gatewayd.core.errors import DeviceTimeout
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import LinkOptions
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import SENML_JSON, TLV, ScriptedDevice, scripted_device
from tests.lwm2m_server import Server, running_server

DEVICE = DeviceId("dev-1")


async def born(
    device: ScriptedDevice, server: Server, *, query: tuple[str, ...] = ("lwm2m=1.1", "lt=300", "b=U")
) -> None:
    device.tree = our_board()
    assert (await device.register(DEVICE, OUR_LINKS, query=query)).code == codes.CREATED
    await server.born()


@pytest.mark.parametrize(
    "query",
    [
        ("lwm2m=1.0", "lt=300"), ("lwm2m=1.0", "lt=300", "b=UQ"), ("lwm2m=1.1", "lt=300", "b=U", "Q"),
        ("lwm2m=1.2", "lt=300", "b=U"), ("lwm2m=1.0.2", "lt=300"), ("lt=300",), (),
    ],
)  # fmt: skip
@pytest.mark.parametrize("content_format", [40, None])
async def test_versions_bindings_and_a_missing_content_format(
    query: tuple[str, ...], content_format: int | None
) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        device.tree = our_board()
        answer = await device.register(DEVICE, OUR_LINKS, query=query, content_format=content_format)
        assert (answer.code, answer.opt.location_path[0]) == (codes.CREATED, "rd")
        await server.born()


@pytest.mark.parametrize(
    "links",
    [
        OUR_LINKS.removeprefix('</>;rt="oma.lwm2m";ct=11542,'),
        "</1/0>,</3/0>,</9>,</26241/0>;ver=1.0,</26242>",
        '</lwm2m>;rt="oma.lwm2m",</lwm2m/3/0>,</lwm2m/26241/0>,</lwm2m/26242/0>,</lwm2m/26242/1>',
    ],
)
async def test_links_with_and_without_a_root_versions_and_instances(links: str) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        tree = our_board()

        def answer(message: Message) -> Message | None:
            path = [each for each in message.opt.uri_path if each != "lwm2m"]
            assert ("lwm2m" in message.opt.uri_path) == links.startswith("</lwm2m>")
            message.opt.uri_path = path
            return device.well_behaved(message)

        device.tree, device.answer = tree, answer
        await device.register(DEVICE, links)
        assert len((await server.born()).report.slots) == 2


async def test_a_device_that_speaks_senml_json_only_and_answers_5_00_else() -> None:
    async with running_server() as server, scripted_device(server.address) as device:

        def answer(message: Message) -> Message | None:
            if message.opt.accept != SENML_JSON:
                return Message(code=codes.INTERNAL_SERVER_ERROR)
            content = b'[{"bn":"/3/0/","n":"0","vs":"Acme"},{"n":"1","vs":"Model-J"}]'
            return Message(code=codes.CONTENT, payload=content, content_format=SENML_JSON)

        device.answer = answer
        await device.register(DEVICE, "</1/0>,</3/0>", query=("lwm2m=1.0", "lt=300"))
        assert (await server.born()).report.capabilities.board == "Model-J"
        tried = [each.opt.accept for each in device.asked]
        await device.register(DEVICE, "</1/0>,</3/0>", query=("lwm2m=1.0", "lt=300"))
        await server.born(2)
    assert tried[-1] == SENML_JSON
    assert [each.opt.accept for each in device.asked[len(tried) :]] == [SENML_JSON]


async def test_a_device_that_registers_again_has_one_registration() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await born(device, server)
        before = device.location
        await device.register(DEVICE, OUR_LINKS)
        await server.born(2)
        assert (device.location, server.link.registered_count()) == (before, 1)


async def test_a_device_behind_a_nat_is_asked_where_it_spoke_last() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await born(device, server)
        await device.move()
        assert (await device.update()).code == codes.CHANGED
        device.tree.values[26241, 0, 17, 0] = b"abcd"
        assert (await server.link.read_sensor(DEVICE, sensor=0, timeout_s=5)).content == b"abcd"


async def test_a_question_under_way_follows_a_device_that_moves() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await born(device, server)
        device.tree.values[26241, 0, 17, 0] = b"abcd"
        device.is_deaf = True
        asked = asyncio.gather(server.link.read_sensor(DEVICE, sensor=0, timeout_s=8))
        await asyncio.sleep(0)
        device.is_deaf = False
        await device.move()
        await device.update()
        (sample,) = await asked
        assert sample.content == b"abcd"


async def test_an_update_of_a_registration_that_is_not_there() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        device.location = ("rd", "nowhere")
        assert (await device.update()).code == codes.NOT_FOUND
        assert (await device.ask(codes.GET, ("rd",))).code == codes.METHOD_NOT_ALLOWED


async def test_a_lifetime_that_is_over() -> None:
    now_s = 1000.0

    def clock() -> float:
        return now_s

    async with running_server(clock=clock) as server, scripted_device(server.address) as device:
        await born(device, server, query=("lwm2m=1.1", "lt=60"))
        now_s += 50
        assert (await device.update()).code == codes.CHANGED
        saves = server.rows.saves
        now_s += 61
        await device.ask(codes.GET, ("rd",))
        assert not [each for each in server.events if isinstance(each, Lost)]
        now_s += 20
        await server.until(lambda: isinstance(server.events[-1], Lost))
        assert server.events[-1] == Lost(DEVICE, "its lifetime is over")
        await server.until(lambda: True)
        assert saves <= 1  # an update that changes nothing is never a row


async def test_a_sleeping_device_is_asked_when_it_wakes() -> None:
    options = LinkOptions(line=LineLimits(awake_s=0.3, ack_first_s=0.1))
    async with running_server(options) as server, scripted_device(server.address) as device:
        await born(device, server, query=("lwm2m=1.0", "lt=300", "b=UQ"))
        device.is_deaf = True
        with pytest.raises(DeviceTimeout, match="it sleeps, and did not wake"):
            await server.link.read_sensor(DEVICE, sensor=0, timeout_s=0.7)
        device.tree.values[26241, 0, 17, 0] = b"abcd"
        asked = asyncio.gather(server.link.read_sensor(DEVICE, sensor=0, timeout_s=8))
        await asyncio.sleep(0)
        count = len(device.asked)
        device.is_deaf = False
        await device.update()
        (sample,) = await asked
        assert sample.content == b"abcd"
        assert len(device.asked) > count
        # a ping does not wake it, and a device that is asleep is not taken for gone
        device.is_deaf = True
        assert await server.link.ping(DEVICE, timeout_s=1) > 0


async def test_what_a_device_sends_on_its_own() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await born(device, server)
        content = b'[{"n":"/26242/1/11","v":5}]'
        answer = await device.ask(codes.POST, ("dp",), payload=content, content_format=SENML_JSON)
        assert answer.code == codes.CHANGED
        async with scripted_device(server.address) as stranger:
            answer = await stranger.ask(codes.POST, ("dp",), payload=content, content_format=SENML_JSON)
            assert answer.code == codes.NOT_FOUND


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda: {"uri_query": ()}, codes.BAD_REQUEST),
        (lambda: {"uri_query": ("ep=a b",)}, codes.BAD_REQUEST),
        (lambda: {"uri_query": ("ep=dev-9", "lwm2m=2.0")}, codes.PRECONDITION_FAILED),
        (lambda: {"uri_query": ("ep=dev-9", "lt=-1")}, codes.BAD_REQUEST),
        (lambda: {"uri_query": ("ep=dev-9", "ep=dev-8")}, codes.BAD_REQUEST),
        (lambda: {"uri_query": ("ep=dev-9",), "payload": b"</3/0"}, codes.BAD_REQUEST),
        (lambda: {"uri_query": ("ep=dev-9",), "payload": b"x", "content_format": TLV}, codes.BAD_REQUEST),
        (lambda: {"uri_query": ("ep=dev-9",), "payload": b"</1>," * 600, "block1": (0, True, 6)}, None),
    ],
)
async def test_registrations_that_cannot_be(change: Callable[[], dict[str, object]], code: int | None) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        options: dict[str, Any] = {"payload": b"</3/0>", "content_format": 40, **change()}
        answer = await device.ask(codes.POST, ("rd",), **options)
        assert answer.code == code if code is not None else not answer.code.is_successful()
        assert server.link.registered_count() == 0
        assert server.refused


async def test_one_device_too_many_is_told_to_come_later() -> None:
    async with running_server(LinkOptions(most=1)) as server, scripted_device(server.address) as device:
        await born(device, server)
        async with scripted_device(server.address) as other:
            answer = await other.register("dev-2")
            assert (answer.code, answer.opt.max_age) == (codes.SERVICE_UNAVAILABLE, 30)
        assert (await device.update()).code == codes.CHANGED


async def test_names_that_nobody_stands_behind_make_room() -> None:
    async with running_server(LinkOptions(most=3)) as server, scripted_device(server.address) as device:
        await born(device, server)
        async with scripted_device(server.address) as attacker:
            attacker.answer = lambda _: None
            for number in range(10):
                assert (await attacker.register(f"made-up-{number}")).code == codes.CREATED
        assert server.link.registered_count() == 3
        assert (await device.update()).code == codes.CHANGED


async def test_newcomers_are_let_in_at_a_rate() -> None:
    options = LinkOptions(newcomers_per_s=0.001, newcomers_burst=2)
    async with running_server(options) as server, scripted_device(server.address) as device:
        found = [(await device.register(f"dev-{number}")).code for number in range(3)]
        assert found == [codes.CREATED, codes.CREATED, codes.TOO_MANY_REQUESTS]
        assert (await device.register("dev-1")).code == codes.CREATED


async def test_a_large_registration_in_blocks() -> None:
    links = (OUR_LINKS + "".join(f",</{number}/0>" for number in range(3300, 3420))).encode()
    async with running_server() as server, scripted_device(server.address) as device:
        device.tree = our_board()
        for number in range(0, len(links), 512):
            more = number + 512 < len(links)
            answer = await device.ask(
                codes.POST, ("rd",), uri_query=("ep=dev-1", "lt=300", "lwm2m=1.1"), content_format=40,
                payload=links[number : number + 512], block1=(number // 512, more, 5),
            )  # fmt: skip
            assert answer.code == (codes.CONTINUE if more else codes.CREATED)
        await server.born()
