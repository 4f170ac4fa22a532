"""Device management on a real socket: discover, create, delete; and answers of devices that lie or make no sense."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import cbor2
import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.coap_context import open_context
from gatewayd.core.errors import DeviceRefused
from gatewayd.core.names import DeviceId
from gatewayd.edges.coap import serve_resources
from gatewayd.links.lwm2m.coap import Refusal
from gatewayd.links.lwm2m.endpoint import CoapEndpoint
from gatewayd.links.lwm2m.line import Line, LineLimits
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.wire.lwm2m.linkformat import Link
from gatewayd.wire.lwm2m.negotiation import negotiation_of
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.registration import parse_registration
from gatewayd.wire.lwm2m.values import Record
from tests.lwm2m_client import TLV, ScriptedDevice, blockwise, scripted_device, tlv

SENSOR = Path(3303, 0)
Answering = Callable[[Message], Message | None]


async def _as_it_is(work: Coroutine[object, object, None]) -> None:
    await work


@asynccontextmanager
async def operations(
    *, version: str = "1.0", root: tuple[str, ...] = (), ct: int = 11542
) -> AsyncIterator[tuple[Operations, ScriptedDevice]]:
    """What is asked of a scripted device, without a link around it."""
    endpoint = CoapEndpoint()

    @asynccontextmanager
    async def opener(site: object, host: str, port: int) -> AsyncIterator[object]:
        async with open_context(site, host=host, port=port) as context:
            endpoint.opened(context)
            yield context

    async with (
        serve_resources({}, host="127.0.0.1", port=0, opener=opener) as port,
        scripted_device(("127.0.0.1", port)) as device,
        asyncio.TaskGroup() as tasks,
    ):
        line = Line(
            DeviceId("dev-1"),
            endpoint,
            asyncio.get_running_loop().time,
            LineLimits(),
            lambda work, name: tasks.create_task(_as_it_is(work), name=name),
        )
        peer = endpoint.peer(device.address)
        assert peer is not None
        line.heard(peer)
        registration = parse_registration(
            ["ep=dev-1", f"lwm2m={version}"], f'</>;rt="oma.lwm2m";ct={ct},</3303/0>'.encode()
        )
        yield Operations(line, STANDARD, negotiation_of(registration), root), device


def answers(*replies: Message) -> Answering:
    """One reply after the other, the last one for ever."""
    left = list(replies)

    def answer(_: Message) -> Message:
        reply = left.pop(0) if len(left) > 1 else left[0]
        return Message(code=reply.code, payload=reply.payload, content_format=reply.opt.content_format)

    return answer


async def test_discover_asks_for_links_below_the_root_path() -> None:
    async with operations(root=("lwm2m",)) as (asked, device):
        links = b"</lwm2m/3303/0>;dim=2,</lwm2m/3303/0/5700>;pmin=10;obs,</lwm2m/3303/0/5701>"
        device.answer = answers(Message(code=codes.CONTENT, payload=links, content_format=40))
        found = await asked.discover(SENSOR, timeout_s=5)
    (question,) = device.asked
    assert (question.code, question.opt.uri_path, question.opt.accept) == (codes.GET, ("lwm2m", "3303", "0"), 40)
    assert [each.target for each in found] == ["/lwm2m/3303/0", "/lwm2m/3303/0/5700", "/lwm2m/3303/0/5701"]
    assert isinstance(found[1], Link)
    assert dict(found[1].attributes) == {"pmin": "10", "obs": None}


@pytest.mark.parametrize("payload", [b"<", b"</3303>;" * 600, b"\xff", b'</a>;b="' + b"x" * 4000])
async def test_a_discover_answered_with_nonsense(payload: bytes) -> None:
    async with operations() as (asked, device):
        device.answer = answers(Message(code=codes.CONTENT, payload=payload[:1024], content_format=40))
        with pytest.raises(DeviceRefused, match="answered a discover of /3303/0 with"):
            await asked.discover(SENSOR, timeout_s=5)


async def test_create_posts_the_instance_to_its_object() -> None:
    async with operations() as (asked, device):
        device.answer = answers(Message(code=codes.CREATED))
        await asked.create(Path(3303, 7), [Record(Path(3303, 7) / 5750, "oven")], timeout_s=5)
    (question,) = device.asked
    assert (question.code, question.opt.uri_path) == (codes.POST, ("3303",))
    assert (question.opt.content_format, question.payload) == (TLV, tlv(0, 7, tlv(3, 5750, b"oven")))


async def test_create_tries_the_next_format_and_remembers_it() -> None:
    async with operations(version="1.1") as (asked, device):
        device.answer = answers(Message(code=codes.UNSUPPORTED_CONTENT_FORMAT), Message(code=codes.CREATED))
        for instance in (1, 2):
            await asked.create(Path(3303, instance), [Record(Path(3303, instance) / 5750, "oven")], timeout_s=5)
    formats = [each.opt.content_format for each in device.asked]
    assert len(formats) == 3
    assert formats[0] != formats[1] == formats[2]


@pytest.mark.parametrize("code", [codes.METHOD_NOT_ALLOWED, codes.BAD_REQUEST, codes.NOT_FOUND, codes.UNAUTHORIZED])
async def test_a_create_and_a_delete_that_are_refused(code: int) -> None:
    async with operations() as (asked, device):
        device.answer = answers(Message(code=code, payload=b"no more room"))
        with pytest.raises(Refusal, match=r"answered a create of /3303/7 with 4\...: 'no more room'"):
            await asked.create(Path(3303, 7), [Record(Path(3303, 7) / 5750, "oven")], timeout_s=5)
        with pytest.raises(Refusal, match=r"answered a delete of /3303/7 with 4\.") as refused:
            await asked.delete(Path(3303, 7), timeout_s=5)
        assert refused.value.response == code
        assert len(device.asked) == 2


async def test_delete() -> None:
    async with operations() as (asked, device):
        device.answer = answers(Message(code=codes.DELETED))
        await asked.delete(Path(3303, 7), timeout_s=5)
    assert (device.asked[0].code, device.asked[0].opt.uri_path) == (codes.DELETE, ("3303", "7"))


@pytest.mark.parametrize("refusal", [codes.NOT_ACCEPTABLE, codes.INTERNAL_SERVER_ERROR])
async def test_a_device_that_speaks_text_only_is_read_and_written_value_by_value(refusal: int) -> None:
    async with operations(version="1.1", ct=9999) as (asked, device):

        def answer(message: Message) -> Message:
            if message.code == codes.PUT:
                is_text = message.opt.content_format == 0
                return Message(code=codes.CHANGED if is_text else codes.UNSUPPORTED_CONTENT_FORMAT)
            if message.opt.accept != 0:
                return Message(code=refusal)
            return Message(code=codes.CONTENT, payload=b"21.5", content_format=0)

        device.answer = answer
        for _ in range(2):
            (record,) = await asked.read(SENSOR / 5700, timeout_s=5)
            assert record.value == 21.5
            await asked.write_value(SENSOR / 5750, "oven", timeout_s=5)
    last_read, last_write = device.asked[-2:]
    assert (last_read.code, last_read.opt.accept) == (codes.GET, 0)
    assert (last_write.opt.content_format, last_write.payload) == (0, b"oven")


PATHS = [Path(26241, 0) / 17, Path(26241, 0) / 18]


async def test_several_places_are_read_with_one_question() -> None:
    async with operations(version="1.1", ct=112) as (asked, device):
        asked.composes = True
        pack = cbor2.dumps([{-2: "/26241/0/", 0: "17/0", 8: b"four"}, {0: "18", 2: 7}])
        device.answer = answers(Message(code=codes.CONTENT, payload=pack, content_format=112))
        records = await asked.read_several(PATHS, timeout_s=5)
    assert [each.value for each in records] == [b"four", 7]
    (question,) = device.asked
    assert (question.code, question.opt.uri_path, question.opt.content_format) == (codes.FETCH, (), 112)
    assert cbor2.loads(question.payload) == [{0: "/26241/0/17"}, {0: "/26241/0/18"}]


@pytest.mark.parametrize(
    "reply",
    [
        Message(code=codes.METHOD_NOT_ALLOWED),
        Message(code=codes.NOT_IMPLEMENTED),
        Message(code=codes.CONTENT, payload=b"\xff", content_format=112),
        Message(code=codes.CONTENT, payload=cbor2.dumps([{0: "/3/0/0", 3: "other"}]), content_format=112),
        None,
    ],
    ids=["4.05", "5.01", "nonsense", "another place", "reset"],
)
async def test_who_takes_no_composite_read_is_asked_one_by_one_from_then_on(reply: Message | None) -> None:
    async with operations(version="1.1", ct=112) as (asked, device):
        asked.composes = True

        def answer(message: Message) -> Message | None:
            if message.code != codes.FETCH:
                return Message(code=codes.CONTENT, payload=b"", content_format=112)
            if reply is None:
                device.reset(message)
                return None
            return Message(code=reply.code, payload=reply.payload, content_format=reply.opt.content_format)

        device.answer = answer
        for _ in range(2):
            assert await asked.read_several(PATHS, timeout_s=5) == ()
    assert [each.code for each in device.asked] == [codes.FETCH, *[codes.GET] * 4]


async def test_several_blocks_of_a_composite_read_are_asked_for_with_what_is_read() -> None:
    pack = cbor2.dumps([{0: "/26241/0/17/0", 8: bytes(2000)}])
    async with operations(version="1.1", ct=112) as (asked, device):
        asked.composes = True
        device.answer = lambda message: blockwise(
            Message(code=codes.CONTENT, payload=pack, content_format=112), message
        )
        (record,) = await asked.read_several(PATHS, timeout_s=5)
    assert record.value == bytes(2000)
    assert len({each.payload for each in device.asked}) == 1


def lies() -> list[tuple[int, bytes]]:
    """Answers to a read of /3303/0 that no honest device gives: (content format, payload)."""
    chance = random.Random(11)  # noqa: S311 - repeatable noise
    deep = cbor2.dumps([{0: "5700", 2: 1}])
    return [
        (TLV, tlv(3, 5700, b"")[:-1]),
        (TLV, b"\xe8" + (5700).to_bytes(2, "big") + b"\xff" + b"1"),
        (TLV, b"\xf8" + (5700).to_bytes(2, "big") + b"\xff\xff\xff"),
        (TLV, tlv(0, 3, tlv(3, 5700, b"1234"))),
        (TLV, tlv(3, 5700, b"12345678") + tlv(3, 5700, b"12345679")),
        (112, b"\x9b" + b"\xff" * 8),
        (112, b"\x9f" * 1000),
        (112, cbor2.dumps([{-2: "/3/0/", 0: "0", 3: "other"}])),
        (112, cbor2.dumps([{-2: "/3303/0/", 0: "5700", 2: 1}, {0: "5700", 2: 2}])),
        (112, deep[:-1]),
        (112, b"\x81\xa1\x00\x7b" + b"\xff" * 8),
        (110, b'[{"bn":"/3303/0/","n":"5700","v":' + b"9" * 900 + b"}]"),
        (110, b"[" * 900),
        (110, b'[{"n":"\xff"}]'),
        (11544, b"\xbf" * 900),
        (11543, b'{"e":[{"n":"5700","v":1},{"n":"5700","v":2}]}'),
        (0, b"1"),
        (60, cbor2.dumps(1)),
        (99, b"1"),
        *((kind, chance.randbytes(60)) for kind in (TLV, 112, 110, 11544, 11543) for _ in range(40)),
    ]


async def test_lying_devices_cost_one_error_each_and_nothing_is_believed() -> None:
    async with operations(version="1.1") as (asked, device):
        for kind, payload in lies():
            device.answer = answers(Message(code=codes.CONTENT, payload=payload, content_format=kind))
            try:
                found = await asked.read(SENSOR, timeout_s=5)
            except DeviceRefused:
                continue
            assert all(each.path in SENSOR for each in found), (kind, payload)
        device.answer = answers(Message(code=codes.CONTENT, payload=tlv(3, 5701, b"C"), content_format=TLV))
        assert await asked.read(SENSOR, timeout_s=5) == (Record(SENSOR / 5701, "C"),)


async def test_an_answer_in_blocks_that_do_not_belong_together_or_never_end() -> None:
    async with operations() as (asked, device):

        def changing(message: Message) -> Message:
            number = 0 if message.opt.block2 is None else message.opt.block2.block_number
            reply = Message(code=codes.CONTENT, payload=bytes(1024), content_format=TLV, etag=bytes([number & 0xFF]))
            reply.opt.block2 = (number, True, 6)
            return reply

        def endless(message: Message) -> Message:
            reply = changing(message)
            reply.opt.etag = b"same"
            return reply

        def back(message: Message) -> Message:
            reply = endless(message)
            reply.opt.block2 = (0, True, 6)
            return reply

        for answer, reason in ((changing, "belong together"), (back, "belong together"), (endless, "is over")):
            device.answer = answer
            with pytest.raises(DeviceRefused, match=reason):
                await asked.read(SENSOR, timeout_s=20)
