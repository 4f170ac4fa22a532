"""A simulated device that speaks LwM2M: the same agent, machine and flash as over MQTT, behind objects on a CoAP socket."""

import asyncio
from contextlib import suppress

from gatewayd.sim.coap_site import DeviceSite
from gatewayd.sim.conditions import Conditions
from gatewayd.sim.log import Log
from gatewayd.sim.lwm2m_options import FORMATS, Lwm2mOptions
from gatewayd.sim.model_objects import PACKAGE, SOFTWARE, ModelObject, RuntimeObject, SoftwareObject
from gatewayd.sim.model_slots import RUNNABLE, ModelSlots
from gatewayd.sim.objects import NOT_ALLOWED, ObjectTree, Refusal
from gatewayd.sim.pull import pull
from gatewayd.sim.relay import Link
from gatewayd.sim.shell import AgentShell, Hardware
from gatewayd.sim.standard_objects import DeviceObject, ServerObject, connectivity
from gatewayd.sim.uplink import Uplink
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_terms import Connected, MessageReceived, Publish
from gatewayd.wire.lwm2m.objects import MODEL, STANDARD
from gatewayd.wire.lwm2m.paths import INSTANCE, Path


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
        self._log, self._options = log, options
        self._uplink = Uplink(options, radio, log, conditions)
        self._shell = AgentShell(agent, machine, log=log, publish=self._publish)
        self.slots = ModelSlots(agent.board.slot_count, self, self._changed)
        self._has = agent.board.capabilities
        self._site = DeviceSite(
            self._tree(),
            package=(SOFTWARE, PACKAGE),
            feed=self._feed if options.takes_push else _refuse,
            block_exponent=options.block_exponent,
            observes=options.observes,
            is_confirmed=self._is_confirmed,
        )
        self._group = asyncio.TaskGroup()
        self._pull: asyncio.Task[None] | None = None
        self._fetching: tuple[int, str] | None = None

    async def run(self) -> None:
        """Boot, register, serve until `stop`, deregister.

        Raises: FlashFault, OSError: a board would reset; the process ends and is started again by whoever runs it.
        """
        async with self._group:
            await self._shell.boot()
            serving = self._group.create_task(self._shell.serve(), name="agent")
            await self._shell.submit(Connected())
            await self._uplink.open(self._site)
            beside = [self._group.create_task(self._uplink.registration.run(), name="registration")]
            if self._options.infers_every_s is not None:
                beside.append(self._group.create_task(self._infer(self._options.infers_every_s), name="own runs"))
            try:
                await serving
            finally:
                for each in beside:
                    each.cancel()
                self.fetch(0, "")
                await self._uplink.close()

    @property
    def port(self) -> int:
        """Its own socket's, once `attached` is set."""
        return self._uplink.port

    @property
    def attached(self) -> asyncio.Event:
        """Set when its socket is open."""
        return self._uplink.attached

    def stop(self) -> None:
        """Ask `run` to end."""
        self._shell.stop()

    def rebind(self) -> None:
        """Get another address, as behind a NAT that forgot this device."""
        self._uplink.rebind()

    def air_bytes(self) -> int:
        """Return the bytes that were on air so far, both ways."""
        return self._uplink.air_bytes()

    async def submit(self, message: MessageReceived) -> None:
        """See `model_slots.Commands`."""
        await self._shell.submit(message)

    def fetch(self, slot: int, uri: str) -> None:
        """See `model_slots.Commands`. A URI that is being pulled already goes on."""
        if self._pull is not None and not self._pull.done() and self._fetching == (slot, uri):
            return
        if self._pull is not None:
            self._pull.cancel()
        if uri and self._uplink.context is not None:
            self._fetching = (slot, uri)
            self._pull = self._group.create_task(self._pulled(slot, uri), name="pull")

    async def _feed(self, instance: int, start: int, content: bytes, is_last: bool) -> None:  # noqa: FBT001, ARG002 - the manifest says where the end is
        await self.slots.feed(instance, start, content)

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
        way = (self._uplink.context, self._uplink.gateway)
        await pull(*way, uri, slots=self.slots, instance=slot, exponent=exponent, log=self._log)

    def _tree(self) -> ObjectTree:
        options = self._options
        binding = "UQ" if options.terms.is_sleepy else "U"
        hooks = self._uplink.hooks(reboot=self._reboot, battery_percent=lambda: self._shell.agent.state.battery_percent)
        has, serial = self._has, options.terms.endpoint
        parts = (
            ServerObject(hooks, binding=binding),
            DeviceObject(hooks, board=has.board, serial=serial, ram_bytes=has.ram_bytes, binding=binding),
            connectivity(options.link),
            SoftwareObject(self.slots),
            RuntimeObject(self.slots, has),
            ModelObject(self.slots),
        )
        return ObjectTree(parts, formats=options.formats or FORMATS[options.terms.version], definitions=STANDARD)

    async def _reboot(self) -> None:
        self._log("reboot")
        self.fetch(0, "")
        self.slots.forget()
        await self._shell.restart()
        await self._shell.submit(Connected())
        self._uplink.update()

    def _publish(self, said: Publish) -> None:
        self.slots.take(said)

    def _is_confirmed(self, path: Path) -> bool:
        """The result of a run that was asked for is read when its notification is lost; all else nobody would ask for."""
        is_slot = path.depth == INSTANCE and path.object == MODEL
        return not is_slot or self.slots.outcomes[path.ids[1]].tag == 0

    def _changed(self) -> None:
        self._site.changed()


async def _refuse(instance: int, start: int, content: bytes, is_last: bool) -> None:  # noqa: FBT001, ARG001 - a feed's shape
    raise Refusal(NOT_ALLOWED, f"instance {instance} takes a URI, not {len(content)} bytes from {start}")
