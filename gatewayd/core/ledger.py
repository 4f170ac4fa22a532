"""The book of rent and buy: for every (device, model) what was missed, what a push would cost, and when to push what.

Holds state but no clock, no input and no output: the daemon (`services.renting`) and the simulator bring what happened and
carry out what it says. Every call is O(models on one device); all state is bounded.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from types import MappingProxyType

from gatewayd.core.budget import Allowance, Budget, can_spend, spent, wait_s
from gatewayd.core.eviction import Earning, Newcomer, Resident, admit
from gatewayd.core.fleet import Fleet
from gatewayd.core.kept import Kept, KeptDevice
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.rates import ALONE, NEVER_ASKED, Prior, Rate
from gatewayd.core.record import record
from gatewayd.core.renting import (
    Balance,
    Pair,
    PushPrice,
    RentTerms,
    after_node_request,
    break_even_s,
    is_due,
    left_s,
    with_retries,
)

# Protects memory at well under 2 KB a pair: the least recently asked pair starts anew at zero.
MAX_PAIRS = 20_000
# After a push that could not start or failed, its pair waits this long: a device that refuses is not asked at every request.
RETRY_S = 60.0
# From so long after its start on a gateway takes the silence before a pair's first request for what it is; before that the short
# time since its start is no sign of a high rate.
WATCHED_S = 3600.0
_NO_FLEET = Fleet()
# A model takes another's slot only when nineteen of twenty such rates would be so different.
_SURE_Z = 1.64
_MEMORY = 20.0  # requests over which the saving of a model that is there is averaged


@record
class Room:
    """The device's slots: how many models it can hold, which it holds, which of those stay, and which standing orders ask for."""

    slots: int
    held: tuple[ModelName, ...]
    kept: frozenset[ModelName] = frozenset()
    ordered: frozenset[ModelName] = frozenset()


