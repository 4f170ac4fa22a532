"""Waiting awake: asking again and again instead of sleeping. Both sides use this file.

A processor with nothing to do goes to sleep, and who wakes it pays: 30 to 100 µs in a virtual machine, up to 50 µs on a board
with deep idle states, which is as much as a small model computes. Where something is due within a moment it costs less to ask.
On a processor that somebody else needs as well it would cost more: whoever waits there goes first, and who is pushed off for long
while waiting awake sleeps for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import sched_yield
from time import monotonic
from typing import TypeVar

_PUSHED_OFF_S = 0.0005  # asking takes 1 µs, an interrupt less than 0.1 ms; somebody else's turn takes 1 ms and more
_REST_S = 0.05

T = TypeVar("T")


class Awake:
    """Waits for events awake, as long as the processor is free for it: nobody else's turn takes `pushed_off_s`."""

    def __init__(self, pushed_off_s: float = _PUSHED_OFF_S) -> None:
        self._pushed_off_s = pushed_off_s
        self._asleep_until_s = 0.0

    def wait(self, ask: Callable[[float], Sequence[T]], until_s: float) -> Sequence[T]:
        """Return what `ask(0)` gives as soon as there is something; nothing at `until_s` (CLOCK_MONOTONIC) or when pushed off."""
        last_s = monotonic()
        if last_s < self._asleep_until_s:
            return ()
        while last_s < until_s:
            found = ask(0)
            if found:
                return found
            sched_yield()  # the caller of this very request may be waiting for this processor
            now_s = monotonic()
            if now_s - last_s > self._pushed_off_s:
                self._asleep_until_s = now_s + _REST_S
                return ()
            last_s = now_s
        return ()
