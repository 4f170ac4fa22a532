"""How often who may ask: token buckets by name, for every edge."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

TOLD_PER_S = 5.0  # lines about refused input from one place: protects the disk; the metrics count all
MAX_NAMES = 4096  # protects memory: names are peers, tokens or reply topics, and the one not seen longest is forgotten


@dataclass(slots=True)
class Rates:
    """Token buckets by name: each may do `per_s`, and that much at once (but at least 1)."""

    per_s: float
    clock: Callable[[], float]
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, name: str) -> bool:
        """Take one; False when there is none left."""
        now_s, depth = self.clock(), max(1.0, self.per_s)
        left, seen_s = self._left.get(name, (depth, now_s))
        left = min(depth, left + (now_s - seen_s) * self.per_s)
        is_granted = left >= 1.0
        self._left[name] = (left - is_granted, now_s)
        self._left.move_to_end(name)
        if len(self._left) > MAX_NAMES:
            self._left.popitem(last=False)
        return is_granted

    def is_empty(self, name: str) -> bool:
        """Whether nothing is left; takes nothing."""
        left, seen_s = self._left.get(name, (1.0, 0.0))
        return left + (self.clock() - seen_s) * self.per_s < 1.0
