"""Where buffers with lifetimes go in one block of memory: largest first, each at the lowest place free in its time.

The same choices as TensorFlow Lite Micro's greedy planner makes, ties included, since another order gives another size.
Source: tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc, github.com/tensorflow/tflite-micro.
"""

from bisect import insort
from collections.abc import Sequence

from gatewayd.core.record import record


@record
class Need:
    """A buffer: its bytes, and the first and last moment it is in use."""

    byte_count: int
    first: int
    last: int

    def meets(self, other: "Need") -> bool:
        """Tell whether both are in use at some moment."""
        return self.first <= other.last and other.first <= self.last


def planned_bytes(needs: Sequence[Need]) -> int:
    """Return the size of the block that holds all of them."""
    return max((offset + need.byte_count for offset, need in zip(offsets(needs), needs, strict=True)), default=0)


def offsets(needs: Sequence[Need]) -> list[int]:
    """Return where each goes, in the order given. Takes n² steps for n buffers."""
    order = sorted(range(len(needs)), key=lambda index: (-needs[index].byte_count, -index))
    found = [0] * len(needs)
    placed: list[tuple[int, int, int]] = []  # offset, when it was placed, index: by offset, then by age
    for age, index in enumerate(order):
        found[index] = _lowest_gap(needs, index, placed)
        insort(placed, (found[index], age, index))
    return found


def _lowest_gap(needs: Sequence[Need], index: int, placed: Sequence[tuple[int, int, int]]) -> int:
    wanted, free_from = needs[index], 0
    for offset, _, other in placed:
        if not wanted.meets(needs[other]):
            continue
        if offset - free_from >= wanted.byte_count:
            break
        free_from = max(free_from, offset + needs[other].byte_count)
    return free_from
