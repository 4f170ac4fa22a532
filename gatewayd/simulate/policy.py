"""What a policy is: it places each request, learns what came of it, and says which push to start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gatewayd.simulate.boards import Model
from gatewayd.simulate.world import Ask, Run, Station


@dataclass(frozen=True, slots=True)
class Situation:
    """What may be known when a request comes: the models there, seconds of work before it on either side, the battery (0..1).

    `pushing` names the model that is on its way there, if any.
    """

    now_s: float
    held: tuple[str, ...]
    node_queue_s: float
    device_queue_s: float
    battery: float | None
    pushing: str | None = None

    def holds(self, model: Model) -> bool:
        """Return whether the device can serve the model at once."""
        return model.name in self.held


@dataclass(frozen=True, slots=True)
class Wish:
    """A push to start now. `evict` leaves the device first (None: there is room)."""

    model: Model
    evict: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A standing order, known beforehand."""

    station: Station
    model: Model
    per_s: float
    left_s: float


class Policy(Protocol):
    """The simulator calls these in the order of simulated time."""

    name: str

    def ordered(self, order: Standing, situation: Situation) -> Wish | None:
        """Hear of a standing order; return the push to start."""
        ...

    def asked(self, ask: Ask, situation: Situation) -> None:
        """Hear of a request that can be served, before it is placed."""
        ...

    def prefers_device(self, ask: Ask, situation: Situation) -> bool:
        """Return whether to run it on the device, which holds the model; not asked otherwise."""
        ...

    def saw(self, ask: Ask, run: Run, situation: Situation, *, on_device: bool) -> Wish | None:
        """Learn from a request that ended; return the push to start."""
        ...

    def pinged(self, station: Station, rtt_s: float, *, now_s: float) -> None:
        """Learn a round trip of a small message (with a protocol only)."""
        ...

    def transfer_s(self, station: Station, byte_count: int, *, now_s: float) -> float:
        """Return what is believed that so many bytes take (with a protocol only): pushes book their air by it."""
        ...

    def carried(self, station: Station, byte_count: int, elapsed_s: float, *, now_s: float) -> None:
        """Learn what a chunk of a push took (with a protocol only)."""
        ...

    def pushed(self, station: Station, model: Model, *, elapsed_s: float, is_there: bool, now_s: float) -> None:
        """Learn how a push ended."""
        ...


def least_used(held: Sequence[str], used_s: dict[str, float]) -> str:
    """Return the least recently used model: what the baselines evict."""
    return min(held, key=lambda name: (used_s.get(name, 0.0), name))
