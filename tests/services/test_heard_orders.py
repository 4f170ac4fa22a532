"""Standing orders whose device infers by itself: what it tells is their answer, and it is not asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import Inferred, RunResult, Slot, SlotState
from gatewayd.core.events import OrderAnswered, RequestFailed
from gatewayd.core.names import DeviceId, parse_model_ref
from gatewayd.core.request import NODE, Privacy, SensorRef, Target
from gatewayd.core.standing import StandingOrder
from gatewayd.services.standing import OrderPorts, StandingOrders
from tests.services.world import World, world

WALL = 1.7e9
RESULT = RunResult(bytes([3, 2, 1]), 0.004, 60.0, 41, 0.0)
ORDER = StandingOrder(
    "watch", parse_model_ref("kws"), SensorRef(DeviceId("dev-1"), "mic"),
    period_s=10.0, deadline_s=5.0, until=None, who="ann", started_at=WALL, pin=Target(DeviceId("dev-1")),
)  # fmt: skip


@asynccontextmanager
async def ordered(path: Path, order: StandingOrder = ORDER) -> AsyncIterator[tuple[World, StandingOrders]]:
    """An order on a device that runs the model, answered once."""
    async with world(path) as w:
        version = await w.add(labels=("a", "b", "c"))
        held = Slot(0, SlotState.ACTIVE, version.model, version.number, version.variants[0].digest)
        w.device.slots = (held, Slot(1, SlotState.EMPTY))
        await w.join()
        clocks = (w.clock, lambda: WALL + w.clock())
        orders = StandingOrders(
            OrderPorts(w.store, w.inference, w.catalog, w.tracking, w.events.append, *clocks, lambda: "r")
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(orders.run(), name="standing orders")
            await orders.start(order)
            await w.seen(lambda: answers(w) == 1)
            w.clock.now_s += 6.0
            yield w, orders
            running.cancel()


def answers(w: World) -> int:
    return sum(isinstance(event, OrderAnswered) for event in w.events)


def told(w: World, **other: object) -> Inferred:
    return replace(Inferred(w.device.id, 0, 1, 0, RESULT), **other)  # type: ignore[arg-type]  # fields by their names


async def test_what_a_device_tells_is_the_orders_answer_and_it_is_not_asked(tmp_path: Path) -> None:
    async with ordered(tmp_path) as (w, orders):
        assert w.device.asked == 1
        for count in range(2, 6):
            orders.heard(told(w))
            await w.seen(lambda: answers(w) == count)  # noqa: B023 - waited for at once
            w.clock.now_s += 9.0
            orders.wake()
            await w.store.recent(1)
        assert w.device.asked == 1
        answer = next(event for event in reversed(w.events) if isinstance(event, OrderAnswered)).result
        assert (answer.ran_on, answer.sample, answer.label) == (Target(w.device.id), 41, "a")
        assert (answer.measured.compute_s, answer.measured.transfer_s, answer.measured.link_bytes) == (0.004, 0.0, 3)
        w.clock.now_s += 2.0
        orders.wake()  # it tells nothing for a period: it is asked
        await w.seen(lambda: w.device.asked == 2)


@pytest.mark.parametrize(
    "other", [{"sensor": 1}, {"version": 2}, {"slot": 1}, {"slot": 7}, {"device": DeviceId("dev-2")}]
)
async def test_what_no_order_is_about_is_dropped(tmp_path: Path, other: dict[str, object]) -> None:
    async with ordered(tmp_path) as (w, orders):
        orders.heard(told(w, **other))
        await w.store.recent(1)
        assert answers(w) == 1


async def test_what_the_model_does_not_say_is_no_answer(tmp_path: Path) -> None:
    async with ordered(tmp_path) as (w, orders):
        orders.heard(told(w, result=replace(RESULT, output=b"much too long")))
        await w.store.recent(1)
        (_, progress) = orders.orders()[0]
        assert (progress.answered, progress.failed) == (1, 0)
        assert not any(isinstance(event, RequestFailed) for event in w.events)


async def test_an_order_pinned_to_the_node_is_not_answered_by_the_device(tmp_path: Path) -> None:
    async with ordered(tmp_path, replace(ORDER, pin=NODE)) as (w, orders):
        orders.heard(told(w))
        await w.store.recent(1)
        assert answers(w) == 1


async def test_results_come_no_oftener_than_twice_what_was_ordered(tmp_path: Path) -> None:
    async with ordered(tmp_path, replace(ORDER, pin=None, privacy=Privacy.STAY_ON_DEVICE)) as (w, orders):
        for _ in range(20):
            orders.heard(told(w))
            await w.store.recent(1)
            w.clock.now_s += 1.0
        assert answers(w) == 5


async def test_a_device_that_waits_for_approval_answers_nothing(tmp_path: Path) -> None:
    async with ordered(tmp_path) as (w, orders):
        await w.tracking.revoke(w.device.id, who="ann", write=w.store.depart)
        orders.heard(told(w))
        await w.store.recent(1)
        assert answers(w) == 1
