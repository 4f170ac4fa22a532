import asyncio

import pytest

from gatewayd.core.errors import BadRequest
from gatewayd.core.events import GatewayEvent, JoiningChanged
from gatewayd.core.names import DeviceId
from gatewayd.services.join_window import MAX_WINDOW_S, JoinWindow, WindowState
from tests.services.world import ManualClock

DOOR, CAM = DeviceId("door-1"), DeviceId("cam-7")


def window() -> tuple[JoinWindow, ManualClock, list[GatewayEvent]]:
    clock, events = ManualClock(), list[GatewayEvent]()
    return JoinWindow(clock=clock, notify=events.append), clock, events


def test_it_is_closed_at_first() -> None:
    door, _, events = window()
    assert (door.admits(DOOR), door.state(), events) == (False, WindowState(0.0, ()), [])


def test_it_lets_in_until_its_time_is_over_and_counts() -> None:
    door, clock, _ = window()
    door.open(10, who="ann")
    assert (door.admits(DOOR), door.admits(DOOR)) == (True, True)
    clock.now_s += 9.9
    assert door.admits(CAM)
    clock.now_s += 0.1
    assert not door.admits(DeviceId("late"))
    assert door.state() == WindowState(0.0, (DOOR, CAM))


def test_a_new_opening_counts_anew_and_one_that_is_prolonged_goes_on() -> None:
    door, _, _ = window()
    door.open(10, who="ann")
    door.admits(DOOR)
    assert door.open(20, who="ann").admitted == (DOOR,)
    door.close(who="ann")
    assert door.open(20, who="ann").admitted == ()


def test_it_is_closed_by_hand() -> None:
    door, _, events = window()
    door.open(10, who="ann")
    door.admits(DOOR)
    door.close(who="bob")
    door.close(who="bob")
    assert not door.admits(CAM)
    assert events == [JoiningChanged("open", 10, 0, "ann"), JoiningChanged("closed", 0.0, 1, "bob")]


@pytest.mark.parametrize("seconds", [0, -1, MAX_WINDOW_S + 1, float("nan"), float("inf")])
def test_nobody_opens_it_for_ever(seconds: float) -> None:
    door, _, _ = window()
    with pytest.raises(BadRequest):
        door.open(seconds, who="ann")


async def test_the_end_of_its_time_is_said() -> None:
    door, clock, events = window()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(door.run())
        door.open(5, who="ann")
        clock.now_s += 5
        while len(events) < 2:  # noqa: ASYNC110 - what is waited for has no event of asyncio's
            await asyncio.sleep(0)
        running.cancel()
    assert events[-1] == JoiningChanged("closed", 0.0, 0, "time")
