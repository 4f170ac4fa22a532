"""Whose turn it is on one device: inferences early, but nothing that waits is passed over for ever. Values only."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_PASSED = 4
"""How often in a row a kind that waits is passed over: it has one of seven turns at least. Protects pushes to a device that is
asked for inferences without a pause; an inference waits for two turns at most that are not one, a trial's aside."""


class Urgency(IntEnum):
    """What goes first: an inference must not wait behind the blocks of a push.

    The trial of a pushed model is a few runs, and it fails when they do not come to their turn in time.
    """

    TRIAL = 0
    INFERENCE = 1
    CONTROL = 2
    TRANSFER = 3


@dataclass(slots=True)
class Turns(Generic[T]):
    """What waits, by kind, each kind in the order of its coming; `most` of all together (protects memory).

    What nobody waits for any more (`is_wanted` is false) takes nobody's turn, and no room that somebody needs.
    """

    most: int
    is_wanted: Callable[[T], bool]
    _waiting: tuple[deque[T], ...] = field(default_factory=lambda: tuple(deque() for _ in Urgency))
    _passed: list[int] = field(default_factory=lambda: [0 for _ in Urgency])

    def put(self, item: T, urgency: Urgency) -> bool:
        """Let it wait; False when there is no room."""
        if self._count() >= self.most:
            for waiting in self._waiting:
                kept = [each for each in waiting if self.is_wanted(each)]
                waiting.clear()
                waiting.extend(kept)
        if self._count() >= self.most:
            return False
        self._waiting[urgency].append(item)
        return True

    def take(self) -> T | None:
        """Return what is next: of the most urgent kind, or of one that was passed over often enough; None when nothing waits."""
        for waiting in self._waiting:
            while waiting and not self.is_wanted(waiting[0]):
                waiting.popleft()
        kinds = [kind for kind in Urgency if self._waiting[kind]]
        if not kinds:
            return None
        chosen = next((kind for kind in kinds if self._passed[kind] >= MOST_PASSED), kinds[0])
        for kind in Urgency:
            self._passed[kind] = self._passed[kind] + 1 if kind in kinds and kind is not chosen else 0
        return self._waiting[chosen].popleft()

    def _count(self) -> int:
        return sum(len(waiting) for waiting in self._waiting)
