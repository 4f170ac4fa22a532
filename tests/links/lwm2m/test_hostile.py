"""Datagrams that mean harm: the server answers, or says nothing, counts them, and goes on."""

import asyncio
import os
import random
import struct

from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.names import DeviceId
from tests.lwm2m_boards import OUR_LINKS, our_board
from tests.lwm2m_client import TLV, scripted_device
from tests.lwm2m_server import running_server

COUNT = 10_000
DEVICE = DeviceId("dev-1")


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - not a file, and read at once
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _mangled(chance: random.Random) -> bytes:
    """A registration with some bytes changed, cut off, or only noise."""
    message = Message(code=codes.POST, uri_path=("rd",), uri_query=("ep=dev-x", "lt=60"), payload=b"</3/0>,</9/0>")
    message.mtype, message.mid, message.token = 0, chance.randrange(65536), b"ab"
    content = bytearray(message.encode())
    kind = chance.randrange(4)
    if kind == 0:
        return bytes(chance.randrange(256) for _ in range(chance.randrange(60)))
    for _ in range(chance.randint(1, 4)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content[: chance.randrange(1, len(content) + 1)] if kind == 1 else content)


async def test_malformed_datagrams() -> None:
    chance = random.Random(7)  # noqa: S311 - repeatable noise
    async with running_server() as server, scripted_device(server.address) as device:
        device.tree = our_board()
        await device.register(DEVICE, OUR_LINKS)
        await server.born()
        async with scripted_device(server.address) as attacker:
            attacker.is_deaf = True
            for number in range(COUNT):
                attacker.send_raw(_mangled(chance))
                if number % 100 == 0:  # let the server read: the kernel's queue is not what is tested
                    assert (await device.update()).code == codes.CHANGED
                if number == COUNT // 2:
                    before = _resident_bytes()
        assert _resident_bytes() - before < 20 * 2**20
        assert "malformed" in server.codes()
        assert server.link.registered_count() < 200  # some names came through the mangling
        assert await server.link.ping(DEVICE, timeout_s=5) >= 0


async def test_clients_that_are_gone_before_their_answer() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await device.register(DEVICE)
        for number in range(100):
            async with scripted_device(server.address) as gone:
                message = Message(code=codes.POST, uri_path=("rd",), uri_query=(f"ep=gone-{number}", "lt=60"))
                message.mtype, message.mid, message.token = 0, number, b"t"
                gone.send_raw(message.encode())
        for _ in range(20):
            assert (await device.update()).code == codes.CHANGED


async def test_answers_with_wrong_tokens_and_replayed_ones() -> None:
    async with running_server() as server, scripted_device(server.address) as device:

        def answer(message: Message) -> Message | None:
            forged = Message(code=codes.CONTENT, payload=b"\xc8\x00\x04Evil", content_format=TLV)
            forged.mtype, forged.mid, forged.token = 1, (message.mid + 7) & 0xFFFF, b"\0\0\0\0"
            device.send_raw(forged.encode())
            return device.well_behaved(message)

        device.tree, device.answer = our_board(), answer
        await device.register(DEVICE, OUR_LINKS)
        assert (await server.born()).report.capabilities.board == "nucleo-l4r5zi"
        update = Message(code=codes.POST, uri_path=device.location)
        update.mtype, update.mid, update.token = 0, 40_000, b"same"
        for _ in range(50):
            device.send_raw(update.encode())
        assert (await device.update()).code == codes.CHANGED


async def test_link_bombs_and_blocks_that_do_not_fit() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        bomb = ("</1/0>," * 900).encode()
        sizes = [(0, True, 6), (7, True, 6), (1, True, 6), (2, False, 2), (0xFFFF, True, 6)]
        for block in sizes:
            answer = await device.ask(codes.POST, ("rd",), uri_query=("ep=bomb",), payload=bomb[:1024], block1=block)
            assert answer.code in {codes.CONTINUE, codes.REQUEST_ENTITY_INCOMPLETE, codes.REQUEST_ENTITY_TOO_LARGE}
        announced = await device.ask(
            codes.POST, ("rd",), uri_query=("ep=bomb",), payload=b"x" * 1024, block1=(0, True, 6), size1=2**30
        )
        assert announced.code == codes.REQUEST_ENTITY_TOO_LARGE
        assert server.link.registered_count() == 0


async def test_a_replayed_registration_is_answered_as_the_first() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        message = Message(code=codes.POST, uri_path=("rd",), uri_query=("ep=dev-1", "lt=60"), payload=b"</3/0>")
        message.mtype, message.mid, message.token = 0, 77, struct.pack("!I", 5)
        locations = []
        for _ in range(3):
            waiting = device._waiting[message.token] = asyncio.get_running_loop().create_future()  # noqa: SLF001 - its own helper
            device.send_raw(message.encode())
            async with asyncio.timeout(5):
                locations.append((await waiting).opt.location_path)
        assert len(set(locations)) == 1
        assert server.link.registered_count() == 1
