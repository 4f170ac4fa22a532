import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.oscore_contexts import OscoreContexts, open_contexts
from gatewayd.core.credentials import OscoreKey
from gatewayd.core.device import Lwm2mTraits, PushPhase
from gatewayd.core.errors import DeviceUnreachable, NotStored
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.coap import Answer, Ask, Method
from gatewayd.links.lwm2m.link import LinkOptions
from gatewayd.links.lwm2m.registrations import Access
from tests.lwm2m_boards import OUR_LINKS, active_slot, our_board
from tests.lwm2m_client import scripted_device
from tests.lwm2m_oscore import OscoreDevice, PeerContext, oscore_device
from tests.lwm2m_pushing import CONTENT, STRANGER_LINKS, Engine, SoftwareClient, offer, profile
from tests.lwm2m_server import FakeRows, Server, running_server
from tests.oscore_stores import FakeKeys, FakeNumbers, key_of

ONE, TWO = DeviceId("dev-1"), DeviceId("dev-2")
KEY, OTHER = key_of(ONE, 1), key_of(TWO, 2)
OPTIONS = LinkOptions(access=Access({"oscore/dev-1": ONE, "oscore/dev-2": TWO}, plain=False))


@asynccontextmanager
async def server_of(
    numbers: FakeNumbers | None = None, rows: FakeRows | None = None, *, crashed: bool = False
) -> AsyncIterator[tuple[Server, OscoreContexts]]:
    contexts = await open_contexts(FakeKeys.of(KEY, OTHER), numbers or FakeNumbers())
    async with running_server(OPTIONS, rows=rows, contexts=contexts) as server:
        yield server, contexts
    if not crashed:
        await contexts.save()


async def registered(device: OscoreDevice, name: str = ONE) -> None:
    device.tree = our_board()
    device.tree.values |= {(26242, 1, key): value for key, value in active_slot().items()}
    assert (await device.register(name, OUR_LINKS)).code == codes.CREATED


async def test_a_device_registers_and_is_asked_under_its_context() -> None:
    async with server_of() as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        assert (await server.born()).device == ONE
        assert await server.link.ping(ONE, timeout_s=5) > 0
        assert (await device.update()).code == codes.CHANGED
        assert (await device.deregister()).code == codes.DELETED
        assert not [each for each in device.heard if b"26242" in each], "nothing of it is readable on the way"


async def test_a_sample_in_blocks_and_an_input_in_blocks() -> None:
    async with server_of() as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        device.tree.values |= {(26241, 0, 17, 0): bytes(range(256)) * 20}
        assert (await server.link.read_sensor(ONE, sensor=0, timeout_s=5)).content == bytes(range(256)) * 20


async def test_a_name_that_is_another_ones() -> None:
    async with (
        server_of() as (server, _),
        oscore_device(server.address, OTHER) as thief,
        oscore_device(server.address, KEY) as device,
    ):
        await registered(device)
        assert (await thief.register(ONE, OUR_LINKS)).code == codes.FORBIDDEN
        thief.location = device.location
        assert (await thief.update()).code == codes.FORBIDDEN
        assert server.codes() == ["forbidden"] * 2
        assert (await device.update()).code == codes.CHANGED


@pytest.mark.parametrize("name", [ONE, "other-1"])
async def test_what_is_not_protected_is_refused(name: str) -> None:
    async with server_of() as (server, _), scripted_device(server.address) as stranger:
        assert (await stranger.register(name, OUR_LINKS)).code == codes.FORBIDDEN
        assert (await stranger.ask(codes.GET, ("pkg", "1", "x"))).code == codes.FORBIDDEN
        assert set(server.codes()) == {"forbidden"}


async def test_replayed_forged_cut_and_unknown_messages() -> None:
    async with server_of() as (server, contexts), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        first = Message.decode(device.sent[0])
        unknown = first.opt.oscore[:-1] + b"\x7f"
        for payload, option, code, kind in (
            (first.payload, first.opt.oscore, codes.UNAUTHORIZED, "oscore_replay"),
            (first.payload, unknown, codes.UNAUTHORIZED, "oscore_unknown"),
            (first.payload, b"\xff", codes.BAD_OPTION, "oscore_malformed"),
            (first.payload, b"", codes.BAD_OPTION, "oscore_malformed"),
            (first.payload[:-1], b"\x09\x70" + KEY.kid, codes.BAD_REQUEST, "oscore_forged"),
            (b"", b"\x09\x71" + KEY.kid, codes.BAD_REQUEST, "oscore_forged"),
        ):
            async with scripted_device(server.address) as stranger:
                answer = await stranger.ask(codes.POST, (), oscore=option, payload=payload)
                assert (answer.code, answer.opt.oscore) == (code, None)
                assert server.codes()[-1] == kind
        assert len(contexts) == 1
        assert (await device.update()).code == codes.CHANGED


