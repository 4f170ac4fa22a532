"""Standing orders: requests by reference that repeat until they are stopped; stored, so that they outlive a restart.

Each request is placed anew: where an order runs follows what holds now. While one request of an order is on its way the next is
not asked: a slow device is asked as often as it can answer, and the order says how many it missed. A device that infers by
itself and tells what it found is not asked at all: what it tells is the order's answer.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from gatewayd.core.command import Note
from gatewayd.core.device import Inferred, RunResult
from gatewayd.core.errors import BadRequest, Conflict, GatewayError, NotFound, Overloaded
from gatewayd.core.events import OrderAnswered, OrderEnded, OrderFailed
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId, ModelName, ModelRef, RequestId
from gatewayd.core.record import record
from gatewayd.core.request import InferenceRequest, InferenceResult, Repeats, Target
from gatewayd.core.standing import MAX_ORDERS, MAX_PER_S, Due, Progress, StandingOrder
from gatewayd.services.ports import Clock, Notify, StandingStore
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

# Failures in a row are told at 1, 2, 4, 8 … and then each time this many have come: a device that is away for a night must not
# fill a topic.
_TOLD_EVERY = 1024
# What a device tells sooner than this share of an order's period after the last one is not passed on: an order says how often
# its subscribers want to hear.
_EARLY = 0.5
# Orders that are due at the same moment after a restart are spread over this time.
_SPREAD_S = 1.0


class Inferring(Protocol):
    """The main path."""

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Serve one request. Raises: any GatewayError."""

    async def heard(self, request: InferenceRequest, told: RunResult) -> InferenceResult:
        """Serve one request with what its device told unasked. Raises: any GatewayError."""


