"""A simulated LwM2M device in this process, on the agent's bench, and a hand-made server that plays the gateway."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiocoap import Context, Message, resource  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above

from gatewayd.sim.lwm2m_device import Lwm2mDevice
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.machine import Done, Task
from gatewayd.sim.registration import Terms
from gatewayd.sim.relay import Link
from gatewayd.sim.uplink import held_port
from gatewayd.wire.lwm2m.formats import Format, decode
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import parse_path
from gatewayd.wire.lwm2m.values import Record, Value
from gatewayd.wire.manifest import sign_manifest
from gatewayd.wire.mqttdevice import OfferMessage
from tests.agent_bench import Bench
from tests.signing import KEY, manifest_of

PATIENCE_S = 10.0
FAST = Link("fast", 0.0, 0.0, 1024, 28)


class MemoryMachine:
    """The bench's flash and make-believe runtime as the hardware of a shell."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.spent_nj = 0

    async def journals(self) -> tuple[bytes, bytes]:
        return self.bench.flash.journals()

    async def execute(self, task: Task) -> Done | None:
        done = self.bench.execute(task)
        assert done is None or isinstance(done, Done)
        return done


class _Directory(resource.Resource):  # type: ignore[misc]  # aiocoap ships no types
    """/rd: takes every registration, until `is_refusing`; knows one location."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.is_refusing = False
        self.has_forgotten = False

    async def render_post(self, request: Message) -> Message:
        self.heard.put_nowait(request)
        if self.is_refusing:
            return Message(code=Code.FORBIDDEN)
        if any(each.startswith("ep=") for each in request.opt.uri_query):
            answer = Message(code=Code.CREATED)
            answer.opt.location_path = ("rd", "x")
            return answer
        return Message(code=Code.NOT_FOUND if self.has_forgotten else Code.CHANGED)

    async def render_delete(self, request: Message) -> Message:
        self.heard.put_nowait(request)
        return Message(code=Code.DELETED)


class _Package(resource.Resource):  # type: ignore[misc]  # aiocoap ships no types
    """/package: serves `content` by blocks from anywhere; `asked` are the first bytes asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.content = b""
        self.etag = b"1"
        self.asked: list[int] = []

    async def needs_blockwise_assembly(self, request: Message) -> bool:  # noqa: ARG002 - aiocoap's interface
        return False

    async def render_get(self, request: Message) -> Message:
        block = request.opt.block2
        self.asked.append(block.start)
        answer = Message(code=Code.CONTENT, payload=self.content[block.start : block.start + block.size])
        answer.opt.block2 = (block.block_number, block.start + block.size < len(self.content), block.size_exponent)
        answer.opt.etag = self.etag
        return answer


@dataclass
class Player:
    """The server's side: what it heard, and what it asks the device."""

    context: Context
    port: int
    directory: _Directory
    package: _Package
    remote: Any = None
    first: Message = None
    _observing: list[Any] = field(default_factory=list)  # aiocoap ends an observation that nobody holds

    async def registration(self) -> Message:
        """Return the next message to /rd; its sender is who is asked from now on."""
        async with asyncio.timeout(PATIENCE_S):
            heard = await self.directory.heard.get()
        self.remote = heard.remote
        return heard

    async def ask(self, code: int, path: str, payload: bytes = b"", **options: object) -> Message:
        """Ask the device."""
        message = Message(code=code, payload=payload)
        message.remote = self.remote
        message.opt.uri_path = tuple(filter(None, path.split("/")))
        for name, value in options.items():
            setattr(message.opt, name, value)
        async with asyncio.timeout(PATIENCE_S):
            request = self.context.request(message, handle_blockwise="block1" not in options)
            return await request.response

    async def observe(self, path: str) -> AsyncIterator[Message]:
        """Begin to observe; return what is told from then on."""
        message = Message(code=Code.GET, observe=0)
        message.remote = self.remote
        message.opt.uri_path = tuple(path.strip("/").split("/"))
        request = self.context.request(message)
        self._observing.append(request)
        assert (await request.response).code == Code.CONTENT
        observing: AsyncIterator[Message] = aiter(request.observation)
        return observing

    async def read(self, path: str, accept: Format | None = None) -> Sequence[Record]:
        """Read and decode; a refusal fails the test."""
        answer = await self.ask(Code.GET, path, accept=accept)
        assert answer.code == Code.CONTENT, answer.code
        return decode(Format(answer.opt.content_format), parse_path(path), answer.payload, STANDARD)

    async def value(self, path: str) -> Value:
        """Read one value."""
        (record,) = await self.read(path)
        return record.value

    async def write(self, path: str, payload: bytes, content_format: Format) -> Message:
        return await self.ask(Code.PUT, path, payload, content_format=int(content_format))

    async def execute(self, path: str, arguments: str = "") -> Message:
        return await self.ask(Code.POST, path, arguments.encode())

    async def offer(self, instance: int, offer: OfferMessage) -> None:
        """Name the push and write its manifest."""
        await self.write(f"/26242/{instance}/13", str(offer.push).encode(), Format.TEXT)
        signed = sign_manifest(manifest_of(offer), KEY)
        assert (await self.write(f"/26242/{instance}/18", signed, Format.OPAQUE)).code == Code.CHANGED

    async def until(self, path: str, wanted: Value) -> None:
        """Read until the value is there."""
        async with asyncio.timeout(PATIENCE_S):
            found = await self.value(path)
            while found != wanted:
                found = await self.value(path)

    async def finish(self, instance: int) -> None:
        """From the last byte to the end of the trial."""
        await self.until(f"/26242/{instance}/14", 4)
        for path in (f"/9/{instance}/4", f"/9/{instance}/10", f"/26242/{instance}/16"):
            assert (await self.execute(path)).code == Code.CHANGED, path


@asynccontextmanager
async def playing() -> AsyncIterator[Player]:
    """A server on a port of its own: nobody else's board may speak to it."""
    site, directory, package = resource.Site(), _Directory(), _Package()
    site.add_resource(["rd"], directory)
    site.add_resource(["rd", "x"], directory)
    site.add_resource(["package"], package)
    with held_port() as port:
        context = await Context.create_server_context(site, bind=("127.0.0.1", port), transports=["udp6"])
    try:
        yield Player(context, port, directory, package)
    finally:
        await context.shutdown()


@asynccontextmanager
async def attached(player: Player, bench: Bench, **options: Any) -> AsyncIterator[Lwm2mDevice]:  # noqa: ANN401 - of many types
    """The device on the bench's flash; registered when the block begins, unless the server refuses."""
    terms = Terms("cam-7", 60)
    chosen = replace(Lwm2mOptions("127.0.0.1", player.port, terms, "wifi"), **options)
    device = Lwm2mDevice(bench.agent, MemoryMachine(bench), radio=FAST, options=chosen, log=_ignore)
    async with asyncio.TaskGroup() as group:
        group.create_task(device.run(), name="device")
        player.first = await player.registration()
        yield device
        device.stop()


def _ignore(event: str, **fields: object) -> None:
    """Nobody reads it."""