@record
class Missed:
    """A request that the node served although its device could have, with the model: totals in J, as `Weights.total` gives.

    `since_s` is from when on the pair could be asked, and `born_s` when the version came (None: from this request on).
    `devices` are those that could be asked for the model now, this one among them.
    """

    pair: Pair
    node_total: float
    device_total: float
    hoped_total: float
    price: PushPrice
    room: Room
    since_s: float | None = None
    born_s: float | None = None
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Order:
    """A standing order for a model on a device: `per_s` requests a second until `until_s` (inf: no end).

    `saving` and `price` are what is expected of each request and of the push, from estimates that may be priors still.
    """

    pair: Pair
    per_s: float
    until_s: float
    saving: float
    price: PushPrice
    room: Room
    is_measured: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to push now. `evict` leaves the device first (None: there is room); `reason` says why not, once it is due."""

    is_push: bool
    evict: ModelName | None = None
    reason: str = ""


NOT_DUE = Verdict(is_push=False)


@dataclass(frozen=True, slots=True)
class LedgerRules:
    """How far predictions are trusted, and what pushes may spend on one device."""

    terms: RentTerms = RentTerms()  # noqa: RUF009 - a frozen value
    air: Allowance = Allowance()  # noqa: RUF009 - a frozen value
    energy: Allowance = Allowance()  # noqa: RUF009 - a frozen value


@dataclass(slots=True)
class _Device:
    residents: dict[ModelName, Resident] = field(default_factory=dict)
    air: Budget | None = None
    energy: Budget | None = None


class Ledger:
    """Every balance, what the devices' models have earned, and what pushes have spent. Not shared between threads."""

    def __init__(self, rules: LedgerRules | None = None) -> None:
        self._rules = rules or LedgerRules()
        self._balances: OrderedDict[Pair, Balance] = OrderedDict()
        self._not_before_s: dict[Pair, float] = {}
        self._devices: OrderedDict[DeviceId, _Device] = OrderedDict()
        self._pool: dict[ModelName, Fleet] = {}

    def balance(self, pair: Pair) -> Balance:
        """Return what is saved up for a pair."""
        return self._balances.get(pair, Balance())

    def residents(self, device: DeviceId) -> Mapping[ModelName, Resident]:
        """Return the models believed on a device, with their credits."""
        known = self._devices.get(device)
        return MappingProxyType(known.residents if known is not None else {})

    def missed(self, missed: Missed, *, now_s: float) -> Verdict:
        """Enter a request that the node served although the device could have; say whether that was enough for a push."""
        self._end_order(missed.pair, now_s)
        before = self._known(missed.pair, missed.since_s)
        if before.born_s is None:
            before = replace(before, born_s=now_s if missed.born_s is None else missed.born_s)
        fleet = self._fleet(missed.pair[1], now_s, devices=missed.devices, since_s=missed.since_s)
        prior = fleet.prior(before.rate, now_s)
        balance = after_node_request(
            before,
            node_total=missed.node_total,
            device_total=missed.device_total,
            hoped_total=missed.hoped_total,
            now_s=now_s,
            prior=prior,
        )
        fleet = self._pooled(missed.pair, fleet, before.rate, now_s, opens=before.rate.opens(now_s, prior))
        self._keep(missed.pair, balance)
        cost = with_retries(missed.price.cost, balance.failures)
        if not is_due(balance, cost, self._rules.terms, now_s=now_s, prior=fleet.prior(balance.rate, now_s)):
            return NOT_DUE
        return self._admitted(missed.pair, missed.price, missed.room, cost=cost, now_s=now_s)

    def ordered(self, order: Order, *, now_s: float) -> Verdict:
        """Take a standing order, whose rate is known, and decide at once; if nothing was measured yet, at its first answer."""
        self.expect(order.pair, per_s=order.per_s, until_s=order.until_s, saving=order.saving)
        balance = self.balance(order.pair)
        cost = with_retries(order.price.cost, balance.failures)
        if not order.is_measured or not is_due(balance, cost, self._rules.terms, now_s=now_s):
            return NOT_DUE
        return self._admitted(order.pair, order.price, order.room, cost=cost, now_s=now_s)

    def expect(self, pair: Pair, *, per_s: float, until_s: float, saving: float) -> None:
        """Enter a standing order without deciding: the next request that the node serves does."""
        balance = self.balance(pair)
        rate = balance.rate.with_order(per_s)
        self._keep(pair, replace(balance, rate=rate, ordered_until_s=until_s, saving=max(0.0, saving)))

    def order_ended(self, pair: Pair) -> None:
        """Enter that a standing order was taken back, or is over: only what came counts."""
        balance = self.balance(pair)
        self._keep(pair, replace(balance, rate=balance.rate.with_order(0.0), ordered_until_s=None))

    def is_ordered(self, pair: Pair, *, now_s: float) -> bool:
        """Return whether a standing order asks for a pair now."""
        until_s = self.balance(pair).ordered_until_s
        return until_s is not None and now_s <= until_s

    def served(self, pair: Pair, *, saving: float, now_s: float, devices: int | None = None) -> None:
        """Enter a request for a model that its device holds; `saving` is against the node (0: the node ran it).

        `devices` are those that could be asked for the model (None: as many as at the last request).
        However the model came there, nothing is missed any more: rent that was saved up before must not pay for another push.
        """
        self._end_order(pair, now_s)
        balance = self._known(pair)
        requests, saving = balance.requests + 1, max(0.0, saving) if isfinite(saving) else 0.0
        kept = balance.saving + (saving - balance.saving) / min(requests, _MEMORY)
        fleet = self._fleet(pair[1], now_s, devices=devices)
        prior = fleet.prior(balance.rate, now_s)
        rate = balance.rate.asked(now_s, prior)
        self._pooled(pair, fleet, balance.rate, now_s, opens=balance.rate.opens(now_s, prior))
        balance = replace(balance, saved_missed=0.0, requests=requests, hoped_missed=0.0, saving=kept, rate=rate)
        self._keep(pair, balance)
        known = self._devices.get(pair[0])
        if known is not None and (there := known.residents.get(pair[1])) is not None:
            earns = self._earning(pair, balance, now_s)
            known.residents[pair[1]] = replace(there.after_hit(saving, now_s=now_s), earns=earns, version=pair[2])

    def started(self, pair: Pair, price: PushPrice, *, now_s: float) -> None:
        """Enter that a push was started: it spends air and energy whatever becomes of it."""
        device = self._device(pair[0])
        device.air = spent(device.air, price.air_s, self._rules.air, now_s=now_s)
        device.energy = spent(device.energy, price.energy_uj, self._rules.energy, now_s=now_s)
        self._not_before_s[pair] = now_s + RETRY_S

    def ended(self, pair: Pair, price: PushPrice, *, is_there: bool, now_s: float) -> None:
        """Enter how a push ended; one that failed makes the next one riskier and dearer."""
        balance = self.balance(pair)
        if not is_there:
            self._keep(pair, balance.after_failed_push())
            self._not_before_s[pair] = now_s + RETRY_S
            return
        earns = self._earning(pair, balance, now_s)
        per_s = balance.rate.per_s(now_s, self._prior(pair, balance, now_s)) * balance.saving
        paid_s = break_even_s(price.cost, saving_per_s=per_s, most_s=self._rules.terms.horizon_s)
        there = Resident(
            pair[1],
            price.cost,
            price.cost,
            paid_at_s=now_s + paid_s,
            expected=earns,
            earns=earns,
            used_s=now_s,
            version=pair[2],
        )
        self._device(pair[0]).residents[pair[1]] = there
        self._keep(pair, replace(balance.after_push(), saving=balance.saving))

    def left(self, device: DeviceId, model: ModelName) -> None:
        """Enter that a model left the device."""
        if (known := self._devices.get(device)) is not None:
            known.residents.pop(model, None)

    def forget_device(self, device: DeviceId) -> None:
        """Drop what is known of a device that is gone for good."""
        self._devices.pop(device, None)
        for kept in (self._balances, self._not_before_s):
            for pair in [each for each in kept if each[0] == device]:
                del kept[pair]

    def kept(self) -> Kept:
        """Return what a restart must not lose."""
        devices = (
            KeptDevice(device, tuple(each.residents.values()), each.air, each.energy)
            for device, each in self._devices.items()
        )
        balances, not_before = tuple(self._balances.items()), tuple(self._not_before_s.items())
        return Kept(balances, not_before, tuple(devices), tuple(self._pool.items()))

    def restore(self, kept: Kept) -> None:
        """Take over what was kept, as far as there is room; its times are of this clock (`Kept.moved`)."""
        self._balances.update(kept.pairs[-MAX_PAIRS:])
        self._not_before_s.update((pair, at_s) for pair, at_s in kept.not_before if pair in self._balances)
        for there in kept.devices[-MAX_PAIRS:]:
            residents = {each.model: each for each in there.residents}
            self._devices[there.device] = _Device(residents, air=there.air, energy=there.energy)
        self._pool.update(kept.pool[-MAX_PAIRS:])

    def _admitted(self, pair: Pair, price: PushPrice, room: Room, *, cost: float, now_s: float) -> Verdict:
        if now_s < self._not_before_s.get(pair, now_s):
            return Verdict(is_push=False, reason="its last push began less than a minute ago")
        if reason := self._unaffordable(pair[0], price, now_s):
            return Verdict(is_push=False, reason=reason)
        device = self._device(pair[0])
        self._align(device, room, price=cost, now_s=now_s)
        balance, terms = self.balance(pair), self._rules.terms
        left = left_s(balance, terms, now_s=now_s) if terms.robustness < 1.0 else 0.0  # 1: nothing is predicted
        paid = max(balance.saved_missed, balance.hoped_missed)
        is_ordered = balance.ordered_until_s is not None
        newcomer = Newcomer(pair[1], cost, self._earning(pair, balance, now_s), paid, left, is_ordered)
        others = [self._as_of(now_s, each, pair[0]) for each in device.residents.values() if each.model != pair[1]]
        admission = admit(newcomer, others, slots=room.slots, now_s=now_s)
        # Who is to leave stays in the book until it has left: the push may fail, or not be had.
        device.residents |= {each.model: each for each in admission.residents}
        if not admission.is_admitted and admission.is_settled:
            self._keep(pair, replace(balance, saved_missed=0.0, hoped_missed=0.0))
        return Verdict(admission.is_admitted, admission.evict, admission.reason)

    def _as_of(self, now_s: float, resident: Resident, device: DeviceId) -> Resident:
        """Return it with what it earns by now: a model that is not asked any more earns less the longer that lasts."""
        pair = (device, resident.model, resident.version)
        self._end_order(pair, now_s)
        balance = self._balances.get(pair)
        return resident if balance is None else replace(resident, earns=self._earning(pair, balance, now_s))

    def _end_order(self, pair: Pair, now_s: float) -> None:
        known = self._balances.get(pair)
        if known is not None and known.ordered_until_s is not None and now_s > known.ordered_until_s:
            self.order_ended(pair)

    def _unaffordable(self, device: DeviceId, price: PushPrice, now_s: float) -> str:
        known, rules = self._device(device), self._rules
        if not can_spend(known.air, price.air_s, rules.air, now_s=now_s):
            return f"airtime budget spent: due in {wait_s(known.air, price.air_s, rules.air, now_s=now_s):,.0f} s"
        if not can_spend(known.energy, price.energy_uj, rules.energy, now_s=now_s):
            return f"battery budget spent: due in {wait_s(known.energy, price.energy_uj, rules.energy, now_s=now_s):,.0f} s"
        return ""

    def _align(self, device: _Device, room: Room, *, price: float, now_s: float) -> None:
        """Believe the device about what it holds; a model that nobody pushed here counts as one that was just pushed."""
        held = {name: device.residents.get(name) or Resident(name, price, price, used_s=now_s) for name in room.held}
        device.residents = {
            name: replace(each, is_kept=name in room.kept, is_ordered=name in room.ordered)
            for name, each in held.items()
        }

    def _earning(self, pair: Pair, balance: Balance, now_s: float) -> Earning:
        prior = self._prior(pair, balance, now_s)
        low, high = balance.rate.bounds(now_s, z=_SURE_Z, prior=prior)
        return Earning(low * balance.saving, high * balance.saving if balance.saving > 0.0 else 0.0)

    def _known(self, pair: Pair, since_s: float | None = None) -> Balance:
        known = self._balances.get(pair)
        if known is not None:
            return known
        return Balance(rate=NEVER_ASKED if since_s is None else NEVER_ASKED.since(since_s))

    def _prior(self, pair: Pair, balance: Balance, now_s: float) -> Prior:
        fleet = self._pool.get(pair[1])
        return ALONE if fleet is None else fleet.at(now_s, devices=fleet.devices).prior(balance.rate, now_s)

    def _fleet(self, model: ModelName, now_s: float, *, devices: int | None, since_s: float | None = None) -> Fleet:
        fleet = self._pool.get(model, _NO_FLEET)
        return fleet.at(now_s, devices=fleet.devices if devices is None else devices, since_s=since_s)

    def _pooled(self, pair: Pair, fleet: Fleet, before: Rate, now_s: float, *, opens: bool) -> Fleet:
        """Let what one device is asked be a prior for the model's others."""
        if len(self._pool) >= MAX_PAIRS and pair[1] not in self._pool:
            self._pool.clear()
        # What was silent since nobody knows when ends no gap; and that an order asks says nothing of who is asked without one.
        if before.last_s is not None and not before.ordered:
            fleet = fleet.asked(before, now_s, is_opening=opens)
        self._pool[pair[1]] = fleet
        return fleet

    def _keep(self, pair: Pair, balance: Balance) -> None:
        self._balances[pair] = balance
        self._balances.move_to_end(pair)
        if len(self._balances) > MAX_PAIRS:
            dropped, _ = self._balances.popitem(last=False)
            self._not_before_s.pop(dropped, None)

    def _device(self, device: DeviceId) -> _Device:
        known = self._devices.setdefault(device, _Device())
        self._devices.move_to_end(device)
        if len(self._devices) > MAX_PAIRS:
            self._devices.popitem(last=False)
        return known