class Resolving(Protocol):
    """The registry's part in it."""

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that `ref` names now. Raises: UnknownModel."""


@record
class OrderPorts:
    """What orders need. `clock` is monotonic, `wall_clock` in seconds since 1970; `new_id` names each request."""

    store: StandingStore
    inference: Inferring
    catalog: Resolving
    tracking: Tracking
    notify: Notify
    clock: Clock
    wall_clock: Clock
    new_id: Callable[[], str]


@dataclass(slots=True)
class _Running:
    order: StandingOrder
    due: Due
    progress: Progress = field(default_factory=Progress)
    heard_s: float = -inf
    task: "asyncio.Task[None] | None" = None


class StandingOrders:
    """Keeps the orders and asks for them. `load` before `run`."""

    def __init__(self, ports: OrderPorts) -> None:
        self._ports = ports
        self._orders: dict[str, _Running] = {}
        self._times: list[tuple[float, str, Due]] = []
        self._changed = asyncio.Event()
        # What orders want of each device; made anew when one comes or goes, because every request may ask.
        self._wanted: dict[DeviceId, frozenset[ModelName]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def wanted_on(self, device: DeviceId) -> frozenset[ModelName]:
        """Return the models that orders ask of a device's sensors."""
        found = self._wanted.get(device)
        if found is None:
            orders = (each.order for each in self._orders.values())
            found = frozenset(each.model.name for each in orders if each.source.device == device)
            self._wanted[device] = found
        return found

    async def load(self) -> None:
        """Take up what was ordered before a restart; what ended meanwhile is dropped when its time comes."""
        orders = await self._ports.store.load_orders()
        now_s = self._ports.clock()
        for index, order in enumerate(orders):
            wait_s = min(order.period_s, _SPREAD_S) * index / len(orders)
            self._schedule(_Running(order, Due(now_s + wait_s)))

    def orders(self) -> Sequence[tuple[StandingOrder, Progress]]:
        """Return every order, the oldest first, and how it goes."""
        running = sorted(self._orders.values(), key=lambda each: (each.order.started_at, each.order.id))
        return tuple((each.order, each.progress) for each in running)

    async def start(self, order: StandingOrder, *, note_of: Note[StandingOrder] | None = None) -> StandingOrder:
        """Begin an order; the same wish under the same name again is the order that runs.

        Raises: UnknownModel, UnknownDevice, BadRequest (no such sensor), Conflict (another order has that name), Overloaded.
        """
        known = self._known_wish(order)
        if known is not None:
            return known
        self._check(order)
        self._schedule(_Running(order, Due(self._ports.clock())))
        try:
            await self._ports.store.noting(note_of and note_of(order)).save_order(order)
        except GatewayError:
            self._orders.pop(order.id, None)
            self._wanted.clear()
            raise
        self._changed.set()
        return order

    async def stop(
        self, order_id: str, *, why: str, note_of: Note[tuple[StandingOrder, Progress]] | None = None
    ) -> tuple[StandingOrder, Progress]:
        """End an order; what is on its way is given up. Raises: NotFound."""
        running = self._orders.get(order_id)
        if running is None:
            raise NotFound(f"no standing order {order_id!r}; stream.list shows those that run")
        record = note_of and note_of((running.order, running.progress))
        await self._ports.store.noting(record).drop_order(order_id)
        self._end(running, why)
        return running.order, running.progress

    def about(self, device: DeviceId) -> tuple[str, ...]:
        """Return the names of the orders that are nothing without a device: on its sensors, or pinned to it."""
        orders = (each.order for each in self._orders.values())
        return tuple(each.id for each in orders if device == each.source.device or each.pin == Target(device))

    async def ended_with(self, device: DeviceId, *, why: str, dropped: Collection[str]) -> None:
        """The device was taken out: end what is about it. The rows of `dropped` are gone already."""
        for order_id in self.about(device):
            self._end(self._orders[order_id], why)
            if order_id not in dropped:
                await self._forget(order_id)

    def wake(self) -> None:
        """Look now what is due: the clock has moved."""
        self._changed.set()

    async def run(self) -> None:
        """Ask for whatever is due until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._ask_all(tasks)
            finally:
                self._tasks = None

    def heard(self, event: Inferred) -> None:
        """Take what a device inferred by itself, for the orders on that sensor and model; what no order wants is dropped."""
        tasks, now_s = self._tasks, self._ports.clock()
        for running in tuple(self._orders.values()) if tasks is not None else ():
            order = running.order
            is_idle = running.task is None or running.task.done()
            is_due = now_s - running.heard_s >= order.period_s * _EARLY
            if tasks is not None and is_idle and is_due and self._is_about(order, event):
                running.heard_s = now_s
                running.due = Due(now_s + order.period_s)  # it is asked when it tells nothing for so long
                self._push(running)
                running.task = tasks.create_task(self._asked(running, event.result), name=f"order-{order.id}")

    def _is_about(self, order: StandingOrder, event: Inferred) -> bool:
        if order.source.device != event.device or order.pin not in {None, Target(event.device)}:
            return False
        view = self._ports.tracking.find(event.device)
        if view is None or view.report is None or order.left_s(self._ports.wall_clock()) <= 0.0:
            return False
        try:
            version = self._ports.catalog.resolve(order.model)
        except GatewayError:
            return False
        ran = next((slot for slot in view.report.slots if slot.index == event.slot), None)
        is_model = ran is not None and (ran.model, event.version) == (version.model, version.number)
        sensors = view.report.capabilities.sensors
        return is_model and event.sensor < len(sensors) and sensors[event.sensor].name == order.source.sensor

    async def _ask_all(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            wait_s = self._ask_due(tasks)
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _known_wish(self, order: StandingOrder) -> StandingOrder | None:
        running = self._orders.get(order.id)
        if running is None:
            return None
        if not running.order.is_same_wish(order):
            raise Conflict(f"a standing order {order.id!r} with other terms runs: stop it first, or take another name")
        return running.order

    def _check(self, order: StandingOrder) -> None:
        if len(self._orders) >= MAX_ORDERS:
            raise Overloaded(f"{MAX_ORDERS} standing orders run already: stop one first")
        asked_per_s = sum(each.order.per_s for each in self._orders.values())
        if asked_per_s + order.per_s > MAX_PER_S:
            raise Overloaded(
                f"standing orders ask {asked_per_s:.4g} times a second already; with this one it were more than {MAX_PER_S:g}"
            )
        self._ports.catalog.resolve(order.model)
        view = self._ports.tracking.device(order.source.device)
        if view.report is not None and view.report.capabilities.sensor(order.source.sensor) is None:
            names = ", ".join(each.name for each in view.report.capabilities.sensors) or "none"
            raise BadRequest(f"input: device {view.id} has no sensor {order.source.sensor!r}; it has {names}")

    def _schedule(self, running: _Running) -> None:
        self._orders[running.order.id] = running
        self._wanted.clear()
        self._push(running)

    def _push(self, running: _Running) -> None:
        heapq.heappush(
            self._times, (running.due.at_s(running.order.period_s), running.order.id, running.due)
        )  # the pair of name and time finds entries that are of the past

    def _ask_due(self, tasks: asyncio.TaskGroup) -> float | None:
        """Ask for everything whose time has come; return the seconds until the next, None when nothing waits."""
        while self._times:
            at_s, order_id, due = self._times[0]
            now_s = self._ports.clock()
            running = self._orders.get(order_id)
            if running is None or running.due != due:
                heapq.heappop(self._times)
                continue
            if at_s > now_s:
                return at_s - now_s
            heapq.heappop(self._times)
            if running.order.left_s(self._ports.wall_clock()) <= 0.0:
                self._end(running, "its time is over")
                tasks.create_task(self._forget(order_id), name=f"order-{order_id}-end")
                continue
            self._ask(running, tasks, now_s)
        return None

    def _ask(self, running: _Running, tasks: asyncio.TaskGroup, now_s: float) -> None:
        running.due, missed = running.due.after(now_s, running.order.period_s)
        if running.task is not None and not running.task.done():
            missed += 1
        else:
            running.task = tasks.create_task(self._asked(running), name=f"order-{running.order.id}")
        if missed:
            running.progress = running.progress.after_missing(missed)
        self._push(running)

    async def _asked(self, running: _Running, told: RunResult | None = None) -> None:
        order, ports = running.order, self._ports
        request = InferenceRequest(
            id=RequestId(ports.new_id()),
            model=order.model,
            deadline_s=ports.clock() + order.deadline_s,
            source=order.source,
            pin=order.pin if told is None else Target(order.source.device),
            prefer=order.prefer,
            privacy=order.privacy,
            request_class=order.request_class,
            stream=order.stream,
            repeats=Repeats(order.per_s, order.left_s(ports.wall_clock())),
        )
        try:
            if told is None:
                result = await ports.inference.infer(request)
            else:
                result = await ports.inference.heard(request, told)
        except GatewayError as error:
            if told is not None:  # nobody asked: the order is asked for when its time comes
                logger.debug("result not taken", extra={"fields": {"order": order.id, "reason": str(error)}})
                return
            running.progress = running.progress.after_failure(str(error))
            failing = running.progress.failing
            if failing % _TOLD_EVERY == 0 or failing & (failing - 1) == 0:
                ports.notify(OrderFailed(order, error.code, str(error), failing))
        else:
            running.progress = running.progress.after_answer(result.ran_on, result.measured.total_s)
            ports.notify(OrderAnswered(order, result))

    def _end(self, running: _Running, why: str) -> None:
        self._orders.pop(running.order.id, None)
        self._wanted.clear()
        if running.task is not None:
            running.task.cancel()
        self._ports.notify(OrderEnded(running.order, running.progress, why))

    async def _forget(self, order_id: str) -> None:
        try:
            await self._ports.store.drop_order(order_id)
        except GatewayError as error:  # the row is found again after a restart, and ends then
            logger.warning(
                "a standing order that ended is still stored", extra={"fields": {"id": order_id, "reason": error}}
            )
