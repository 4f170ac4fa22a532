"""A hand-written fake of the standing orders."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gatewayd.core.command import Note
from gatewayd.core.errors import BadRequest, NotFound
from gatewayd.core.standing import Progress, StandingOrder
from tests.fake_notes import noted


@dataclass
class FakeOrders:
    """Standing orders that nobody carries out."""

    running: dict[str, StandingOrder] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    why: str = ""

    def orders(self) -> Sequence[tuple[StandingOrder, Progress]]:
        return tuple((order, self.progress) for order in self.running.values())

    async def start(self, order: StandingOrder, *, note_of: Note[StandingOrder] | None = None) -> StandingOrder:
        noted(note_of, order)
        return self.running.setdefault(order.id, order)

    async def stop(
        self, order_id: str, *, why: str, note_of: Note[tuple[StandingOrder, Progress]] | None = None
    ) -> tuple[StandingOrder, Progress]:
        if order_id not in self.running:
            raise NotFound(f"no standing order {order_id!r}")
        self.why = why
        ended = self.running.pop(order_id), self.progress
        noted(note_of, ended)
        return ended


def refuse_plus(topic: str) -> None:
    """Check a topic, as strictly as a test needs. Raises: BadRequest."""
    if "+" in topic:
        raise BadRequest(f"{topic!r} is no topic to publish on")
