"""The simulated link: every message waits for its turn, its bytes and half a round trip, in each direction by itself."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gatewayd.sim.conditions import Conditions

Item = TypeVar("Item")

HEADER_BYTES = 4
"""MQTT's fixed header, the topic's length and the packet id, roughly; 3.1.1 has no more."""
MAX_WAITING = 256
"""Messages on their way in one direction. Bounds memory; past it a message is lost, as on a radio that is flooded."""


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """A link's round trip for a small message in seconds, and its bytes per second."""

    rtt_s: float
    goodput_bytes_per_s: float


LINKS = {
    # Goodput inside the nominal ranges (802.15.4: 20-60 kb/s usable, BLE: 100-700 kb/s); round trips are assumed.
    "wifi": LinkFigures(rtt_s=0.008, goodput_bytes_per_s=500_000),  # 4 Mb/s: a microcontroller's TCP stack, assumed
    "ble": LinkFigures(rtt_s=0.045, goodput_bytes_per_s=37_500),  # 300 kb/s; about two connection events of 22.5 ms
    "802.15.4": LinkFigures(rtt_s=0.030, goodput_bytes_per_s=5_000),  # 40 kb/s; CSMA/CA and a router's queue
}


class Lane:
    """One direction's arithmetic, without a clock of its own: the channel carries one message at a time."""

    def __init__(self, figures: LinkFigures, conditions: Conditions | None = None) -> None:
        self._figures = figures
        self._now = conditions or Conditions()
        self._free_s = 0.0

    def arrival_s(self, now_s: float, byte_count: int) -> float:
        """Take a message of `byte_count` bytes onto the lane at `now_s`; return when it arrives."""
        rate = self._figures.goodput_bytes_per_s * self._now.link
        self._free_s = max(now_s, self._free_s) + byte_count / rate
        return self._free_s + self._figures.rtt_s / 2


class Radio(Generic[Item]):
    """One direction of a link: what is sent is delivered later, in order. Run `run` in a task."""

    def __init__(
        self, figures: LinkFigures, deliver: Callable[[Item], None], conditions: Conditions | None = None
    ) -> None:
        self._now = conditions or Conditions()
        self._lane = Lane(figures, self._now)
        self._deliver = deliver
        self._waiting: asyncio.Queue[tuple[float, Item]] = asyncio.Queue(MAX_WAITING)

    def send(self, item: Item, byte_count: int) -> bool:
        """Put a message on the link; False when it was lost: the link is out, or too many are on their way."""
        if self._now.is_out or self._waiting.full():
            return False
        arrival_s = self._lane.arrival_s(asyncio.get_running_loop().time(), byte_count)
        self._waiting.put_nowait((arrival_s, item))
        return True

    async def run(self) -> None:
        """Deliver for ever."""
        loop = asyncio.get_running_loop()
        while True:
            arrival_s, item = await self._waiting.get()
            await asyncio.sleep(max(0.0, arrival_s - loop.time()))
            self._deliver(item)


def air_bytes(topic: str, payload: bytes) -> int:
    """Return what a message weighs on the link."""
    return HEADER_BYTES + len(topic) + len(payload)
