"""A simulated LwM2M device asked by a hand-made server: registration, reading, packages both ways, runs, sleep."""

import asyncio
import socket
from contextlib import ExitStack
from dataclasses import replace

import cbor2
import pytest
from aiocoap import Context  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above
from aiocoap.resource import Site  # type: ignore[import-untyped]  # as above

from gatewayd.sim.registration import Terms
from gatewayd.sim.uplink import held_port
from gatewayd.wire.lwm2m.formats import Format, decode
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import ROOT
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.registration import Version, parse_registration
from gatewayd.wire.lwm2m.reports import read_report
from gatewayd.wire.lwm2m.states import read_model_slot
from tests.agent_bench import CHUNK, Bench, content_of, offer_of
from tests.sim.lwm2m_bench import PATIENCE_S, attached, playing

CONTENT = content_of("kws", 1, size=200)
OFFER = offer_of(5, CONTENT)


async def test_it_registers_with_what_it_has_and_says_goodbye() -> None:
    async with playing() as player, asyncio.timeout(PATIENCE_S):
        async with attached(player, Bench()):
            records = await player.read("/26241/0")
            assert {str(each.path) for each in records} >= {"/26241/0/0", "/26241/0/13/0", "/26241/0/14/0"}
        goodbye = await player.registration()
    assert goodbye.code == Code.DELETE


async def test_boards_that_start_at_once_never_share_a_port() -> None:
    """aiocoap binds a taken port beside its owner, and each would get messages of the other: nobody may come between."""
    with ExitStack() as stack:
        ports = [stack.enter_context(held_port()) for _ in range(40)]
        assert len(set(ports)) == len(ports)
        context = await Context.create_server_context(Site(), bind=("127.0.0.1", ports[0]), transports=["udp6"])
        await context.shutdown()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", ports[1]))


async def test_its_registration_and_objects_are_what_the_codecs_read() -> None:
    bench = Bench()
    async with playing() as player, attached(player, bench):
        registration = parse_registration(player.first.opt.uri_query, player.first.payload, 40)
        paths = ("/3/0", "/26241/0", "/26242", "/9")
        records = [each for path in paths for each in await player.read(path, Format.SENML_CBOR)]
    assert registration.version is Version.V1_1
    assert registration.instances(26242) == registration.instances(9) == (0, 1)
    report = read_report(records)
    assert report.capabilities == bench.capabilities
    assert [slot.state.value for slot in report.slots] == ["empty", "empty"]
    assert report.battery == pytest.approx(0.9)


async def test_a_package_pushed_by_block1_becomes_the_model_that_answers() -> None:
    async with playing() as player, attached(player, Bench()):
        await player.offer(0, OFFER)
        assert await player.value("/26242/0/14") == 1
        assert await player.value("/9/0/7") == 1
        assert (await player.write("/9/0/2", CONTENT, Format.OPAQUE)).code == Code.CHANGED
        await player.until("/26242/0/14", 4)
        assert (await player.value("/9/0/7"), await player.value("/9/0/12")) == (3, False)
        await player.finish(0)
        slot = read_model_slot(Readings(await player.read("/26242/0")), 0)
        assert slot is not None
        assert (slot.state.value, slot.model, slot.version) == ("active", "kws", 1)
        assert [await player.value(f"/9/0/{each}") for each in (0, 1, 7, 9, 12)] == ["kws", "1", 4, 2, True]


async def test_a_package_is_pulled_from_the_byte_that_is_missing() -> None:
    async with playing() as player, attached(player, Bench(), block_exponent=2):
        player.package.content = CONTENT
        await player.offer(0, OFFER)
        first = await player.ask(
            Code.PUT, "/9/0/2", CONTENT[:64], content_format=42, block1=(0, True, 2)
        )  # 64 bytes, then nothing
        assert first.code == Code.CONTINUE
        uri = f"coap://127.0.0.1:{player.port}/package"
        assert (await player.write("/9/0/3", uri.encode(), Format.TEXT)).code == Code.CHANGED
        await player.finish(0)
        assert player.package.asked[0] == 64


