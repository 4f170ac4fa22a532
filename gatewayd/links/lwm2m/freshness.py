"""Which notifications are news: they may come late, twice, or one before the other. Pure: time is given.

Source: RFC 7641, section 3.4 (the order of notifications); RFC 1982 (counters that begin anew).
"""

from dataclasses import dataclass

_NUMBERS, _HALF = 2**24, 2**23
_ANEW_S = 128.0
"""After so long any number is news: the device may have counted past half of all numbers meanwhile."""
_RUNS, _HALF_RUNS = 2**32, 2**31


@dataclass(slots=True)
class Freshness:
    """What was taken last of one observation."""

    number: int | None = None
    at_s: float = 0.0

    def takes(self, number: int | None, now_s: float) -> bool:
        """Return whether a notification with that Observe number is news, and remember it if so; without a number it is."""
        if number is None:
            return True
        if self.number is not None and now_s <= self.at_s + _ANEW_S:
            ahead = (number - self.number) % _NUMBERS
            if not 0 < ahead < _HALF:
                return False
        self.number, self.at_s = number, now_s
        return True


def runs_after(before: int, now: int) -> int:
    """Return how many runs lie between two values of a run counter of 32 bits: 0 or less where `now` is none later."""
    ahead = (now - before) % _RUNS
    return ahead if ahead < _HALF_RUNS else ahead - _RUNS
