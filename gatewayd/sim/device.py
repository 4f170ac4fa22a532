"""A simulated device that speaks MQTT: the agent's messages over the simulated radio and a real broker."""

import asyncio

from gatewayd.sim.board import Truth
from gatewayd.sim.client import ClientCallbacks, ClientOptions, DeviceClient
from gatewayd.sim.conditions import Conditions
from gatewayd.sim.log import EventLog
from gatewayd.sim.machine import Machine
from gatewayd.sim.radio import Radio, air_bytes
from gatewayd.sim.shell import AgentShell
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_terms import Connected, Disconnected, MessageReceived, Publish

_QUIET = {"chunk"}
_GATEWAY_S = 3.0
"""How long after connecting the gateway's retained status may take before its absence is told. Assumed: it comes at once."""


class SimDevice:
    """One device. `run` ends after `stop`."""

    def __init__(
        self,
        agent: Agent,
        machine: Machine,
        *,
        truth: Truth,
        options: ClientOptions,
        log: EventLog,
        conditions: Conditions | None = None,
    ) -> None:
        self._log = log
        self._down: Radio[MessageReceived] = Radio(truth.link, self._arrived, conditions)
        self._up: Radio[Publish] = Radio(truth.link, self._leave, conditions)
        self._shell = AgentShell(agent, machine, log=log, publish=self._publish)
        callbacks = ClientCallbacks(self._connected, self._disconnected, self._received, self._gateway_heard)
        self._gateway = options.gateway
        self._is_gateway_heard = False
        self._client = DeviceClient(options, callbacks)

    async def run(self) -> None:
        """Boot, connect, serve until `stop`, say goodbye.

        Raises: FlashFault, OSError: a board would reset; the process ends and is started again by whoever runs it.
        """
        async with asyncio.TaskGroup() as group:
            lanes = [
                group.create_task(self._down.run(), name="radio-down"),
                group.create_task(self._up.run(), name="radio-up"),
            ]
            await self._shell.boot()
            self._client.start()
            try:
                await self._shell.serve()
            finally:
                await self._client.close()
                for lane in lanes:
                    lane.cancel()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._shell.stop()

    def _publish(self, command: Publish) -> None:
        if not self._up.send(command, air_bytes(self._client.topic(command.kind), command.payload)):
            self._log("lost", direction="up", kind=command.kind)

    def _leave(self, command: Publish) -> None:
        self._client.publish(command.kind, command.payload, qos=command.qos, retain=command.retain)

    def _received(self, kind: str, payload: bytes) -> None:
        if not self._down.send(MessageReceived(kind, payload), air_bytes(self._client.topic(kind), payload)):
            self._log("lost", direction="down", kind=kind)

    def _arrived(self, message: MessageReceived) -> None:
        if not self._shell.post(message):
            self._log("lost", direction="down", kind=message.kind, reason="inbox full")
        elif message.kind not in _QUIET:
            self._log("received", kind=message.kind, bytes=len(message.payload))

    def _connected(self) -> None:
        self._log("connected", gateway=self._gateway)
        asyncio.get_running_loop().call_later(_GATEWAY_S, self._ask_who_is_there)
        self._shell.post(Connected())

    def _disconnected(self, reason: str) -> None:
        self._log("disconnected", reason=reason)
        self._shell.post(Disconnected())

    def _gateway_heard(self) -> None:
        if not self._is_gateway_heard:
            self._log("gateway-heard")
        self._is_gateway_heard = True

    def _ask_who_is_there(self) -> None:
        if not self._is_gateway_heard:
            prefix, _, node = self._gateway.rpartition("/")
            hint = f"nothing heard from gateway {node} at this broker: is --node right (and --prefix {prefix})?"
            self._log("alone", hint=hint)
