import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayd.core.errors import Overloaded
from gatewayd.edges.subject_lane import SubjectLane

PATIENCE_S = 5.0


class Stage:
    """Items begin when the lane says so and end when the test does."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.gates: dict[str, asyncio.Event] = {}

    async def serve(self, item: str) -> None:
        self.gates[item] = asyncio.Event()
        self.begun.put_nowait(item)
        await self.gates[item].wait()

    async def begins(self) -> str:
        return await asyncio.wait_for(self.begun.get(), PATIENCE_S)


@asynccontextmanager
async def running(*, in_flight: int = 3, waiting: int = 4) -> AsyncIterator[tuple[SubjectLane[str], Stage]]:
    stage = Stage()
    lane = SubjectLane[str]("test", stage.serve, in_flight=in_flight, waiting=waiting, max_bytes=100)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lane.run())
        yield lane, stage
        task.cancel()


def put(lane: SubjectLane[str], item: str, *subjects: str) -> None:
    lane.put(item, size=1, subjects=frozenset(subjects))


async def test_items_about_one_subject_run_in_order_and_others_beside_them() -> None:
    async with running() as (lane, stage):
        put(lane, "a1", "a")
        put(lane, "a2", "a")
        put(lane, "b1", "b")
        assert [await stage.begins(), await stage.begins()] == ["a1", "b1"]
        stage.gates["a1"].set()
        assert await stage.begins() == "a2"


async def test_an_item_about_two_subjects_waits_for_both_and_is_not_overtaken() -> None:
    async with running() as (lane, stage):
        put(lane, "a1", "a")
        put(lane, "ab", "a", "b")
        put(lane, "b1", "b")
        put(lane, "free")
        assert [await stage.begins(), await stage.begins()] == ["a1", "free"]
        stage.gates["a1"].set()
        assert await stage.begins() == "ab"
        stage.gates["ab"].set()
        assert await stage.begins() == "b1"


async def test_no_more_run_than_allowed_and_no_more_wait() -> None:
    async with running(in_flight=1, waiting=1) as (lane, stage):
        put(lane, "1")
        put(lane, "2")
        with pytest.raises(Overloaded, match="2 test requests"):
            put(lane, "3")
        assert await stage.begins() == "1"
        stage.gates["1"].set()
        assert await stage.begins() == "2"


async def test_bytes_are_bounded_too() -> None:
    async with running() as (lane, _):
        lane.put("big", size=1000)  # alone, anything is taken
        with pytest.raises(Overloaded, match="1000 bytes"):
            lane.put("small", size=1)


async def test_draining_waits_for_all() -> None:
    async with running() as (lane, stage):
        await lane.drain()
        put(lane, "1")
        drained = asyncio.get_running_loop().create_future()

        async def drain() -> None:
            await lane.drain()
            drained.set_result(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(drain())
            assert await stage.begins() == "1"
            assert not drained.done()
            stage.gates["1"].set()
