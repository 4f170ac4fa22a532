"""An MQTT edge with its commands on a real broker, with a client beside it; the services behind it are fakes."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gatewayd.adapters.store import open_store
from gatewayd.api.verb import Caller, Role
from gatewayd.edges.mqtt import Limits, MqttEdge
from gatewayd.edges.mqtt_answers import Answers
from gatewayd.edges.mqtt_commands import MqttCommands
from gatewayd.services.once import Once
from gatewayd.wire.mqtt import Message
from gatewayd.wire.topics import Topics
from tests.broker import Broker
from tests.fakes_api import World
from tests.mqtt_client import Client, Inbox, Refusals, late_options, options, running

NOW = 1.8e9
BASE = "gatewayd/edge-1"
TOPICS = Topics("gatewayd", "edge-1")
ADMIN = Caller("mqtt", Role.ADMIN)


def document_of(reply: Message) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(reply.payload)
    return document


@dataclass
class House:
    """An edge on a real broker, with a client beside it."""

    world: World
    edge: MqttEdge
    commands: MqttCommands
    client: Client
    replies: Inbox
    defaults: Inbox
    late: Client
    refusals: Refusals = field(default_factory=Refusals)
    acknowledged: int = 0

    def ask(
        self, topic: str, payload: object, *, reply: str | None = "clients/1", content_type: str | None = None
    ) -> None:
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        message = Message(f"{BASE}/{topic}", content, qos=1, content_type=content_type)
        self.client.publish(replace(message, response_topic=reply, correlation=b"c-1"))

    def deliver(self, topic: str, payload: object, *, is_redelivered: bool) -> None:
        """Hand the commands a message as the connection would; `acknowledged` counts."""
        content = json.dumps(payload).encode()

        def acknowledge() -> None:
            self.acknowledged += 1

        message = Message(f"{BASE}/{topic}", content, qos=1, is_redelivered=is_redelivered)
        self.late.received_late(message, acknowledge)

    async def answer(self) -> dict[str, Any]:
        reply = await self.replies.next()
        if self.client.protocol == "5":
            assert (reply.content_type, reply.correlation) == ("application/json", b"c-1")
        assert not reply.retain
        return document_of(reply)

    async def default_answer(self) -> tuple[str, dict[str, Any]]:
        reply = await self.defaults.next()
        return reply.topic, document_of(reply)


@asynccontextmanager
async def house(
    broker: Broker,
    tmp_path: Path,
    *,
    world: World | None = None,
    limits: Limits | None = None,
    version: str = "5",
    now: float = NOW,
    monotonic_step_s: float = 0.0,
) -> AsyncIterator[House]:
    gateway = Client(options(broker.port, name="gw", version=version, max_payload_bytes=2**24))
    late = Client(late_options(broker.port, version=version, name="gw-commands"))
    client = Client(options(broker.port, name="client", version=version, max_payload_bytes=2**24))
    replies, defaults = client.inbox("clients/#"), client.inbox(f"{BASE}/reply/#")
    world, refusals = world or World(), Refusals()
    answers = [Answers(each, TOPICS, reply_prefixes=("clients",), on_refused=refusals) for each in (gateway, late)]
    edge = MqttEdge(world.api(), gateway, TOPICS, answers=answers[0], limits=limits)
    async with open_store(tmp_path / "store.sqlite") as store, asyncio.TaskGroup() as group:
        ticks = itertools.count(0.0, monotonic_step_s)

        def clock() -> float:
            return next(ticks)

        once = Once(store, wall_clock=lambda: now)
        commands = MqttCommands(
            world.api(), once, late, TOPICS, caller=ADMIN, answers=answers[1], wall_clock=lambda: now, clock=clock
        )
        tasks = [group.create_task(edge.run()), group.create_task(commands.run())]
        async with running(gateway, late, client):
            yield House(world, edge, commands, client, replies, defaults, late, refusals)
        for task in tasks:
            task.cancel()
