"""Runs whose results are notified: told, late, lost, doubled, reordered; and what devices infer by themselves."""

import asyncio
import struct
import time

import pytest
from aiocoap import Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above

from gatewayd.core.device import Born, Inferred, RunResult, SlotState
from gatewayd.core.errors import DeviceRefused, DeviceTimeout
from gatewayd.core.names import DeviceId
from tests.lwm2m_boards import OUR_LINKS, active_slot, our_board
from tests.lwm2m_client import TLV, Path, ScriptedDevice, scripted_device, tlv
from tests.lwm2m_server import FakeRows, Server, running_server

DEVICE = DeviceId("dev-1")
SLOT = (26242, 1)


class Board:
    """A scripted board whose active slot is observed, and how it answers a run."""

    def __init__(self, device: ScriptedDevice, *, tags: bool = True) -> None:
        self.device = device
        device.tree = our_board()
        device.tree.values |= {(*SLOT, key): value for key, value in active_slot().items()}
        if tags:
            device.tree.values |= {(*SLOT, 19): 0, (*SLOT, 20): 0}
        device.observes = True
        device.on_execute = self.execute
        self.tells = True

    async def attach(self, server: Server) -> None:
        await self.device.register(links=OUR_LINKS)
        await server.born()
        await self.observed()

    async def observed(self) -> None:
        await self.device.until(lambda: SLOT in self.device.observed)

    def finish(self, output: bytes, *, tag: int = 0) -> None:
        values = self.device.tree.values
        values |= {(*SLOT, 6): output, (*SLOT, 7): 1500, (*SLOT, 11): int(values[*SLOT, 11]) + 1}
        if (*SLOT, 19) in values:
            values[*SLOT, 19] = tag

    def execute(self, path: Path, argument: str) -> Message | None:
        if path == (*SLOT, 5):
            self.finish(self.device.writes.get((*SLOT, 4), b"sensed")[::-1], tag=tag_of(argument))
            if self.tells:
                self.device.tell(SLOT)
        return None


def tag_of(argument: str) -> int:
    return int(argument.partition("1='")[2].partition("'")[0] or 0)


async def run(server: Server, content: bytes | None = b"ab", *, timeout_s: float = 5.0) -> RunResult:
    return await server.link.run_model(DEVICE, slot=1, version=1, content=content, sensor=0, timeout_s=timeout_s)


def own(server: Server) -> list[bytes]:
    return [each.result.output for each in server.events if isinstance(each, Inferred)]