async def test_blocks_and_methods_outside_are_refused() -> None:
    async with server_of() as (server, _), scripted_device(server.address) as stranger:
        option = b"\x09\x70" + KEY.kid
        asked = stranger.ask(codes.POST, (), oscore=option, payload=b"x" * 16, block1=(0, True, 0))
        assert (await asked).code == codes.BAD_OPTION
        assert (await stranger.ask(codes.PUT, (), oscore=option, payload=b"x" * 16)).code == codes.BAD_OPTION


async def test_after_an_orderly_restart_both_go_on_without_a_proof() -> None:
    rows, numbers = FakeRows(), FakeNumbers()
    async with server_of(numbers, rows) as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        await server.until(lambda: rows.registrations)
        old = device.sent[0]
    async with server_of(numbers, rows) as (server, _), oscore_device(server.address, KEY) as again:
        again.resume(device)
        assert (await again.ask_once(codes.POST, again.location)).code == codes.CHANGED
        again.send_raw(old)
        assert (await again.update()).code == codes.CHANGED
        assert "oscore_replay" in server.codes()


async def test_after_a_restart_a_device_is_asked_where_it_was_heard_last() -> None:
    rows, numbers = FakeRows(), FakeNumbers()
    async with server_of(numbers, rows) as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        await server.until(lambda: rows.registrations)
        async with server_of(numbers, rows) as (again, _):
            device.gateway = again.address
            assert (await again.born()).device == ONE, "it was asked before it said anything"


async def test_after_a_crash_a_number_is_not_used_again_and_a_device_proves_that_its_messages_are_new() -> None:
    rows, numbers = FakeRows(), FakeNumbers()
    async with server_of(numbers, rows, crashed=True) as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        await server.until(lambda: rows.registrations)
        old = device.sent[0]
    async with server_of(numbers, rows, crashed=True) as (server, _), oscore_device(server.address, KEY) as again:
        again.resume(device)
        again.send_raw(old)
        challenged = await again.ask_once(codes.POST, again.location)
        assert challenged.code == codes.UNAUTHORIZED
        assert challenged.opt.echo
        assert (await again.update()).code == codes.CHANGED
        assert (await again.ask_once(codes.POST, again.location)).code == codes.CHANGED, "once is enough"
        assert server.codes().count("oscore_unproved") == 3
        assert await server.link.ping(ONE, timeout_s=5) >= 0
    ivs = [Message.decode(each).opt.oscore for each in (*device.heard, *again.heard)]
    own = [each for each in ivs if each]
    assert len(set(own)) == len(own), "a nonce was used twice"


async def test_a_device_that_lost_its_window_gets_the_proof_that_it_wants() -> None:
    async with server_of() as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        device.context = PeerContext(KEY, first=1000, is_new=False)
        device.tree.values |= {(26241, 0, 17, 0): b"abcd"}
        assert (await server.link.read_sensor(ONE, sensor=0, timeout_s=5)).content == b"abcd"


async def test_a_device_with_another_context_is_told_from_one_that_is_silent() -> None:
    async with server_of() as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        device.context = PeerContext(OTHER)
        device.answer = lambda _: None
        device.datagram_received = plain_refusal(device)  # type: ignore[method-assign]  # it lost its context
        with pytest.raises(DeviceUnreachable, match="without OSCORE"):
            await server.link.read_sensor(ONE, sensor=0, timeout_s=5)


def plain_refusal(device: OscoreDevice):  # type: ignore[no-untyped-def]  # noqa: ANN201 - asyncio's shape
    def received(data: bytes, _: object) -> None:
        question = Message.decode(data)
        if question.code.is_request():
            device.reply(question, Message(code=codes.UNAUTHORIZED))

    return received


async def test_a_revoked_device_is_out_at_once() -> None:
    keys = FakeKeys.of(KEY)
    contexts = await open_contexts(keys, FakeNumbers())
    async with running_server(OPTIONS, contexts=contexts) as server, oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        keys.known = keys.known.without(ONE)
        async with scripted_device(server.address) as stranger:
            sealed, _ = device.context.protect(Message(code=codes.POST, uri_path=device.location))
            answer = await stranger.ask(codes.POST, (), oscore=sealed.opt.oscore, payload=sealed.payload)
            assert answer.code == codes.UNAUTHORIZED
        with pytest.raises(DeviceUnreachable, match="revoked"):
            await server.link.read_sensor(ONE, sensor=0, timeout_s=5)