async def test_block1_may_begin_in_the_middle_and_has_no_gaps() -> None:
    async with playing() as player, attached(player, Bench()):
        await player.offer(0, OFFER)

        async def block(number: int, *, more: bool = True) -> Code:
            content = CONTENT[number * 32 : number * 32 + 32]
            return (await player.ask(Code.PUT, "/9/0/2", content, content_format=42, block1=(number, more, 1))).code

        assert [await block(each) for each in (0, 0, 1, 3, 0)] == [
            Code.CONTINUE,
            Code.CONTINUE,
            Code.CONTINUE,
            Code.REQUEST_ENTITY_INCOMPLETE,
            Code.CONTINUE,
        ]
        assert await player.value("/26242/0/15") == 64
        ends = [await block(each, more=each < 6) for each in range(2, 7)]
        assert ends == [Code.CONTINUE] * 4 + [Code.CHANGED]
        await player.finish(0)


async def test_bytes_without_a_manifest_and_manifests_in_the_wrong_place_are_refused() -> None:
    async with playing() as player, attached(player, Bench()):
        assert (await player.write("/9/0/2", CONTENT, Format.OPAQUE)).code == Code.METHOD_NOT_ALLOWED
        assert (await player.write("/26242/1/13", b"5", Format.TEXT)).code == Code.METHOD_NOT_ALLOWED
        assert (await player.write("/26242/0/18", b"x", Format.OPAQUE)).code == Code.METHOD_NOT_ALLOWED
        await player.write("/26242/0/13", b"5", Format.TEXT)
        await player.write("/26242/0/18", b"no manifest", Format.OPAQUE)
        assert await player.value("/26242/0/14") == 7
        assert "COSE" in str(await player.value("/26242/0/10"))
        for path in ("/9/0/10", "/9/0/4", "/26242/0/5", "/9/0/11"):
            assert (await player.execute(path)).code == Code.METHOD_NOT_ALLOWED, path


async def test_a_power_cut_costs_at_most_a_chunk() -> None:
    bench = Bench()
    async with playing() as player:
        async with attached(player, bench):
            await player.offer(0, OFFER)
            await player.ask(Code.PUT, "/9/0/2", CONTENT[:128], content_format=42, block1=(0, True, 3))
        await player.registration()  # the goodbye
        bench.agent = type(bench.agent)(bench.agent.board, battery_percent=90)
        async with attached(player, bench):
            assert [await player.value(f"/26242/0/{each}") for each in (0, 13, 14)] == [1, 0, 0]
            await player.offer(0, OFFER)
            offset = await player.value("/26242/0/15")
            assert isinstance(offset, int)
            assert 128 - CHUNK <= offset <= 128
            number = offset // 32
            for each in range(number, 7):
                content = CONTENT[each * 32 : each * 32 + 32]
                await player.ask(Code.PUT, "/9/0/2", content, content_format=42, block1=(each, each < 6, 1))
            await player.finish(0)


async def test_a_reboot_on_request_keeps_what_is_in_flash() -> None:
    async with playing() as player, attached(player, Bench()):
        await player.offer(0, OFFER)
        await player.write("/9/0/2", CONTENT, Format.OPAQUE)
        await player.finish(0)
        assert (await player.execute("/3/0/4")).code == Code.CHANGED
        await player.registration()
        assert await player.value("/26242/0/0") == 3
        assert await player.value("/26242/0/14") == 0


async def test_the_model_runs_on_an_input_and_on_a_sensor() -> None:
    async with playing() as player, attached(player, Bench()):
        await player.offer(0, OFFER)
        await player.write("/9/0/2", CONTENT, Format.OPAQUE)
        await player.finish(0)
        await player.write("/26242/0/4", b"abcd", Format.OPAQUE)
        assert (await player.execute("/26242/0/5")).code == Code.CHANGED
        assert await player.value("/26242/0/6") == b"kws1abcd"
        assert (await player.execute("/26242/0/5", "0='0'")).code == Code.CHANGED
        assert await player.value("/26242/0/6") == b"kws1mic"
        assert [await player.value(f"/26242/0/{each}") for each in (7, 9, 11, 12)] == [1, 0, 2, 3]
        assert (await player.execute("/26242/0/5", "nonsense")).code == Code.BAD_REQUEST
        assert (await player.execute("/26241/0/20", "0='0'")).code == Code.CHANGED
        assert await player.value("/26241/0/17/0") == b"four"
        assert (await player.execute("/26241/0/20", "0='3'")).code == Code.BAD_REQUEST


