"""What clients in the field speak, and from where, over real CoAP: one format only, asleep behind a NAT, too early."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cbor2
import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.errors import DeviceTimeout
from gatewayd.core.names import DeviceId
from gatewayd.core.registration import StoredRegistration
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import LinkOptions
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import TLV, scripted_device, tlv
from tests.lwm2m_server import FakeRows, running_server

DEVICE = DeviceId("dev-1")
LINKS = "</1/0>,</3/0>"
ABOUT = {
    TLV: tlv(3, 0, b"Acme") + tlv(3, 1, b"Model-J"),
    110: b'[{"bn":"/3/0/","n":"0","vs":"Acme"},{"n":"1","vs":"Model-J"}]',
    112: cbor2.dumps([{-2: "/3/0/", 0: "0", 3: "Acme"}, {0: "1", 3: "Model-J"}]),
    11543: b'{"bn":"/3/0/","e":[{"n":"0","sv":"Acme"},{"n":"1","sv":"Model-J"}]}',
    11544: cbor2.dumps({3: {0: {0: "Acme", 1: "Model-J"}}}),
}
Refusing = Callable[[Message], int | None]
REFUSALS: dict[str, Refusing] = {
    "4.06": lambda _: codes.NOT_ACCEPTABLE,
    "4.15": lambda _: codes.UNSUPPORTED_CONTENT_FORMAT,
    "5.00": lambda _: codes.INTERNAL_SERVER_ERROR,
    "none": lambda _: None,
}


def speaking(spoken: int, refusing: Refusing) -> Callable[[Message], Message | None]:
    """Answer reads of /3/0 in one format; who asks for another, or for none, is refused, or answered all the same."""

    def answer(message: Message) -> Message | None:
        code = None if message.opt.accept == spoken else refusing(message)
        if code is not None:
            return Message(code=code)
        return Message(code=codes.CONTENT, payload=ABOUT[spoken], content_format=spoken)

    return answer


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("spoken", ABOUT)
async def test_a_device_of_one_format_is_read_and_is_asked_in_it_from_then_on(spoken: int, refusal: str) -> None:
    query = ("lwm2m=1.2" if spoken == 11544 else "lwm2m=1.1", "lt=300")
    async with running_server() as server, scripted_device(server.address) as device:
        device.answer = speaking(spoken, REFUSALS[refusal])
        await device.register(DEVICE, LINKS, query=query)
        assert (await server.born()).report.capabilities.board == "Model-J"
        searched = len(device.asked)
        await device.register(DEVICE, LINKS, query=query)
        await server.born(2)
        assert len(device.asked) == searched + 1, "what worked is remembered"


@pytest.mark.parametrize("spoken", ABOUT)
async def test_a_device_that_says_its_format_is_asked_in_no_other(spoken: int) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        device.answer = speaking(spoken, REFUSALS["5.00"])
        root = f'</>;rt="oma.lwm2m";ct={spoken},'
        await device.register(DEVICE, root + LINKS, query=("lwm2m=1.1", "lt=300"))
        assert (await server.born()).report.capabilities.board == "Model-J"
        assert [each.opt.accept for each in device.asked] == [spoken]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_device_that_says_another_format_than_it_speaks_is_read_all_the_same(refusal: str) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        device.answer = speaking(TLV, REFUSALS[refusal])
        await device.register(DEVICE, '</>;rt="oma.lwm2m";ct=110,' + LINKS, query=("lwm2m=1.1", "lt=300"))
        assert (await server.born()).report.capabilities.board == "Model-J"
        assert device.asked[0].opt.accept == 110


@pytest.mark.parametrize(
    ("kind", "version", "content"),
    [
        (110, "1.1", b'[{"n":"/26242/1/11","v":5}]'),
        (112, "1.1", cbor2.dumps([{0: "/26242/1/11", 2: 5}])),
        (11544, "1.2", cbor2.dumps({26242: {1: {11: 5}}})),
    ],
)
async def test_a_send_in_each_format(kind: int, version: str, content: bytes) -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        device.tree = our_board()
        await device.register(DEVICE, OUR_LINKS, query=(f"lwm2m={version}", "lt=300"))
        await server.born()
        answer = await device.ask(codes.POST, ("dp",), payload=content, content_format=kind)
        assert answer.code == codes.CHANGED
        wrong = await device.ask(codes.POST, ("dp",), payload=content[1:], content_format=kind)
        assert wrong.code == codes.BAD_REQUEST


@pytest.mark.parametrize("query", [("lwm2m=1.0", "lt=300", "b=UQ"), ("lwm2m=1.1", "lt=300", "b=U", "Q")])
async def test_a_sleeper_that_wakes_behind_another_port_is_asked_there(query: tuple[str, ...]) -> None:
    options = LinkOptions(line=LineLimits(awake_s=0.3, ack_first_s=0.1))
    async with running_server(options) as server, scripted_device(server.address) as device:
        device.tree = our_board()
        await device.register(DEVICE, OUR_LINKS, query=query)
        await server.born()
        device.is_deaf = True
        with pytest.raises(DeviceTimeout, match="it sleeps, and did not wake"):
            await server.link.read_sensor(DEVICE, sensor=0, timeout_s=0.6)
        device.tree.values[26241, 0, 17, 0] = b"abcd"
        asked = asyncio.gather(server.link.read_sensor(DEVICE, sensor=0, timeout_s=8))
        await asyncio.sleep(0)
        device.is_deaf = False
        await device.move()
        assert (await device.update()).code == codes.CHANGED
        (sample,) = await asked
        assert sample.content == b"abcd"


@dataclass
class SlowRows(FakeRows):
    """A disk that takes its time."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def load_registrations(self) -> Sequence[StoredRegistration]:
        await self.ready.wait()
        return await super().load_registrations()


async def test_who_registers_or_updates_while_the_gateway_starts_is_not_sent_away() -> None:
    """A client that was refused may stay away for two minutes."""
    rows = FakeRows()
    async with running_server(rows=rows) as server, scripted_device(server.address) as device:
        device.tree = our_board()
        await device.register(DEVICE, OUR_LINKS)
        await server.until(lambda: rows.registrations)
        slow = SlowRows(registrations=rows.registrations)
        async with running_server(rows=slow) as again, scripted_device(again.address) as newcomer:
            device.gateway = again.address
            async with asyncio.TaskGroup() as tasks:
                updated = tasks.create_task(device.update(), name="update")
                came = tasks.create_task(newcomer.register("dev-2", LINKS), name="register")
                assert (await newcomer.ask(codes.GET, ("nowhere",))).code == codes.NOT_FOUND
                assert not updated.done()
                assert not came.done()
                slow.ready.set()
            assert (updated.result().code, came.result().code) == (codes.CHANGED, codes.CREATED)
            assert again.link.registered_count() == 2
