import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.device import RunResult
from gatewayd.core.errors import BadRequest, Conflict, NotFound, Overloaded, UnknownDevice, UnknownModel
from gatewayd.core.events import OrderAnswered, OrderEnded, OrderFailed
from gatewayd.core.names import DeviceId, parse_model_ref
from gatewayd.core.request import NODE, InferenceRequest, InferenceResult, SensorRef
from gatewayd.core.standing import MAX_ORDERS, StandingOrder
from gatewayd.services.standing import Inferring, OrderPorts, StandingOrders
from tests.services.world import World, world

WALL = 1.7e9


def _order(w: World, **other: object) -> StandingOrder:
    order = StandingOrder(
        "watch", parse_model_ref("kws"), SensorRef(w.device.id, "mic"),
        period_s=10.0, deadline_s=5.0, until=None, who="ann", started_at=WALL,
    )  # fmt: skip
    return replace(order, **other)  # type: ignore[arg-type]  # a test names fields that there are


class _Stuck:
    """Never answers."""

    asked = 0

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError(request)

    async def heard(self, request: InferenceRequest, told: RunResult) -> InferenceResult:
        raise AssertionError((request, told))


def _orders(w: World, inference: Inferring | None = None) -> StandingOrders:
    ports = OrderPorts(
        w.store,
        inference or w.inference,
        w.catalog,
        w.tracking,
        w.events.append,
        w.clock,
        lambda: WALL + w.clock(),
        lambda: "r",
    )
    return StandingOrders(ports)


@asynccontextmanager
async def _running(orders: StandingOrders) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(orders.run(), name="standing orders")
        yield
        task.cancel()


def _told(w: World, kind: type) -> int:
    return sum(isinstance(event, kind) for event in w.events)


async def _passes(w: World, orders: StandingOrders, seconds: float) -> None:
    w.clock.now_s += seconds
    orders.wake()


async def test_an_order_is_asked_each_period_and_placed_anew_each_time(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        orders = _orders(w)
        async with _running(orders):
            await orders.start(_order(w))
            await w.seen(lambda: _told(w, OrderAnswered) == 1)
            await _passes(w, orders, 9.0)
            await w.store.recent(1)
            assert _told(w, OrderAnswered) == 1
            await _passes(w, orders, 1.0)
            await w.seen(lambda: _told(w, OrderAnswered) == 2)
        ((order, progress),) = orders.orders()
        assert (order.id, progress.answered, progress.missed, progress.ran_on) == ("watch", 2, 0, NODE)
        request = w.served[-1].request
        assert request.repeats is not None
        assert (request.repeats.per_s, request.repeats.left_s) == (0.1, float("inf"))


async def test_orders_outlive_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        await _orders(w).start(_order(w, topic="reply/x", qos=1))
    async with world(tmp_path) as w:
        await w.join()
        orders = _orders(w)
        await orders.load()
        assert [order for order, _ in orders.orders()] == [_order(w, topic="reply/x", qos=1)]
        async with _running(orders):
            await w.seen(lambda: _told(w, OrderAnswered) == 1)
        await orders.stop("watch", why="enough")
    async with world(tmp_path) as w:
        assert await w.store.load_orders() == ()


async def test_the_same_order_again_is_the_one_that_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        orders = _orders(w)
        first = await orders.start(_order(w))
        assert await orders.start(_order(w, who="bob", started_at=1.0)) is first
        with pytest.raises(Conflict, match="'watch' with other terms runs"):
            await orders.start(_order(w, period_s=20.0))
        assert len(orders.orders()) == 1


async def test_what_cannot_be_ordered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        orders = _orders(w)
        with pytest.raises(UnknownModel):
            await orders.start(_order(w, model=parse_model_ref("nope")))
        with pytest.raises(UnknownDevice):
            await orders.start(_order(w, source=SensorRef(DeviceId("nobody"), "mic")))
        with pytest.raises(BadRequest, match="has no sensor 'eye'; it has mic"):
            await orders.start(_order(w, source=SensorRef(w.device.id, "eye")))
        with pytest.raises(NotFound, match=r"stream\.list"):
            await orders.stop("watch", why="")
        for number in range(MAX_ORDERS):
            await orders.start(_order(w, id=f"o-{number}"))
        with pytest.raises(Overloaded, match="256 standing orders"):
            await orders.start(_order(w))


async def test_all_orders_together_are_bounded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        orders = _orders(w)
        for number in range(10):
            await orders.start(_order(w, id=f"o-{number}", period_s=0.02))
        with pytest.raises(Overloaded, match="500 times a second already"):
            await orders.start(_order(w))


async def test_a_device_that_is_away_is_told_less_and_less_often(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        orders = _orders(w)
        w.device.leave()
        async with _running(orders):
            await orders.start(_order(w))
            for count in range(1, 10):
                await w.seen(lambda: orders.orders()[0][1].failed == count)  # noqa: B023 - waited for at once
                await _passes(w, orders, 10.0)
            await w.seen(lambda: orders.orders()[0][1].failed == 10)
            assert [event.failing for event in w.events if isinstance(event, OrderFailed)] == [1, 2, 4, 8]
            w.device.birth()
            await _passes(w, orders, 10.0)
            await w.seen(lambda: _told(w, OrderAnswered) == 1)
        (_, progress) = orders.orders()[0]
        assert (progress.failing, progress.failure) == (0, "")


async def test_what_is_still_on_its_way_is_not_asked_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        stuck = _Stuck()
        orders = _orders(w, stuck)
        async with _running(orders):
            await orders.start(_order(w, deadline_s=1000.0))
            await w.seen(lambda: stuck.asked == 1)
            await _passes(w, orders, 35.0)
            await w.seen(lambda: orders.orders()[0][1].missed == 3)
            assert stuck.asked == 1
            await orders.stop("watch", why="enough")
        assert [event.why for event in w.events if isinstance(event, OrderEnded)] == ["enough"]


async def test_an_order_ends_when_its_time_is_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        await w.join()
        orders = _orders(w)
        async with _running(orders):
            await orders.start(_order(w, until=WALL + w.clock() + 15.0))
            await w.seen(lambda: _told(w, OrderAnswered) == 1)
            await _passes(w, orders, 20.0)
            await w.seen(lambda: _told(w, OrderEnded) == 1)
            assert orders.orders() == ()
            while await w.store.load_orders():
                pass
