"""Rent or buy: watch what the node serves that a device could serve cheaper, and push when the saving missed would have paid.

What was missed, and when that is enough, is `gatewayd.core.ledger`'s; here its questions meet what happens: requests served,
standing orders, pushes that start and end.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from gatewayd.core.decision import Rent
from gatewayd.core.device import RUNNING, DeviceView, Report
from gatewayd.core.errors import GatewayError
from gatewayd.core.fit import Fitter, fit
from gatewayd.core.ledger import Ledger, LedgerRules, Missed, Order, Pair, PushPrice, Room, Verdict
from gatewayd.core.model import Variant, Version
from gatewayd.core.names import DeviceId, ModelName, ModelRef
from gatewayd.core.placement import RADIO_UJ_PER_BYTE, DeviceFacts, device_costs, node_costs
from gatewayd.core.renting import Balance, hoped, push_cost, push_failure, push_s, with_retries
from gatewayd.core.request import NODE
from gatewayd.core.standing import StandingOrder
from gatewayd.services.inference import Served
from gatewayd.services.ports import Clock
from gatewayd.services.pushes import Pushes

logger = logging.getLogger(__name__)

# Cost of wear per push, in the units of J: a sector endures about 10,000 erases, so one push is worth little but not nothing.
FLASH_WEAR = 5.0
# Standing orders are looked at so often at most: there are up to hundreds, and requests come by the thousand.
_ORDERS_EVERY_S = 5.0
_MAX_STARTED = 1024  # protects memory: pushes of ours whose end was not seen yet

Ordered = dict[tuple[DeviceId, ModelName], StandingOrder]


class Renting:
    """Keeps the ledger and starts the pushes that pay. `served` is cheap and never blocks. `orders` gives the standing ones."""

    def __init__(
        self,
        *,
        pushes: Pushes,
        clock: Clock,
        fitter: Fitter = fit,
        orders: Callable[[], Sequence[StandingOrder]] = tuple,
        wall_clock: Clock = lambda: 0.0,
        rules: LedgerRules | None = None,
    ) -> None:
        self._pushes = pushes
        self._clock = clock
        self._wall_clock = wall_clock
        self._fit = fitter
        self._orders = orders
        self._ledger = Ledger(rules)
        self._ordered: Ordered = {}
        self._ordered_at_s = -inf
        self._started: dict[Pair, PushPrice] = {}
        self._asked: set[Pair] = set()  # those of them that have not been begun yet
        self._wanted: asyncio.Queue[tuple[Pair, Version]] = asyncio.Queue(maxsize=256)

    def balance(self, device: DeviceId, version: Version) -> Balance:
        """Return what is saved up for a pair."""
        return self._ledger.balance((device, version.model, version.number))

    def served(self, served: Served) -> Rent | None:
        """Learn from one answer: only data at a sensor, which the node served, can be served cheaper by its device.

        Returns where the pair stands; None when the request was not about one.
        """
        source, report = served.options.source, None
        if source is not None:
            report = source.view.report
        if source is None or report is None or served.request.pin is not None:
            return None
        facts = replace(served.options.devices[0], queue_s=0.0)  # queues pass: what a push is for outlasts them
        node = replace(served.options.node, queue_s=0.0)
        question = served.options.question
        total = question.weights.total
        pair = (source.view.id, served.version.model, served.version.number)
        is_held = served.options.candidate(0).holding.slot is not None
        self._settle(pair, is_there=is_held)
        node_total, device_total = total(node_costs(node, facts)), total(device_costs(question, facts))
        if is_held:
            saving = 0.0 if served.result.ran_on == NODE else node_total - device_total
            self._ledger.served(pair, saving=saving, now_s=self._clock())
            return None
        if served.result.ran_on != NODE or node.refusal:
            return None
        found = self._fit(served.version, report.capabilities)
        if found.variant is None:
            return self._rent(pair, None, f"does not fit: {'; '.join(found.reasons)}")
        price = self._price(pair, facts, served, found.variant)
        missed = Missed(
            pair,
            node_total,
            device_total,
            total(device_costs(question, hoped(facts))),
            price,
            self._room(report, source.view.id),
        )
        verdict = self._ledger.missed(missed, now_s=self._clock())
        if not verdict.is_push:
            verdict = self._by_order(missed) or verdict
        cost = with_retries(price.cost, self._ledger.balance(pair).failures)
        return self._rent(pair, cost, self._carried_out(verdict, missed, served.version, source.view))

    async def run(self) -> None:
        """Start the pushes that pay until cancelled."""
        while True:
            pair, version = await self._wanted.get()
            device = pair[0]
            try:
                await self._pushes.start(device, ModelRef(version.model, version=version.number), who="placement")
            except GatewayError as error:
                logger.info("push not started device=%s version=%s reason=%r", device, version, str(error))
            finally:
                self._asked.discard(pair)

    def _settle(self, pair: Pair, *, is_there: bool) -> None:
        """Enter how a push of ours ended, once that can be seen."""
        price = self._started.get(pair)
        if price is None:
            return
        is_live = any((each.device, each.model, each.version) == pair for each in self._pushes.live())
        if is_there or not (is_live or pair in self._asked):
            del self._started[pair]
            self._ledger.ended(pair, price, is_there=is_there, now_s=self._clock())

    def _by_order(self, missed: Missed) -> Verdict | None:
        """Decide by a standing order for the pair, if there is one; its first answer has measured the link."""
        now_s = self._clock()
        if now_s - self._ordered_at_s >= _ORDERS_EVERY_S:
            self._ordered_at_s = now_s
            self._ordered = {(each.source.device, each.model.name): each for each in self._orders()}
        order = self._ordered.get(missed.pair[:2])
        if order is None:
            if self._ledger.balance(missed.pair).ordered_until_s is not None:
                self._ledger.order_ended(missed.pair)
            return None
        return self._ledger.ordered(
            Order(
                missed.pair,
                order.per_s,
                now_s + order.left_s(self._wall_clock()),
                max(0.0, missed.node_total - missed.device_total),
                missed.price,
                missed.room,
                is_measured=True,
            ),
            now_s=now_s,
        )

    def _carried_out(self, verdict: Verdict, missed: Missed, version: Version, view: DeviceView) -> str:
        """Start a push when it pays and may be; return where the pair stands."""
        if missed.pair in self._started:
            return "a push pays: it is on its way"
        if not verdict.is_push:
            return f"a push would pay, but: {verdict.reason}" if verdict.reason else "too little yet for a push"
        if verdict.evict is not None:
            return f"a push would pay in the place of {verdict.evict}, which would have to be taken off the device"
        if view.held_off:
            return f"a push would pay, but the device {view.held_off}"
        if self._wanted.full() or len(self._started) >= _MAX_STARTED:
            return "a push would pay, but too many wait already"
        self._started[missed.pair] = missed.price
        self._asked.add(missed.pair)
        self._ledger.started(missed.pair, missed.price, now_s=self._clock())
        self._wanted.put_nowait((missed.pair, version))
        return "a push pays: it is asked for"

    def _rent(self, pair: Pair, price: float | None, state: str) -> Rent:
        balance = self._ledger.balance(pair)
        return Rent(pair[0], balance.saved_missed, balance.requests, price, state)

    def _price(self, pair: Pair, facts: DeviceFacts, served: Served, variant: Variant) -> PushPrice:
        source = served.options.source
        report = source.view.report if source else None
        chunk_bytes = report.capabilities.chunk_bytes if report else 1024
        per_byte_uj = RADIO_UJ_PER_BYTE if facts.on_battery else 0.0
        cost = push_cost(
            size_bytes=variant.size_bytes,
            link=facts.link,
            weights=served.options.question.weights,
            energy_uj_per_byte=per_byte_uj,
            failure=push_failure(self._ledger.balance(pair).failures),
            flash_wear=FLASH_WEAR,
            chunk_bytes=chunk_bytes,
        )
        air_s = push_s(variant.size_bytes, facts.link, chunk_bytes=chunk_bytes)
        return PushPrice(cost, air_s, per_byte_uj * variant.size_bytes)

    def _room(self, report: Report, device: DeviceId) -> Room:
        """One slot is for staging; what a standing order asks for stays."""
        held = tuple(each.model for each in report.slots if each.state in RUNNING and each.model is not None)
        kept = frozenset(model for model in held if (device, model) in self._ordered)
        return Room(max(0, len(report.slots) - 1), held, kept)
