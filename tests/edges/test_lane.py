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
