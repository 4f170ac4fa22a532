import asyncio

import pytest

from gatewayd.core.errors import Overloaded
from gatewayd.edges.lane import Lane


class Gate:
    """Serves items that wait until the gate opens."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun: list[str] = []
        self.begins: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, item: str) -> None:
        self.begun.append(item)
        self.begins.put_nowait(item)
        await self.open.wait()


async def test_in_flight_and_waiting_are_bounded_and_draining_waits_for_both() -> None:
    gate = Gate()
    lane = Lane[str]("test", gate.serve, in_flight=2, waiting=1, max_bytes=100)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane.run())
        for item in "ab":
            lane.put(item, size=1)
            assert await asyncio.wait_for(gate.begins.get(), 5) == item
        lane.put("c", size=1)
        with pytest.raises(Overloaded, match="test requests"):
            lane.put("d", size=1)
        assert gate.begun == ["a", "b"]
        gate.open.set()
        await asyncio.wait_for(lane.drain(), 5)
        assert gate.begun == ["a", "b", "c"]
        task.cancel()


async def test_bytes_are_bounded_but_one_item_always_passes() -> None:
    gate = Gate()
    lane = Lane[str]("test", gate.serve, in_flight=1, waiting=9, max_bytes=10)
    lane.put("a", size=50)
    with pytest.raises(Overloaded, match="50 bytes"):
        lane.put("b", size=1)
    gate.open.set()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane.run())
        await asyncio.wait_for(lane.drain(), 5)
        lane.put("b", size=1)
        task.cancel()


async def test_senders_take_turns_and_keep_their_own_order() -> None:
    gate = Gate()
    gate.open.set()
    lane = Lane[str]("test", gate.serve, in_flight=1, waiting=9, max_bytes=100)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        lane.put(item, size=1, sender=item[0])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane.run())
        await asyncio.wait_for(lane.drain(), 5)
        task.cancel()
    assert gate.begun == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_a_flood_of_one_sender_takes_no_place_from_another() -> None:
    gate, dropped = Gate(), list[str]()
    lane = Lane[str](
        "test", gate.serve, in_flight=1, waiting=4, max_bytes=100, on_dropped=lambda item, _: dropped.append(item)
    )
    for number in range(4):
        lane.put(f"a{number}", size=1, sender="a")
    with pytest.raises(Overloaded):
        lane.put("a4", size=1, sender="a")
    lane.put("b0", size=1, sender="b")
    lane.put("b1", size=1, sender="b")
    for full in "ab":  # now they have the same
        with pytest.raises(Overloaded):
            lane.put(f"{full}9", size=1, sender=full)
    assert dropped == ["a3", "a2"]
    gate.open.set()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane.run())
        await asyncio.wait_for(lane.drain(), 5)
        task.cancel()
    assert gate.begun == ["a0", "b0", "a1", "b1"]


async def test_a_flood_of_large_items_takes_no_bytes_from_another() -> None:
    gate, dropped = Gate(), list[str]()
    lane = Lane[str](
        "test", gate.serve, in_flight=16, waiting=99, max_bytes=100, on_dropped=lambda item, _: dropped.append(item)
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane.run())
        for number in range(10):
            lane.put(f"a{number}", size=10, sender="a")
        for number in range(5):
            assert await asyncio.wait_for(gate.begins.get(), 5) == f"a{number}"
        assert gate.begun == [f"a{number}" for number in range(5)], "the other half of the bytes waits"
        with pytest.raises(Overloaded):
            lane.put("a10", size=10, sender="a")
        lane.put("b0", size=1, sender="b")
        lane.put("b1", size=15, sender="b")
        assert dropped == ["a9", "a8"]
        with pytest.raises(Overloaded):
            lane.put("b2", size=20, sender="b")
        assert dropped == ["a9", "a8"], "nobody loses anything where it would not be enough"
        gate.open.set()
        await asyncio.wait_for(lane.drain(), 5)
        assert gate.begun == [*(f"a{number}" for number in range(6)), "b0", "a6", "b1", "a7"]
        lane.put("c", size=100, sender="c")
        await asyncio.wait_for(lane.drain(), 5)
        task.cancel()
