"""Which of many devices a decision looks at: the cheapest of those that hold one version, kept in order as facts change.

Pure, and bit for bit what `place` would find: devices stand in the order of the totals that it compares, so the first of the
list is the first of all. Next to the cheapest stand the fastest, so that a deadline that some device could meet is met.
A change costs O(log n) comparisons and one move of a list; looking costs the length of the answer.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable

from gatewayd.core.cost import Weights
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import DeviceFacts

MAX_CANDIDATES = 8
"""Candidates per decision: `place` stays within microseconds, and a decision kept for `why` within kilobytes.

The first of them is the first of all; the others are for when it fails, and to show what it was chosen over.
"""

_FASTEST = 2  # of them stand there for their speed
_CHEAPEST = MAX_CANDIDATES - _FASTEST
_SPEED = Weights(1.0, 0.0, 0.0, 0.0)
_REFUSED = float("inf")
# Orders kept per version beside the one by speed, each about 0.2 KB a device: classes of requests beyond these take turns.
_MAX_ORDERS = 4


class Shortlist:
    """The devices that hold one version, by their facts. Those refused for good reasons stand behind all others."""

    def __init__(self, *, battery_floor: float = 0.1) -> None:
        self._battery_floor = battery_floor
        self._facts: dict[DeviceId, DeviceFacts] = {}
        self._orders: OrderedDict[Weights, _Order] = OrderedDict()
        self._best: dict[Weights, tuple[DeviceFacts, ...]] = {}
        self._stale: set[Weights] = set()

    def __len__(self) -> int:
        return len(self._facts)

    def put(self, facts: DeviceFacts) -> None:
        """Take the newest facts of a device."""
        before = self._facts.get(facts.device)
        self._facts[facts.device] = facts
        is_seen = len(self._facts) <= MAX_CANDIDATES + 1  # with one more than all, what was kept is of before
        for weights, order in self._orders.items():
            is_seen |= order.put(None if before is None else self._key(before, weights), self._key(facts, weights))
        if is_seen:
            self._outdate()

    def refresh(self) -> None:
        """Pick anew what was asked for before and has changed since; at rest, so that no request waits for it."""
        while self._stale:
            self.best(self._stale.pop())

    def drop(self, device: DeviceId) -> None:
        """Forget a device; one that is not there is no error."""
        before = self._facts.pop(device, None)
        if before is not None:
            self._outdate()
            for weights, order in self._orders.items():
                order.drop(self._key(before, weights))

    def facts(self, device: DeviceId) -> DeviceFacts | None:
        """Return the newest facts of a device that holds the version."""
        return self._facts.get(device)

    def best(self, weights: Weights) -> tuple[DeviceFacts, ...]:
        """Return at most `MAX_CANDIDATES`: all, or the cheapest for `weights` with the fastest among them."""
        known = self._best.get(weights)
        if known is None:
            self._stale.discard(weights)
            known = self._best[weights] = self._picked(weights)
        return known

    def _outdate(self) -> None:
        self._stale.update(self._best)
        self._best.clear()

    def _picked(self, weights: Weights) -> tuple[DeviceFacts, ...]:
        facts = self._facts
        if len(facts) <= MAX_CANDIDATES:
            return tuple(facts.values())
        found = self._order(weights).first(_CHEAPEST)
        # As many more as it takes, in order of speed: some of the fastest are among the cheapest already.
        for device in self._order(_SPEED).first(MAX_CANDIDATES):
            if device not in found:
                found.append(device)
                if len(found) == MAX_CANDIDATES:
                    break
        return tuple([facts[device] for device in found])

    def _order(self, weights: Weights) -> "_Order":
        order = self._orders.get(weights)
        if order is None:
            order = _Order(self._key(each, weights) for each in self._facts.values())
            self._orders[weights] = order
            if len(self._orders) > _MAX_ORDERS + 1:
                oldest = next(each for each in self._orders if each not in {_SPEED, weights})
                del self._orders[oldest]
                self._best.pop(oldest, None)
                self._stale.discard(oldest)
        elif len(self._orders) > _MAX_ORDERS:
            self._orders.move_to_end(weights)
        return order

    def _key(self, facts: DeviceFacts, weights: Weights) -> tuple[float, DeviceId]:
        """Return the total that `place` ranks it by for a request that brings its data, and its id."""
        latency_s, energy_uj, link_bytes, failure, charge = facts.hoped_terms(is_at_hand=False)
        if charge < self._battery_floor:
            return _REFUSED, facts.device
        total = (
            weights.latency_per_s * latency_s
            + weights.energy_per_uj * energy_uj
            + weights.bandwidth_per_byte * link_bytes
            + weights.risk_per_failure * failure
        )
        return total, facts.device


class _Order:
    """Devices by score, then by id."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[tuple[float, DeviceId]]) -> None:
        self._keys = sorted(keys)

    def put(self, before: tuple[float, DeviceId] | None, now: tuple[float, DeviceId]) -> bool:
        """Return whether this concerns one of the foremost."""
        keys = self._keys
        place = len(keys) if before is None else bisect_left(keys, before)
        if before == now:
            return place < MAX_CANDIDATES
        if before is not None:
            del keys[place]
        new_place = bisect_left(keys, now)
        keys.insert(new_place, now)
        return min(place, new_place) < MAX_CANDIDATES

    def drop(self, key: tuple[float, DeviceId]) -> None:
        del self._keys[bisect_left(self._keys, key)]

    def first(self, count: int) -> list[DeviceId]:
        return [device for _, device in self._keys[:count]]