@pytest.mark.parametrize("tags", [True, False])
async def test_a_result_is_told_and_nothing_is_read(tags: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with running_server() as server, scripted_device(server.address) as device:
        await Board(device, tags=tags).attach(server)
        device.asked.clear()
        for content in (b"ab", b"cd"):
            assert (await run(server, content)).output == content[::-1]
        assert [each.code for each in device.asked] == [codes.PUT, codes.POST] * 2
        device.asked.clear()
        assert (await run(server, None)).output == b"dc"
        assert [each.code for each in device.asked] == [codes.POST]
        assert own(server) == []


async def test_the_late_result_of_a_run_that_was_given_up_is_not_the_next_ones() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        device.on_execute = lambda *_: None
        with pytest.raises(DeviceTimeout):
            await run(server, b"late", timeout_s=0.2)
        late = tag_of(device.executed[-1][1])

        def execute(path: Path, argument: str) -> Message | None:
            board.finish(b"late"[::-1], tag=late)
            device.tell(SLOT)
            return board.execute(path, argument)

        device.on_execute = execute
        assert (await run(server, b"now")).output == b"won"
        assert own(server) == []


async def test_a_lost_notification_is_made_up_for_by_a_read() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        board.tells = False
        assert (await run(server)).output == b"ba"
        board.tells = True
        device.asked.clear()
        assert (await run(server)).output == b"ba"
        assert codes.GET not in {each.code for each in device.asked}


async def test_who_tells_while_it_is_read_is_waited_for_again() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        board.tells = False
        await run(server)  # its notification is lost

        def tells_late(request: Message) -> Message | None:
            if request.code == codes.GET:
                device.tell(SLOT)  # under way before the answer to the read
            return device.well_behaved(request)

        device.answer = tells_late
        await run(server)
        device.answer, board.tells = device.well_behaved, True
        # A notification that comes after the answer to the execute, as over a link with some delay.
        device.on_execute = lambda path, argument: _soon(board, path, argument)
        device.asked.clear()
        assert (await run(server)).output == b"ba"
        assert codes.GET not in {each.code for each in device.asked}


def _soon(board: Board, path: Path, argument: str) -> Message | None:
    """Run, and tell of it once the execute is answered."""
    board.tells = False
    board.execute(path, argument)
    asyncio.get_running_loop().call_later(0.02, board.device.tell, SLOT)
    return None


async def test_who_promises_to_tell_and_does_not_is_read_at_once() -> None:
    ahead_s = 0.0
    async with (
        running_server(clock=lambda: time.monotonic() + ahead_s) as server,
        scripted_device(server.address) as device,
    ):
        board = Board(device)
        await board.attach(server)
        board.tells = False
        await run(server)
        device.asked.clear()
        await run(server)
        assert [each.code for each in device.asked] == [codes.PUT, codes.POST, codes.GET]
        assert device.asked[-1].opt.observe is None
        ahead_s += 61.0
        await run(server)
        device.tell(SLOT)
        await device.until(lambda: device.resets == 1)
        device.observed.clear()
        ahead_s += 61.0
        await run(server)  # after a while it is given another chance
        assert SLOT in device.observed


async def test_doubled_and_reordered_notifications() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        for number, output in ((100, b"one"), (102, b"three"), (101, b"two"), (102, b"three")):
            board.finish(output)
            device.tell(SLOT, number=number)
        device.tell(SLOT, number=103)  # the counter of the last, which nobody took
        await server.until(lambda: len(own(server)) == 3)
        assert own(server) == [b"one", b"three", b"three"]


async def test_what_a_device_infers_by_itself_is_passed_on() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        device.tree.values |= {(*SLOT, 20): 0, (*SLOT, 12): 41}
        board.finish(b"heard")
        device.tell(SLOT)
        await server.until(lambda: own(server))
        assert server.events[-1] == Inferred(DEVICE, 1, 1, 0, RunResult(b"heard", 0.0015, 0.0, 41, 0.0))
        content = b"".join(tlv(3, each, value) for each, value in ((6, b"sent"), (11, b"\x02"), (19, b"\0")))
        send = tlv(0, 1, content)
        wrong = await device.ask(codes.POST, ("dp",), payload=send, content_format=TLV)
        assert wrong.code == codes.BAD_REQUEST  # a Send names its objects
        pack = '[{"bn":"/26242/1/","n":"6","vd":"c2VudA"},{"n":"11","v":2},{"n":"19","v":0}]'
        for _ in range(2):
            assert (
                await device.ask(codes.POST, ("dp",), payload=pack.encode(), content_format=110)
            ).code == codes.CHANGED
        assert own(server) == [b"heard", b"sent"]


async def test_an_output_of_several_blocks_is_fetched_when_it_is_told() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)

        def tell() -> None:
            whole = device.tree.tlv(SLOT)
            assert whole is not None
            first = Message(code=codes.CONTENT, payload=whole[:1024], content_format=TLV, observe=900)
            first.opt.block2, first.mid, first.mtype = (0, True, 6), 0x7777, 1
            first.token = device.observed[SLOT].token
            device.send_raw(first.encode())

        board.finish(bytes(3000))
        tell()
        await server.until(lambda: own(server))
        assert own(server) == [bytes(3000)]

        def execute(_: Path, argument: str) -> Message | None:
            board.finish(bytes(2000), tag=tag_of(argument))
            tell()
            return None

        device.on_execute = execute
        assert (await run(server)).output == bytes(2000)


async def test_it_observes_again_after_a_new_registration_and_from_a_new_address() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        old = device.observed.pop(SLOT)
        await device.register(links=OUR_LINKS)
        await board.observed()
        device.notify(old, b"", number=5000)  # a device that still tells what was asked before is told not to
        await device.until(lambda: device.resets == 1)
        device.observed.clear()
        await device.move()
        await device.update()
        await board.observed()
        assert (await run(server)).output == b"ba"
        board.finish(b"own")
        device.tell(SLOT)
        await server.until(lambda: own(server))


async def test_it_observes_again_after_a_restart_of_the_gateway() -> None:
    rows = FakeRows()
    async with running_server(rows=rows) as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        await server.until(lambda: rows.registrations)
        device.observed.clear()
        async with running_server(rows=rows) as again:
            device.gateway = again.address
            await again.born()
            await board.observed()
            board.finish(b"own")
            device.tell(SLOT)
            await again.until(lambda: own(again))


async def test_an_observation_that_the_device_gives_up_is_made_again() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        given_up = Message(code=codes.NOT_FOUND)
        given_up.mtype, given_up.mid, given_up.token = 1, 0x4242, device.observed.pop(SLOT).token
        device.send_raw(given_up.encode())
        await device.update()
        await board.observed()
        assert (await run(server)).output == b"ba"


