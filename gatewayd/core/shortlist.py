"""Which of many devices a decision looks at: the cheapest of those that hold one version, kept in order as facts change.

Pure, and bit for bit what `place` would find: devices stand in the order of the totals that it compares, so the first of the
list is the first of all. Next to the cheapest stand the fastest, so that a deadline that some device could meet is met.
A change costs O(log n) comparisons and one move of a list; looking costs the length of the answer.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable

from gatewayd.core.cost import Weights
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import DeviceFacts

MAX_CANDIDATES = 32
"""Candidates per decision: `place` stays within microseconds, and a decision kept for `why` within kilobytes."""

_FASTEST = 8  # of them stand there for their speed
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

    def __len__(self) -> int:
        return len(self._facts)

    def put(self, facts: DeviceFacts) -> None:
        """Take the newest facts of a device."""
        self._facts[facts.device] = facts
        for weights, order in self._orders.items():
            order.put(facts.device, self._standing(facts, weights))

    def drop(self, device: DeviceId) -> None:
        """Forget a device; one that is not there is no error."""
        if self._facts.pop(device, None) is not None:
            for order in self._orders.values():
                order.drop(device)

    def facts(self, device: DeviceId) -> DeviceFacts | None:
        """Return the newest facts of a device that holds the version."""
        return self._facts.get(device)

    def best(self, weights: Weights) -> list[DeviceFacts]:
        """Return at most `MAX_CANDIDATES`: all, or the cheapest for `weights` with the fastest among them."""
        facts = self._facts
        if len(facts) <= MAX_CANDIDATES:
            return list(facts.values())
        found = self._order(weights).first(_CHEAPEST)
        names = set(found)
        # As many more as it takes, in order of speed: some of the fastest are among the cheapest already.
        found += [each for each in self._order(_SPEED).first(MAX_CANDIDATES) if each not in names][:_FASTEST]
        return [facts[device] for device in found]

    def _order(self, weights: Weights) -> "_Order":
        order = self._orders.get(weights)
        if order is None:
            order = _Order((each.device, self._standing(each, weights)) for each in self._facts.values())
            self._orders[weights] = order
            if len(self._orders) > _MAX_ORDERS + 1:
                oldest = next(each for each in self._orders if each != _SPEED)
                del self._orders[oldest]
        elif len(self._orders) > _MAX_ORDERS:
            self._orders.move_to_end(weights)
        return order

    def _standing(self, facts: DeviceFacts, weights: Weights) -> float:
        """Return the total that `place` ranks it by for a request that brings its data."""
        if facts.refusal or facts.charge < self._battery_floor:
            return _REFUSED
        latency_s, energy_uj, link_bytes, failure = facts.hoped_terms(is_at_hand=False)
        return (
            weights.latency_per_s * (latency_s + facts.queue_s)
            + weights.energy_per_uj * energy_uj
            + weights.bandwidth_per_byte * link_bytes
            + weights.risk_per_failure * failure
        )


class _Order:
    """Devices by score, then by id."""

    __slots__ = ("_keys", "_scores")

    def __init__(self, scores: Iterable[tuple[DeviceId, float]]) -> None:
        self._scores = dict(scores)
        self._keys = sorted((score, device) for device, score in self._scores.items())

    def put(self, device: DeviceId, score: float) -> None:
        before = self._scores.get(device)
        if before == score:
            return
        if before is not None:
            del self._keys[bisect_left(self._keys, (before, device))]
        self._scores[device] = score
        insort(self._keys, (score, device))

    def drop(self, device: DeviceId) -> None:
        del self._keys[bisect_left(self._keys, (self._scores.pop(device), device))]

    def first(self, count: int) -> list[DeviceId]:
        return [device for _, device in self._keys[:count]]
