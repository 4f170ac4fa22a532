"""Whose turn it is, and the errands of a device that is asked for inferences without a pause."""

import asyncio

from gatewayd.core.errors import Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.errands import MAX_WAITING, Errands
from gatewayd.links.lwm2m.turns import MOST_PASSED, Turns, Urgency

TRIAL, INFERENCE, CONTROL, TRANSFER = Urgency


def _taken(turns: Turns[str], count: int) -> list[str]:
    return [turns.take() or "" for _ in range(count)]


def test_what_waits_is_passed_over_so_often_and_no_more() -> None:
    turns = Turns[str](100, lambda _: True)
    for kind, name in ((TRANSFER, "block"), (CONTROL, "look"), (INFERENCE, "run")):
        for _ in range(4 * MOST_PASSED):
            turns.put(name, kind)
    rounds = ["look", "block", *["run"] * (MOST_PASSED - 1)]
    assert _taken(turns, MOST_PASSED) == ["run"] * MOST_PASSED
    assert _taken(turns, 3 * len(rounds)) == rounds * 3


def test_a_trial_goes_first_and_lets_the_others_in_between() -> None:
    turns = Turns[str](100, lambda _: True)
    for kind, name in ((INFERENCE, "run"), (TRIAL, "trial")):
        for _ in range(2 * MOST_PASSED):
            turns.put(name, kind)
    assert _taken(turns, 2 * (MOST_PASSED + 1)) == [*["trial"] * MOST_PASSED, "run"] * 2


def test_alone_each_kind_is_served_as_it_came() -> None:
    turns = Turns[str](100, lambda _: True)
    for name in ("a", "b", "c"):
        turns.put(name, TRANSFER)
    turns.put("run", INFERENCE)
    assert _taken(turns, 5) == ["run", "a", "b", "c", ""]


def test_what_nobody_waits_for_takes_no_turn_and_no_room() -> None:
    gone: set[str] = set()
    turns = Turns[str](3, lambda name: name not in gone)
    assert all(turns.put(name, INFERENCE) for name in ("a", "b", "c"))
    assert not turns.put("look", CONTROL)
    gone |= {"a", "b"}
    assert turns.put("look", CONTROL)
    assert turns.put("d", INFERENCE)
    assert not turns.put("e", INFERENCE)
    assert _taken(turns, 4) == ["c", "d", "look", ""]


async def test_an_errand_for_a_push_is_done_while_inferences_never_cease() -> None:
    order: list[str] = []
    is_busy = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        errands = Errands(DeviceId("dev-1"), lambda work, name: tasks.create_task(work, name=name))

        async def ask() -> None:
            async def run() -> None:
                order.append("run")

            while "look" not in order:
                await errands.do(run, timeout_s=10)
                is_busy.set()

        async def look() -> None:
            order.append("look")

        for number in range(8):
            tasks.create_task(ask(), name=f"client {number}")
        await is_busy.wait()
        begun = len(order)
        await errands.do(look, timeout_s=10, urgency=CONTROL)
    assert order.index("look") - begun <= MOST_PASSED + 1


async def test_errands_that_were_given_up_leave_room() -> None:
    done, refused = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        errands = Errands(DeviceId("dev-1"), lambda work, name: tasks.create_task(work, name=name))

        async def ask() -> None:
            try:
                await errands.do(done.wait, timeout_s=10)
            except Overloaded:
                refused.set()

        asked = [tasks.create_task(ask(), name=f"asks {each}") for each in range(MAX_WAITING + 1)]
        await refused.wait()
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        done.set()
        assert await errands.do(done.wait, timeout_s=10, urgency=CONTROL)