async def test_a_slot_that_runs_nothing_any_more_is_observed_no_more() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        old = device.observed.pop(SLOT)
        device.tree.values |= {(*SLOT, key): value for key, value in ((0, 0), (1, ""), (2, 0), (3, b""))}
        await device.update(links=OUR_LINKS + ",</3303/0>")
        await server.born(2)
        device.notify(old, b"", number=700)
        await device.until(lambda: device.resets == 1)
        assert SLOT not in device.observed


async def test_a_run_that_is_refused_because_the_slot_runs_nothing_has_the_slots_read_first() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await Board(device).attach(server)
        moved = active_slot()
        empty = ((0, 0), (1, ""), (2, 0), (3, b""))

        def refuse(path: Path, _: str) -> Message | None:
            """It accepted the same model in another slot a moment ago."""
            device.tree.values |= {(26242, 0, key): value for key, value in moved.items()}
            device.tree.values |= {(*SLOT, key): value for key, value in empty}
            return Message(code=codes.METHOD_NOT_ALLOWED) if path == (*SLOT, 5) else None

        device.on_execute = refuse
        with pytest.raises(DeviceRefused, match=r"4\.05"):
            await run(server)
        born = [event for event in server.events if isinstance(event, Born)][-1]  # before the refusal is told
        assert [(slot.index, slot.version) for slot in born.report.slots if slot.state is SlotState.ACTIVE] == [(0, 1)]
        device.executed.clear()
        with pytest.raises(DeviceRefused, match="slot 1 does not run version 1"):
            await run(server)  # it waited for its turn meanwhile: the device is not asked
        assert device.executed == []


async def test_several_that_are_refused_have_the_slots_read_once() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        await Board(device).attach(server)
        device.on_execute = lambda *_: Message(code=codes.METHOD_NOT_ALLOWED)  # and its slots say otherwise
        births = len([event for event in server.events if isinstance(event, Born)])
        done = await asyncio.gather(*(run(server) for _ in range(4)), return_exceptions=True)
        assert [type(each).__name__ for each in done] == ["Refusal"] * 4
        assert len([event for event in server.events if isinstance(event, Born)]) - births < 4


async def test_a_slot_that_is_emptied_beside_one_that_runs_is_observed_no_more() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        device.tree.values |= {(26242, 0, key): value for key, value in active_slot().items()}
        await board.attach(server)
        await device.until(lambda: (26242, 0) in device.observed)
        device.tree.values |= {(*SLOT, key): value for key, value in ((0, 0), (1, ""), (2, 0), (3, b""))}
        attachment = server.link._of(DEVICE)  # noqa: SLF001 - as a push does when it ends
        await attachment.renew_slots()
        await device.update()
        await server.link.ping(DEVICE, timeout_s=5)
        device.tell(SLOT)
        await device.until(lambda: device.resets == 1)
        board.finish(b"")
        device.tell((26242, 0))
        assert device.resets == 1


async def test_a_flood_of_results_is_passed_on_in_part() -> None:
    async with running_server(clock=lambda: 1.0) as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        for _ in range(120):
            board.finish(b"x")
            device.tell(SLOT)
        pack = "[" + ",".join(f'{{"n":"/26242/{each}/11","v":{each}}}' for each in range(2, 900)) + "]"
        answer = await device.ask(codes.POST, ("dp",), payload=pack.encode()[:1024], content_format=110)
        assert answer.code == codes.BAD_REQUEST
        sends = [f'[{{"n":"/26242/{each}/11","v":{each}}}]'.encode() for each in range(2, 40)]
        answers = [await device.ask(codes.POST, ("dp",), payload=each, content_format=110) for each in sends]
        assert {each.code for each in answers} == {codes.CHANGED}
        assert len(own(server)) == 50
        assert (await run(server)).output == b"ba"


async def test_notifications_that_make_no_sense_cost_nothing() -> None:
    async with running_server() as server, scripted_device(server.address) as device:
        board = Board(device)
        await board.attach(server)
        request = device.observed[SLOT]
        nonsense = (
            b"",
            b"\xff" * 40,
            struct.pack("!I", 7),
            tlv(3, 11, b"\xff"),
            tlv(3, 11, b"\x7f" * 8),
            tlv(3, 6, b""),
        )
        for number, payload in enumerate(nonsense, start=5000):
            device.notify(request, payload, number=number)
        assert (await run(server)).output == b"ba"
        assert own(server) == []
        await asyncio.sleep(0)
