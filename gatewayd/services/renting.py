"""Rent or buy: watch what the node serves that a device could serve cheaper, and push when that pays.

What is decided, and its bounds, is `gatewayd.core.ledger`; here it meets the devices' slots, operators' wishes and the pushes.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from gatewayd.core.decision import Rent
from gatewayd.core.device import RUNNING, Report
from gatewayd.core.errors import GatewayError
from gatewayd.core.fit import Fitter, fit, room_for
from gatewayd.core.kept import Kept
from gatewayd.core.ledger import MAX_PAIRS, WATCHED_S, Ledger, LedgerRules, Missed, Room, Verdict
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId, ModelName, ModelRef
from gatewayd.core.placement import RADIO_UJ_PER_BYTE, device_costs, node_costs
from gatewayd.core.record import record
from gatewayd.core.renting import Balance, Pair, PushPrice, hoped, push_cost, push_failure, push_s
from gatewayd.core.request import NODE
from gatewayd.core.retry import PLACEMENT
from gatewayd.services.candidates import Source
from gatewayd.services.estimates import Estimates
from gatewayd.services.inference import Served
from gatewayd.services.ports import Clock
from gatewayd.services.pushes import Pushes
from gatewayd.services.siblings import Siblings

logger = logging.getLogger(__name__)

# Cost of wear per push, in the units of J: a sector endures about 10,000 erases, so one push is worth little but not nothing.
FLASH_WEAR = 5.0
# A standing order that has not asked for so many periods, when somebody else does, was stopped.
_MISSING = 3.0


@record
class _Totals:
    node: float
    device: float
    hoped: float


class Renting:
    """Enters each answer into the ledger and starts the pushes that pay. `served` is cheap and never blocks."""

    def __init__(
        self,
        *,
        pushes: Pushes,
        estimates: Estimates,
        clock: Clock,
        wall_clock: Clock | None = None,
        fitter: Fitter = fit,
        rules: LedgerRules | None = None,
        ordered: Callable[[DeviceId], frozenset[ModelName]] = lambda _: frozenset(),
        is_unwanted: Callable[[DeviceId, ModelName, int], bool] = lambda *_: False,
        siblings: Siblings | None = None,
    ) -> None:
        """`ordered` returns the models that standing orders want on a device: those give way to better ones only.

        `is_unwanted` tells whether an operator took a version from a device: that one is not brought back unasked.
        `siblings` counts the devices that could be asked for a version (None: each device is alone).
        """
        self._pushes = pushes
        self._estimates = estimates
        self._clock = clock
        self._wall_clock = wall_clock
        self._fit = fitter
        self._ordered = ordered
        self._is_unwanted = is_unwanted
        self._siblings = siblings
        self._horizon_s = (rules or LedgerRules()).terms.horizon_s
        self._ledger = Ledger(rules)
        self._started_s = clock()
        # Pushes that were asked for, and of which it is not known yet how they ended.
        self._pending: OrderedDict[Pair, PushPrice] = OrderedDict()
        self._waiting: set[Pair] = set()
        # When a pair's push was seen to have worked: what was placed before that, and is answered after it, missed nothing.
        self._there_s: OrderedDict[Pair, float] = OrderedDict()
        # When a pair's standing order asked last, and how often it does; there are at most `core.standing.MAX_ORDERS`.
        self._orders: dict[Pair, tuple[float, float]] = {}
        self._wanted: asyncio.Queue[tuple[DeviceId, Version, ModelName | None]] = asyncio.Queue(maxsize=256)

    def balance(self, device: DeviceId, version: Version) -> Balance:
        """Return what is saved up for a pair."""
        return self._ledger.balance((device, version.model, version.number))

    def kept(self) -> Kept:
        """Return what a restart must not lose: balances, budgets, and the pushes that were bought and not yet heard of."""
        orders = tuple((pair, last_s, per_s) for pair, (last_s, per_s) in self._orders.items())
        return replace(self._ledger.kept(), pending=tuple(self._pending.items()), orders=orders)

    def restore(self, kept: Kept) -> None:
        """Take over what was kept before a restart; once, before anything is served."""
        self._ledger.restore(kept)
        self._pending.update(kept.pending[-MAX_PAIRS:])
        self._orders.update({pair: (last_s, per_s) for pair, last_s, per_s in kept.orders[-MAX_PAIRS:]})

    def forget(self, device: DeviceId) -> None:
        """The device was taken out: keep nothing of it, so that it begins anew should it come back."""
        self._ledger.forget_device(device)
        for kept in (self._pending, self._there_s, self._orders):
            for pair in [each for each in kept if each[0] == device]:
                del kept[pair]

    def served(self, served: Served) -> Rent | None:
        """Learn from one answer: only by-reference data that the node served can be served cheaper by its device.

        Returns where the pair stands; None when the request was not about one.
        """
        source = served.options.source
        if source is None or served.request.pin is not None or source.view.report is None:
            return None
        pair = (source.view.id, served.version.model, served.version.number)
        totals, holds = self._totals(served), served.options.candidate(0).holding.slot is not None
        self._settle(pair, is_there=holds)
        self._follow_order(served, pair, self._clock(), saving=max(0.0, totals.node - totals.device))
        if holds:
            saving = totals.node - totals.device if served.result.ran_on != NODE else 0.0
            self._ledger.served(pair, saving=saving, now_s=self._clock(), devices=self._devices(served.version))
            return None
        placed_s = self._clock() - served.result.measured.total_s
        if served.result.ran_on != NODE or placed_s < self._there_s.get(pair, placed_s):
            return None
        return self._missed(served, pair, source.view.report, totals)

    async def run(self) -> None:
        """Start the pushes that pay until cancelled."""
        while True:
            device, version, leaving = await self._wanted.get()
            pair = (device, version.model, version.number)
            try:
                ref = ModelRef(version.model, version=version.number)
                await self._pushes.start(device, ref, who=PLACEMENT, instead_of=leaving)
            except GatewayError as error:
                pairs = {"device": device, "version": version, "reason": str(error)}
                logger.info("push not started", extra={"fields": pairs})
                self._end(pair, is_there=False)
            finally:
                self._waiting.discard(pair)

    def _missed(self, served: Served, pair: Pair, report: Report, totals: _Totals) -> Rent:
        found = self._fit(served.version, report.capabilities)
        if found.variant is None:
            balance = self._ledger.balance(pair)
            reason = f"does not fit: {'; '.join(found.reasons)}"
            return Rent(pair[0], balance.saved_missed, balance.requests, None, reason)
        price = self._price(served, pair, found.variant.size_bytes, report.capabilities.chunk_bytes)
        full, now_s = room_for(report.slots, served.version.model, one_slot=self._has_one_slot(pair[0])), self._clock()
        room = self._room(report, pair)
        verdict = self._decided(served, pair, totals, price, room, now_s=now_s)
        balance = self._ledger.balance(pair)
        state = self._asked(served, pair, price, verdict, full=full)
        return Rent(pair[0], balance.saved_missed, balance.requests, price.cost, state)

    def _decided(
        self, served: Served, pair: Pair, totals: _Totals, price: PushPrice, room: Room, *, now_s: float
    ) -> Verdict:
        missed = Missed(
            pair,
            totals.node,
            totals.device,
            totals.hoped,
            price,
            room,
            since_s=self._since_s(pair[0], now_s),
            born_s=self._born_s(served.version, now_s),
            devices=self._devices(served.version),
        )
        return self._ledger.missed(missed, now_s=now_s)

    def _since_s(self, device: DeviceId, now_s: float) -> float | None:
        """Return from when on silence counts, the device being there to be asked; None when that is too short to tell anything.

        A short time is no sign of a high rate. And the daemon may run for months: silence longer than the horizon says no more
        than the horizon itself.
        """
        there_s = self._siblings.since_s(device) if self._siblings is not None else None
        since_s = max(self._started_s, self._started_s if there_s is None else there_s)
        return max(since_s, now_s - self._horizon_s) if now_s - since_s >= WATCHED_S else None

    def _devices(self, version: Version) -> int:
        """Return how many devices could be asked for a version now, the one that was among them."""
        return 1 if self._siblings is None else max(1, self._siblings.count(version))

    def _born_s(self, version: Version, now_s: float) -> float | None:
        """Return when the version was admitted, by the steady clock; a wall clock that was set back makes that now."""
        return None if self._wall_clock is None else now_s - max(0.0, self._wall_clock() - version.created_at)

    def _follow_order(self, served: Served, pair: Pair, now_s: float, *, saving: float) -> None:
        """Tell the ledger of a standing order at its first answer, and when its requests have stopped coming."""
        repeats, last = served.request.repeats, self._orders.get(pair)
        if repeats is not None and repeats.per_s > 0.0:
            self._orders[pair] = (now_s, repeats.per_s)
            if last is None or last[1] != repeats.per_s:
                self._ledger.expect(pair, per_s=repeats.per_s, until_s=now_s + repeats.left_s, saving=saving)
        elif last is not None and now_s - last[0] > _MISSING / last[1]:
            del self._orders[pair]
            self._ledger.order_ended(pair)

    def _asked(self, served: Served, pair: Pair, price: PushPrice, verdict: Verdict, *, full: str) -> str:
        """Ask for the push when it pays and may be; return where the pair stands."""
        if not verdict.is_push and not verdict.reason:
            return "the rent paid is below the price of a push"
        version = served.version
        if self._is_unwanted(pair[0], version.model, version.number):
            return f"a push would pay, but an operator dropped {version} there: push it, or a newer version, to have it back"
        if (
            obstacle := self._in_the_way(served, pair, full=full)
            or verdict.reason
            or self._obstacle(served, pair, verdict, full=full)
        ):
            return f"a push would pay, but {obstacle}"
        self._ledger.started(pair, price, now_s=self._clock())
        self._pending[pair] = price
        if len(self._pending) > MAX_PAIRS:
            self._pending.popitem(last=False)
        self._waiting.add(pair)
        self._wanted.put_nowait((pair[0], served.version, verdict.evict))
        way = f"; {verdict.evict} gives way once it is accepted" if verdict.evict is not None else ""
        return f"a push pays: it is asked for{way}"

    def _in_the_way(self, served: Served, pair: Pair, *, full: str) -> str:
        """Return what stands in the way of any push of the pair, however much rent was paid; "" for nothing."""
        if pair in self._pending or self._is_under_way(pair):
            return "one is on its way"
        if full and not _drops_models(served.options.source):
            return f"the device lets no model give way, and one would have to go: {full}"
        return ""

    def _obstacle(self, served: Served, pair: Pair, verdict: Verdict, *, full: str) -> str:
        """Return what stands in the way of a push that is decided on, "" for nothing."""
        source = served.options.source
        if source is not None and source.view.held_off:
            return f"the device {source.view.held_off}"
        if full and verdict.evict is None:
            return f"there is no room: {full}"
        if any(push.device == pair[0] for push in self._pushes.live()):
            return "the device is being pushed to: another push would end that one"
        return "too many wait already" if self._wanted.full() else ""

    def _settle(self, pair: Pair, *, is_there: bool) -> None:
        """Enter how a push ended, once that is seen: the device holds the model, or the push is gone without that."""
        if pair not in self._pending or (not is_there and self._is_under_way(pair)):
            return
        self._end(pair, is_there=is_there)

    def _end(self, pair: Pair, *, is_there: bool) -> None:
        price = self._pending.pop(pair, None)
        if price is not None:
            if is_there:
                self._there_s[pair] = self._clock()
                if len(self._there_s) > MAX_PAIRS:
                    self._there_s.popitem(last=False)
            self._ledger.ended(pair, price, is_there=is_there, now_s=self._clock())

    def _is_under_way(self, pair: Pair) -> bool:
        live = ((push.device, push.model, push.version) for push in self._pushes.live())
        return pair in self._waiting or pair in live

    def _price(self, served: Served, pair: Pair, size_bytes: int, chunk_bytes: int) -> PushPrice:
        facts, weights = served.options.devices[0], served.options.question.weights
        link = self._estimates.link(facts.device)
        per_byte_uj = RADIO_UJ_PER_BYTE if facts.on_battery else 0.0
        cost = push_cost(
            size_bytes=size_bytes,
            link=link,
            weights=weights,
            energy_uj_per_byte=per_byte_uj,
            failure=push_failure(self._ledger.balance(pair).failures),
            flash_wear=FLASH_WEAR,
            chunk_bytes=chunk_bytes,
        )
        return PushPrice(cost, push_s(size_bytes, link, chunk_bytes=chunk_bytes), per_byte_uj * size_bytes)

    def _totals(self, served: Served) -> _Totals:
        """Return what node, device, and the device at its best are expected to cost, in J; queues pass, and are left out.

        The link is as this answer showed it: before a device's first answer it was a guess by its kind.
        """
        question, total = served.options.question, served.options.question.weights.total
        link = self._estimates.link(served.options.devices[0].device)
        node, facts = (
            replace(served.options.node, queue_s=0.0),
            replace(served.options.devices[0], queue_s=0.0, link=link),
        )
        return _Totals(
            total(node_costs(node, facts)),
            total(device_costs(question, facts)),
            total(device_costs(question, hoped(facts))),
        )

    def _room(self, report: Report, pair: Pair) -> Room:
        """Return how many models the device holds beside the slot for staging, which, and which are others' wishes."""
        held = {slot.model for slot in report.slots if slot.state in RUNNING and slot.model is not None}
        pinned = frozenset(each.model for each in self._pushes.desired(pair[0]) if each.who != PLACEMENT)
        most = max(1, len(report.slots) - 1)
        return Room(most, tuple(sorted(held)), pinned, self._ordered(pair[0]))

    def _has_one_slot(self, device: DeviceId) -> bool:
        return self._pushes.terms(device).one_slot


def _drops_models(source: Source | None) -> bool:
    report = source.view.report if source is not None else None
    return report is not None and report.capabilities.drops_models