async def test_numbers_that_cannot_be_stored_are_not_used() -> None:
    numbers = FakeNumbers(failure=NotStored("the disk is full"))
    async with server_of(numbers, crashed=True) as (server, _), scripted_device(server.address) as stranger:
        context = PeerContext(KEY)
        for _ in range(2):
            sealed, _ = context.protect(Message(code=codes.POST, uri_path=("rd",), uri_query=("ep=dev-1",)))
            answer = await stranger.ask(codes.POST, (), oscore=sealed.opt.oscore, payload=sealed.payload)
            assert answer.code == codes.SERVICE_UNAVAILABLE
        assert server.link.registered_count() == 0


async def test_a_context_whose_numbers_are_lost_stays_closed() -> None:
    used = OscoreKey(ONE, KEY.secret, KEY.salt, KEY.kid, KEY.gateway_id, is_used=True)
    contexts = await open_contexts(FakeKeys.of(used), FakeNumbers())
    assert contexts.of_kid(KEY.kid) is None
    assert contexts.of_identity("oscore/dev-1") is None


async def test_numbers_of_contexts_that_are_gone_are_dropped() -> None:
    numbers = FakeNumbers()
    contexts = await open_contexts(FakeKeys.of(KEY, OTHER), numbers)
    for kid in (KEY.kid, OTHER.kid):
        held = contexts.of_kid(kid)
        assert held is not None
        assert await contexts.next_number(held) == 0
    await open_contexts(FakeKeys.of(OTHER), numbers)
    assert list(numbers.rows) == ["000002-6777"]


async def test_a_package_is_written_in_blocks_and_fetched_in_blocks() -> None:
    options = replace(OPTIONS, profiles=(profile(Lwm2mTraits(endpoint="dev-*", block_bytes=256)),))
    contexts = await open_contexts(FakeKeys.of(KEY), FakeNumbers())
    async with running_server(options, contexts=contexts) as server, oscore_device(server.address, KEY) as device:
        client = SoftwareClient(device)
        await device.register(ONE, STRANGER_LINKS)
        await server.born()
        engine = Engine(server, ONE, offer())
        assert await engine.push() is PushPhase.ACCEPTED
        assert client.packages == {0: CONTENT}


async def test_a_package_is_fetched_under_the_context_and_by_nobody_else() -> None:
    contexts = await open_contexts(FakeKeys.of(KEY, OTHER), FakeNumbers())
    traits = Lwm2mTraits(endpoint="dev-*", block_bytes=1024)
    options = replace(OPTIONS, profiles=(profile(traits),))
    async with (
        running_server(options, contexts=contexts) as server,
        oscore_device(server.address, KEY) as device,
        oscore_device(server.address, OTHER) as thief,
    ):
        client = SoftwareClient(device)
        client.pull_only = True
        await device.register(ONE, STRANGER_LINKS)
        await server.born()
        engine = Engine(server, ONE, offer())
        server.link.send_offer(ONE, engine.offer)
        await device.until(lambda: bool(client.uris))
        assert (await thief.ask(codes.GET, path_of(client.uris[0]))).code == codes.NOT_FOUND
        content, more = bytearray(), True
        while more:
            block = (len(content) // 512, False, 5)
            part = await device.ask(codes.GET, path_of(client.uris[0]), block2=block)
            content += part.payload
            more = part.opt.block2.more
        assert bytes(content) == CONTENT


def path_of(uri: str) -> tuple[str, ...]:
    return tuple(uri.split("/")[3:])


async def test_an_observation_under_the_context() -> None:
    told: list[bytes] = []
    async with server_of() as (server, _), oscore_device(server.address, KEY) as device:
        await registered(device)
        await server.born()
        endpoint = server.endpoint
        peer = endpoint.peer("127.0.0.1|" + str(device.port), "oscore/dev-1")
        assert peer is not None
        device.answer = lambda _: Message(code=codes.CONTENT, payload=b"0", observe=0)
        heard = asyncio.Event()

        def notified(answer: Answer | None) -> None:
            told.append(answer.payload if answer is not None else b"end")
            heard.set()

        answer, observation = await endpoint.observe(
            peer, Ask(Method.GET, ("3", "0", "9"), observe=0), notified, timeout_s=5
        )
        assert (answer.payload, answer.observe) == (b"0", 0)
        assert observation is not None
        question = device.asked[-1]
        assert question.opt.observe == 0
        for number in (1, 2):
            heard.clear()
            device.notify(question, str(number).encode(), number=number, content_format=0)
            async with asyncio.timeout(5):
                await heard.wait()
        device.send_raw(device.sent[-2][:2] + b"\x7f\x7f" + device.sent[-2][4:])  # the first one again
        heard.clear()
        device.notify(question, b"3", number=3, content_format=0)
        async with asyncio.timeout(5):
            await heard.wait()
        assert told == [b"1", b"2", b"3"]
        observation.forget()
