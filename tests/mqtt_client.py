"""What MQTT tests share: connections with quick timing, and an inbox that can be waited on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from gatewayd.adapters.mqtt_connection import MqttConnection, MqttOptions, Timing
from gatewayd.adapters.mqtt_outbox import Outbox
from gatewayd.wire.mqtt import Message

QUICK = Timing(first_s=0.02, longest_s=0.1, connect_s=3.0, close_s=2.0, tick_s=0.05)
PATIENCE_S = 8.0


class Inbox:
    """Collects messages as a handler; `next` waits for one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue()

    def __call__(self, message: Message) -> None:
        self.queue.put_nowait(message)

    async def next(self) -> Message:
        return await asyncio.wait_for(self.queue.get(), PATIENCE_S)

    async def payloads(self, count: int) -> list[bytes]:
        return [(await self.next()).payload for _ in range(count)]


class Refusals(list[tuple[str, str, str]]):
    """Collects what was refused."""

    def __call__(self, where: str, code: str, message: str) -> None:
        self.append((where, code, message))


class Client(MqttConnection):
    """A connection that counts how often it stood; `stands` waits for the next time."""

    def __init__(self, options: MqttOptions, *, outbox: Outbox | None = None, timing: Timing = QUICK) -> None:
        self.refusals = Refusals()
        super().__init__(options, on_refused=self.refusals, timing=timing, outbox=outbox)
        self._stood: asyncio.Queue[None] = asyncio.Queue()
        self.on_connected(lambda: self._stood.put_nowait(None))

    async def stands(self) -> None:
        await asyncio.wait_for(self._stood.get(), PATIENCE_S)

    def inbox(self, topic_filter: str, *, qos: int = 1, retained: bool = True) -> Inbox:
        box = Inbox()
        self.subscribe(topic_filter, box, qos=qos, retained=retained)
        return box


def late_options(port: int, *, version: str = "5", name: str = "late", session_expiry_s: int = 60) -> MqttOptions:
    """Return the options of a connection that acknowledges late, and whose session outlasts it."""
    plain = options(port, version=version, name=name, max_payload_bytes=2**24)
    expiry = session_expiry_s
    return replace(plain, client_id=name, will=None, online=None, is_late=True, session_expiry_s=expiry)


def options(port: int, *, version: str = "5", name: str = "node", max_payload_bytes: int = 2**20) -> MqttOptions:
    return MqttOptions(
        host="127.0.0.1",
        port=port,
        version=version,
        will=Message(f"{name}/status", b"offline", qos=1, retain=True),
        online=Message(f"{name}/status", b"online", qos=1, retain=True),
        max_payload_bytes=max_payload_bytes,
    )


@asynccontextmanager
async def running(*clients: Client) -> AsyncIterator[None]:
    """Run the clients; inside, all of them stand; they are cancelled at the end."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run(), name="client") for each in clients]
        for each in clients:
            await each.stands()
        yield
        for task in tasks:
            task.cancel()
