"""A hand-written fake of the standing orders."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gatewayd.core.errors import BadRequest, NotFound
from gatewayd.core.standing import Progress, StandingOrder


@dataclass
class FakeOrders:
    """Standing orders that nobody carries out."""

    running: dict[str, StandingOrder] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    why: str = ""

    def orders(self) -> Sequence[tuple[StandingOrder, Progress]]:
        return tuple((order, self.progress) for order in self.running.values())

    async def start(self, order: StandingOrder) -> StandingOrder:
        return self.running.setdefault(order.id, order)

    async def stop(self, order_id: str, *, why: str) -> tuple[StandingOrder, Progress]:
        if order_id not in self.running:
            raise NotFound(f"no standing order {order_id!r}")
        self.why = why
        return self.running.pop(order_id), self.progress


def refuse_plus(topic: str) -> None:
    """Check a topic, as strictly as a test needs. Raises: BadRequest."""
    if "+" in topic:
        raise BadRequest(f"{topic!r} is no topic to publish on")