async def test_several_places_are_read_at_once() -> None:
    async with playing() as player, attached(player, Bench()):
        pack = cbor2.dumps([{0: "/26241/0/18"}, {0: "/26242/0/0"}, {0: "/77"}])
        answer = await player.ask(Code.FETCH, "/", pack, content_format=112, accept=112)
        assert {str(each.path) for each in decode(Format.SENML_CBOR, ROOT, answer.payload, STANDARD)} == {
            "/26241/0/18",
            "/26242/0/0",
        }
        for payload, kind, code in (
            (b"[]", 11542, Code.UNSUPPORTED_CONTENT_FORMAT),
            (b"\xff", 112, Code.BAD_REQUEST),
            (b'[{"v":1}]', 110, Code.BAD_REQUEST),
        ):
            assert (await player.ask(Code.FETCH, "/", payload, content_format=kind)).code == code


async def test_what_is_observed_is_told_when_it_changes() -> None:
    async with playing() as player, attached(player, Bench()):
        observing = await player.observe("/26242/0/14")
        await player.offer(0, OFFER)
        async with asyncio.timeout(PATIENCE_S):
            told = await anext(observing)
        assert told.opt.observe is not None
        assert told.payload.endswith(b"\x01")


async def test_an_old_client_speaks_tlv_and_no_senml() -> None:
    async with playing() as player, attached(player, Bench(), terms=Terms("cam-7", 60, version="1.0")):
        assert (await player.ask(Code.GET, "/3/0", accept=int(Format.SENML_CBOR))).code == Code.NOT_ACCEPTABLE
        assert (await player.ask(Code.GET, "/3/0")).opt.content_format == Format.TLV
        assert (await player.ask(Code.GET, "/3/0/1", accept=int(Format.TEXT))).payload == b"bench"


@pytest.mark.parametrize(("version", "query"), [("1.0", "b=UQ"), ("1.1", "Q")])
async def test_a_sleeper_says_so_as_its_version_does(version: str, query: str) -> None:
    terms = Terms("cam-7", 60, version=version, is_sleepy=True)
    async with playing() as player, attached(player, Bench(), terms=terms, sleep_after_s=60.0):
        assert query in player.first.opt.uri_query


async def test_a_refused_registration_is_tried_again() -> None:
    async with playing() as player:
        player.directory.is_refusing = True
        async with attached(player, Bench()) as device:
            player.directory.is_refusing = False
            device.rebind()
            assert "ep=cam-7" in (await player.registration()).opt.uri_query


async def test_a_forgotten_device_registers_again() -> None:
    async with playing() as player, attached(player, Bench(), update_every_s=0.05):
        assert (await player.registration()).opt.uri_query == ()
        player.directory.has_forgotten = True
        while not (again := await player.registration()).opt.uri_query:
            continue
        assert "ep=cam-7" in again.opt.uri_query


async def test_the_server_may_change_the_lifetime_and_ask_for_an_update() -> None:
    async with playing() as player, attached(player, Bench()):
        assert (await player.write("/1/0/1", b"30", Format.TEXT)).code == Code.CHANGED
        assert (await player.registration()).opt.uri_query == ("lt=30",)
        assert (await player.execute("/1/0/8")).code == Code.CHANGED
        assert (await player.registration()).code == Code.POST
        assert (await player.write("/1/0/1", b"0", Format.TEXT)).code == Code.BAD_REQUEST


async def test_strange_questions_have_their_codes() -> None:
    async with playing() as player, attached(player, Bench()):
        for code, path, wanted in (
            (Code.GET, "/77", Code.NOT_FOUND),
            (Code.GET, "/3/1", Code.NOT_FOUND),
            (Code.GET, "/3/0/99", Code.NOT_FOUND),
            (Code.GET, "/9/0/4", Code.METHOD_NOT_ALLOWED),
            (Code.GET, "/nonsense", Code.NOT_FOUND),
            (Code.POST, "/3/0/9", Code.METHOD_NOT_ALLOWED),
            (Code.POST, "/9", Code.METHOD_NOT_ALLOWED),
            (Code.DELETE, "/9/0", Code.METHOD_NOT_ALLOWED),
        ):
            assert (await player.ask(code, path)).code == wanted, path
        wrong = await player.ask(Code.PUT, "/1/0/1", b"30", content_format=11543)
        assert wrong.code == Code.UNSUPPORTED_CONTENT_FORMAT
        assert (await player.ask(Code.PUT, "/3/0/9", b"pmin=1")).code == Code.METHOD_NOT_ALLOWED
        links = await player.ask(Code.GET, "/9/1", accept=40)
        assert b"</9/1/12>" in links.payload


def test_terms_may_leave_the_binding_out() -> None:
    assert not any(each.startswith("b=") for each in replace(Terms("x", 60), binding=None).query())
