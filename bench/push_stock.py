"""A software management client (/9) as others ship it, behind a link, for `bench/push.py`: it keeps nothing of a broken transfer.

Written to, it wants every block in its order, and answers 4.08 to any other; given an address, it fetches with CoAP's own timers,
and after a failure from the start. Repeated messages are known by their number, as RFC 7252 wants. It shares the codecs and the
CoAP stack with the simulated board, not its agent.
"""

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from aiocoap import Context, Message, error  # type: ignore[import-untyped]  # no stubs
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above
from aiocoap.transports.udp6 import UDP6EndpointAddress  # type: ignore[import-untyped]  # as above

from bench.push_gateway import push_gateway
from gatewayd.core.device import Lwm2mTraits, Profile
from gatewayd.sim.coap_site import DeviceSite
from gatewayd.sim.objects import INCOMPLETE, NOT_ALLOWED, Fixed, ObjectTree, Refusal, Values
from gatewayd.sim.registration import Registration, Terms, asked
from gatewayd.sim.relay import Link, Relay
from gatewayd.sim.uplink import held_port
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.values import Value

NAME, _LIFETIME_S = "stock-1", 86_400
_FETCHES, _PAUSE_S = 4, 2.0
_INSTALL, _UNINSTALL, _ACTIVATE, _DEACTIVATE = 4, 6, 10, 11
_CONNECTION_LOST = 52


class StockSoftware:
    """/9 with two instances."""

    id, version = 9, ""

    def __init__(self) -> None:
        self.states, self.results, self.active = [0, 0], [0, 0], [False, False]
        self.parts = [bytearray(), bytearray()]
        self.fetch: Callable[[int, str], None] = _nothing

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return (0, 1)

    def read(self, instance: int) -> Values:
        """See `ObjectPart`."""
        return {0: "", 1: "", 7: self.states[instance], 9: self.results[instance], 12: self.active[instance]}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset({2, 3}), frozenset({_INSTALL, _UNINSTALL, _ACTIVATE, _DEACTIVATE})

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        if resource == 3 and value == "":
            self.states[instance] = 0
        elif resource == 3 and self.states[instance] == 0:
            self.states[instance], self.results[instance] = 1, 0
            self.fetch(instance, str(value))
        else:
            raise Refusal(NOT_ALLOWED, "not in this state")

    async def feed(self, instance: int, start: int, content: bytes, is_last: bool) -> None:  # noqa: FBT001 - the site's
        """Take a block of a written package."""
        if self.states[instance] > 1:
            raise Refusal(NOT_ALLOWED, "uninstall first")
        if start == 0:
            self.parts[instance].clear()
        if start != len(self.parts[instance]):
            raise Refusal(INCOMPLETE, "the blocks before are not here")
        self.states[instance] = 1
        self.parts[instance] += content
        if is_last:
            self.states[instance] = 3

    async def execute(self, instance: int, resource: int, arguments: str) -> None:  # noqa: ARG002 - it reads none
        """See `ObjectPart`."""
        if resource == _INSTALL and self.states[instance] == 3:
            self.states[instance], self.results[instance] = 4, 2
        elif resource in {_ACTIVATE, _DEACTIVATE} and self.states[instance] == 4:
            self.active[instance] = resource == _ACTIVATE
        elif resource == _UNINSTALL:
            self.states[instance], self.results[instance] = 0, 0
        else:
            raise Refusal(NOT_ALLOWED, "not in this state")


class StockClient:
    """The client on its link; `run` until cancelled."""

    def __init__(self, link: Link, loss: float, *, seed: int, port: int) -> None:
        self.software = StockSoftware()
        self._relay = Relay(link, loss=loss, seed=seed, upstream=("127.0.0.1", port))
        formats = (Format.TLV, Format.TEXT, Format.OPAQUE)
        about = Fixed(3, {0: "Acme", 1: "Stock", 16: "U"})
        self._site = DeviceSite(
            ObjectTree((about, self.software), formats=formats, definitions=STANDARD),
            package=(9, 2),
            feed=self.software.feed,
            block_exponent=link.block_bytes.bit_length() - 5,
        )

    def air_bytes(self) -> int:
        """Return the bytes that were on air so far, both ways."""
        return self._relay.tally.bytes_up + self._relay.tally.bytes_down

    async def run(self) -> None:
        """Attach, serve, fetch."""
        radio_port = await self._relay.open()
        gateway = f"coap://127.0.0.1:{radio_port}"
        with held_port() as port:
            context = await Context.create_server_context(self._site, bind=("127.0.0.1", port), transports=["udp6"])
        terms = Terms(NAME, _LIFETIME_S, version="1.0")
        staying = Registration(context, gateway, terms, links=self._site.links, log=_ignore, every_s=None)
        try:
            async with asyncio.TaskGroup() as tasks:
                interface = context.request_interfaces[0].token_interface.message_interface
                there = UDP6EndpointAddress(("::ffff:127.0.0.1", radio_port, 0, 0), interface)

                def fetch(instance: int, uri: str) -> None:
                    tasks.create_task(self._fetched(context, there, urlsplit(uri).path, instance), name="fetch")

                self.software.fetch = fetch
                await staying.run()
        finally:
            await context.shutdown()
            self._relay.close()

    async def _fetched(self, context: Context, there: UDP6EndpointAddress, path: str, instance: int) -> None:
        """Fetch, without asking a resolver: it answers from a thread, which a virtual clock overtakes."""
        for _ in range(_FETCHES):
            message = Message(code=Code.GET, uri_path=tuple(path.strip("/").split("/")))
            message.remote = there
            try:
                answer = await asked(context, message)
            except error.Error:
                await asyncio.sleep(_PAUSE_S)
                continue
            if answer.code == Code.CONTENT:
                self.software.parts[instance][:] = answer.payload
                self.software.states[instance] = 3
                return
        self.software.results[instance] = _CONNECTION_LOST


def profile(link: Link, way: str) -> Profile:
    """Return what the gateway knows of it."""
    traits = Lwm2mTraits(
        endpoint=NAME, transfers=(way,), block_bytes=link.block_bytes, slot_bytes=2**20, arena_bytes=2**16
    )
    return Profile("stock", "cortex-m4", 64, 2**18, 2**21, "tflm", 1e7, 1.0, 0.001, "this benchmark", traits)


async def one_stock(link: Link, loss: float, content: bytes, *, way: str, seed: int) -> tuple[float, int] | str:
    """Push once ("push" or "pull"), all in this loop; return seconds and bytes on air, or why it failed."""
    async with push_gateway(profiles=(profile(link, way),)) as gateway, asyncio.TaskGroup() as tasks:
        client = StockClient(link, loss, seed=seed, port=gateway.port)
        running = tasks.create_task(client.run(), name="client")
        await gateway.born(NAME)
        before = client.air_bytes()
        try:
            seconds = await gateway.push(NAME, content)
        except RuntimeError as failure:
            return str(failure).rpartition("ended: ")[2]
        finally:
            running.cancel()
        return (seconds, client.air_bytes() - before) if bytes(client.software.parts[0]) == content else "other bytes"


def _ignore(event: str, **fields: object) -> None:
    """Nobody reads it."""


def _nothing(_instance: int, _uri: str) -> None:
    """Fetch nothing: not connected yet."""
