"""The line to one device, without a network: what happens when its address changes in mid-question."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.names import DeviceId
from gatewayd.links.lwm2m.coap import STANDARD, Answer, Ask, Code, Method, Notified, Observation, Peer, Timing
from gatewayd.links.lwm2m.line import Line, LineLimits

QUESTION = Ask(Method.GET, ("3", "0"))


@dataclass(frozen=True)
class Place:
    """Where a device is heard."""

    address: str
    identity: str = ""
    gateway: str = "coap://192.0.2.1:5683"


@dataclass
class Air:
    """Answers at one address only; elsewhere nothing ever comes."""

    answers_at: str
    asked: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, peer: Peer, ask: Ask, *, timeout_s: float, timing: Timing = STANDARD) -> Answer:  # noqa: ARG002 - its shape
        self.asked.append(peer.address)
        self.changed.set()
        if peer.address != self.answers_at:
            await asyncio.Event().wait()
        return Answer(Code.CONTENT)

    async def observe(
        self, peer: Peer, ask: Ask, notified: Notified, *, timeout_s: float, timing: Timing = STANDARD
    ) -> tuple[Answer, Observation | None]:
        raise NotImplementedError

    def peer(self, address: str, identity: str = "") -> Peer:
        return Place(address, identity)


def _told(done: "asyncio.Future[None]", act: Callable[[], None]) -> None:
    try:
        act()
    except RuntimeError as error:
        done.set_exception(error)
    else:
        done.set_result(None)


async def test_a_device_that_moves_twice_at_once_is_asked_where_it_was_heard_last() -> None:
    """The first move has just ended the question's wait when the second is heard: that must not fail who hears it."""
    air, loop = Air("c"), asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        line = Line(
            DeviceId("dev-1"), air, loop.time, LineLimits(), lambda work, name: tasks.create_task(work, name=name)
        )
        line.heard(Place("a"))
        asking = tasks.create_task(line.ask(QUESTION, timeout_s=5), name="asking")
        await air.changed.wait()
        line.heard(Place("b"))
        hearing = loop.create_future()
        loop.call_soon(_told, hearing, lambda: line.heard(Place("c")))
        await hearing
        assert (await asking).code == Code.CONTENT
    assert (air.asked[0], air.asked[-1]) == ("a", "c")
