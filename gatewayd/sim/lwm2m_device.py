"""A simulated device that speaks LwM2M: the same agent, machine and flash as over MQTT, behind objects on a CoAP socket."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from aiocoap import Context  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.sim.coap_site import DeviceSite
from gatewayd.sim.conditions import Conditions
from gatewayd.sim.log import Log
from gatewayd.sim.model_objects import PACKAGE, SOFTWARE, ModelObject, RuntimeObject, SoftwareObject
from gatewayd.sim.model_slots import RUNNABLE, ModelSlots
from gatewayd.sim.objects import NOT_ALLOWED, ObjectTree, Refusal
from gatewayd.sim.pull import pull
from gatewayd.sim.registration import Registration, Terms
from gatewayd.sim.relay import Link, Relay
from gatewayd.sim.shell import AgentShell, Hardware
from gatewayd.sim.standard_objects import DeviceObject, Hooks, ServerObject, connectivity
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_terms import Connected, MessageReceived, Publish
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.objects import MODEL, STANDARD
from gatewayd.wire.lwm2m.paths import INSTANCE, Path

_FORMATS = {
    "1.0": (Format.TLV, Format.TEXT, Format.OPAQUE),
    "1.1": (Format.SENML_CBOR, Format.TLV, Format.TEXT, Format.OPAQUE, Format.CBOR, Format.SENML_JSON),
    "1.2": (Format.SENML_CBOR, Format.LWM2M_CBOR, Format.TLV, Format.TEXT, Format.OPAQUE, Format.CBOR, Format.SENML_JSON),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lwm2mOptions:
    """How the board attaches. `formats` None: what its version has. `loss` is the share of datagrams lost each way.

    `sleep_after_s`: it hears nothing so long after the last word, until its next update (queue mode); None: it is always
    there. `block_exponent`: blocks of 2**(n + 4) bytes at most. `takes_push`: packages may come by
    Block1, too, not by URI only. `infers_every_s`: it runs its model on its sensor by itself so often; whoever observes is told.
    """

    host: str
    port: int
    terms: Terms
    link: str
    loss: float = 0.0
    seed: int = 1
    formats: tuple[Format, ...] | None = None
    sleep_after_s: float | None = None
    update_every_s: float | None = None
    block_exponent: int = 6
    takes_push: bool = True
    infers_every_s: float | None = None
    observes: bool = True


class Lwm2mDevice:
    """One device. `run` ends after `stop`.

    `port` is its own socket's, on 127.0.0.1, once `attached` is set; its radio is between it and the gateway, None: there is none
    (nothing is delayed, nothing lost, it cannot sleep).
    """

    def __init__(
        self,
        agent: Agent,
        machine: Hardware,
        *,
        radio: Link | None,
        options: Lwm2mOptions,
        log: Log,
        conditions: Conditions | None = None,
    ) -> None:
        self._log, self._options, self._radio, self._conditions = log, options, radio, conditions
        self._shell = AgentShell(agent, machine, log=log, publish=self._publish)
        self.slots = ModelSlots(agent.board.slot_count, self, self._changed)
        self._has = agent.board.capabilities
        self._registration: Registration | None = None
        self._relay: Relay | None = None
        self._site = DeviceSite(
            self._tree(),
            package=(SOFTWARE, PACKAGE),
            feed=self.slots.feed if options.takes_push else _refuse,
            block_exponent=options.block_exponent,
            observes=options.observes,
            is_confirmed=self._is_confirmed,
        )
        self._group = asyncio.TaskGroup()
        self._pull: asyncio.Task[None] | None = None
        self._fetching: tuple[int, str] | None = None
        self._context: Context | None = None
        self._gateway = ""
        self.port = 0
        self.attached = asyncio.Event()

    async def run(self) -> None:
        """Boot, register, serve until `stop`, deregister.

        Raises: FlashFault, OSError: a board would reset; the process ends and is started again by whoever runs it.
        """
        async with self._group:
            await self._shell.boot()
            serving = self._group.create_task(self._shell.serve(), name="agent")
            await self._shell.submit(Connected())
            await self._attach()
            beside = [self._group.create_task(self._registered().run(), name="registration")]
            if self._options.infers_every_s is not None:
                beside.append(self._group.create_task(self._infer(self._options.infers_every_s), name="own runs"))
            try:
                await serving
            finally:
                for each in beside:
                    each.cancel()
                self.fetch(0, "")
                await self._detach()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._shell.stop()

    def rebind(self) -> None:
        """Get another address, as behind a NAT that forgot this device."""
        if self._relay is not None:
            self._relay.rebind()

    def air_bytes(self) -> int:
        """Return the bytes that were on air so far, both ways."""
        return 0 if self._relay is None else self._relay.tally.bytes_up + self._relay.tally.bytes_down

    async def submit(self, message: MessageReceived) -> None:
        """See `model_slots.Commands`."""
        await self._shell.submit(message)

    def fetch(self, slot: int, uri: str) -> None:
        """See `model_slots.Commands`. A URI that is being pulled already goes on."""
        if self._pull is not None and not self._pull.done() and self._fetching == (slot, uri):
            return
        if self._pull is not None:
            self._pull.cancel()
        if uri and self._context is not None:
            self._fetching = (slot, uri)
            self._pull = self._group.create_task(self._pulled(slot, uri), name="pull")

    async def _infer(self, every_s: float) -> None:
        """Run what the slots hold on the first sensor, for ever."""
        while True:
            await asyncio.sleep(every_s)
            for slot in self.slots.slots:
                if slot.state in RUNNABLE and self._has.sensors:
                    with suppress(Refusal):  # it has enough to do as it is
                        await self.slots.run(slot.index, 0)

    async def _pulled(self, slot: int, uri: str) -> None:
        self._log("pulling", uri=uri, slot=slot, offset=self.slots.held_bytes(slot))
        exponent = min(self._options.block_exponent, max(0, self._has.chunk_bytes.bit_length() - 5))
        await pull(self._context, self._gateway, uri, slots=self.slots, instance=slot, exponent=exponent, log=self._log)

    async def _attach(self) -> None:
        """Open the radio and the socket behind it."""
        options = self._options
        self._gateway = f"coap://{options.host}:{options.port}"
        if self._radio is not None:
            self._gateway = f"coap://127.0.0.1:{await self._radioed(self._radio)}"
        with held_port() as self.port:
            self._context = await Context.create_server_context(
                self._site, bind=("127.0.0.1", self.port), transports=["udp6"]
            )
        self._registration = Registration(
            self._context,
            self._gateway,
            options.terms,
            links=self._site.links,
            log=self._log,
            every_s=options.update_every_s,
        )
        self.attached.set()

    async def _radioed(self, radio: Link) -> int:
        """Put the radio between this device and its gateway; return the port of this end."""
        options = self._options
        host = (
            options.host if _is_address(options.host) else await asyncio.to_thread(socket.gethostbyname, options.host)
        )
        self._relay = Relay(
            radio,
            loss=options.loss,
            seed=options.seed,
            upstream=(host, options.port),
            sleep_after_s=options.sleep_after_s,
            conditions=self._conditions,
        )
        return await self._relay.open()

    async def _detach(self) -> None:
        if self._registration is not None:
            await self._registration.leave()
        if self._context is not None:
            await self._context.shutdown()
        if self._relay is not None:
            self._relay.close()

    def _tree(self) -> ObjectTree:
        options = self._options
        binding = "UQ" if options.terms.is_sleepy else "U"
        hooks = Hooks(
            lifetime_s=lambda: self._registered().lifetime_s,
            change_lifetime=lambda lifetime_s: self._registered().change_lifetime(lifetime_s),
            update=lambda: self._registered().trigger(),
            reboot=self._reboot,
            battery_percent=lambda: self._shell.agent.state.battery_percent,
        )
        has, serial = self._has, options.terms.endpoint
        parts = (
            ServerObject(hooks, binding=binding),
            DeviceObject(hooks, board=has.board, serial=serial, ram_bytes=has.ram_bytes, binding=binding),
            connectivity(options.link),
            SoftwareObject(self.slots),
            RuntimeObject(self.slots, has),
            ModelObject(self.slots),
        )
        return ObjectTree(parts, formats=options.formats or _FORMATS[options.terms.version], definitions=STANDARD)

    async def _reboot(self) -> None:
        self._log("reboot")
        self.fetch(0, "")
        self.slots.forget()
        await self._shell.restart()
        await self._shell.submit(Connected())
        self._registered().trigger()

    def _registered(self) -> Registration:
        if self._registration is None:
            raise RuntimeError("the device is not attached yet")
        return self._registration

    def _publish(self, said: Publish) -> None:
        self.slots.take(said)

    def _is_confirmed(self, path: Path) -> bool:
        """The result of a run that was asked for is read when its notification is lost; all else nobody would ask for."""
        is_slot = path.depth == INSTANCE and path.object == MODEL
        return not is_slot or self.slots.outcomes[path.ids[1]].tag == 0

    def _changed(self) -> None:
        self._site.changed()


async def _refuse(instance: int, start: int, content: bytes) -> None:
    raise Refusal(NOT_ALLOWED, f"instance {instance} takes a URI, not {len(content)} bytes from {start}")


def _is_address(host: str) -> bool:
    with suppress(OSError):
        return bool(socket.inet_aton(host))
    return False


@contextmanager
def held_port() -> Iterator[int]:
    """Hold a free UDP port of 127.0.0.1 until aiocoap has bound it, too.

    aiocoap binds with SO_REUSEPORT, so it never fails on a taken port: two boards that were told the same free one would get
    each other's messages. The kernel gives a port that nobody has only to a socket without that option, and lets aiocoap in
    beside it once it has the option.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield int(held.getsockname()[1])
