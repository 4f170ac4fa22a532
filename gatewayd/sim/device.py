"""A simulated device: the shell around `wire.agent`, as a firmware's main loop is.

Messages come in over the simulated radio, one event at a time goes to the agent, its commands are carried out in order, and
what they give back goes to the agent before the next message.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from gatewayd.sim.board import BATTERY_UJ, Truth
from gatewayd.sim.client import ClientCallbacks, ClientOptions, DeviceClient
from gatewayd.sim.log import EventLog
from gatewayd.sim.machine import Done, Machine
from gatewayd.sim.radio import Radio, air_bytes
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_terms import (
    BatteryChanged,
    Booted,
    Command,
    Connected,
    Disconnected,
    Event,
    Ignored,
    MessageReceived,
    Publish,
    Ticked,
)

MAX_INBOX = 64
"""Messages that wait for the agent. Past it a message is lost, as in a device's receive ring."""
_QUIET = {"chunk"}
_GATEWAY_S = 3.0
"""How long after connecting the gateway's retained status may take before its absence is told. Assumed: it comes at once."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """The process was asked to end."""


class SimDevice:
    """One device. `run` ends after `stop`."""

    def __init__(self, agent: Agent, machine: Machine, *, truth: Truth, options: ClientOptions, log: EventLog) -> None:
        self._agent = agent
        self._machine = machine
        self._log = log
        self._inbox: asyncio.Queue[Event | _Stop] = asyncio.Queue()
        self._down: Radio[MessageReceived] = Radio(truth.link, self._arrived)
        self._up: Radio[Publish] = Radio(truth.link, self._leave)
        callbacks = ClientCallbacks(self._connected, self._disconnected, self._received, self._gateway_heard)
        self._gateway = options.gateway
        self._is_gateway_heard = False
        self._client = DeviceClient(options, callbacks)
        self._start_percent = agent.state.battery_percent

    async def run(self) -> None:
        """Boot, connect, serve until `stop`, say goodbye.

        Raises: FlashFault, OSError: a board would reset; the process ends and is started again by whoever runs it.
        """
        async with asyncio.TaskGroup() as group:
            lanes = [
                group.create_task(self._down.run(), name="radio-down"),
                group.create_task(self._up.run(), name="radio-up"),
            ]
            await self._take(Booted(await asyncio.to_thread(self._machine.flash.journals)))
            self._client.start()
            try:
                await self._serve()
            finally:
                await self._client.close()
                for lane in lanes:
                    lane.cancel()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._inbox.put_nowait(_Stop())

    async def _serve(self) -> None:
        while not isinstance(event := await self._next(), _Stop):
            await self._take(event)

    async def _next(self) -> Event | _Stop:
        due_ms = self._agent.due_ms()
        wait_s = None if due_ms is None else max(0, due_ms - self._now_ms()) / 1000
        try:
            async with asyncio.timeout(wait_s):
                return await self._inbox.get()
        except TimeoutError:
            return Ticked()

    async def _take(self, event: Event) -> None:
        events: deque[Event] = deque([event])
        while events:
            for command in self._agent.handle(events.popleft(), self._now_ms()):
                done = await self._execute(command)
                if done is not None:
                    events.append(done)
            if (battery := self._battery()) is not None:
                events.append(battery)

    async def _execute(self, command: Command) -> Done | None:
        if isinstance(command, Publish):
            self._publish(command)
            return None
        if isinstance(command, Ignored):
            self._log("ignored", reason=command.reason)
            return None
        self._log(type(command).__name__, slot=getattr(command, "slot", "-"), offset=getattr(command, "offset", "-"))
        return await self._machine.execute(command)

    def _battery(self) -> BatteryChanged | None:
        if self._start_percent is None:
            return None
        spent = self._machine.spent_nj / 1e3 / BATTERY_UJ
        percent = max(0, self._start_percent - int(spent * 100))
        return None if percent == self._agent.state.battery_percent else BatteryChanged(percent)

    def _publish(self, command: Publish) -> None:
        shown = command.payload.decode()[:120] if command.kind == "push" else f"{len(command.payload)} bytes"
        self._log("publish", kind=command.kind, content=shown)
        if not self._up.send(command, air_bytes(self._client.topic(command.kind), command.payload)):
            self._log("lost", direction="up", kind=command.kind)

    def _leave(self, command: Publish) -> None:
        self._client.publish(command.kind, command.payload, qos=command.qos, retain=command.retain)

    def _received(self, kind: str, payload: bytes) -> None:
        if not self._down.send(MessageReceived(kind, payload), air_bytes(self._client.topic(kind), payload)):
            self._log("lost", direction="down", kind=kind)

    def _arrived(self, message: MessageReceived) -> None:
        if self._inbox.qsize() >= MAX_INBOX:
            self._log("lost", direction="down", kind=message.kind, reason="inbox full")
            return
        if message.kind not in _QUIET:
            self._log("received", kind=message.kind, bytes=len(message.payload))
        self._inbox.put_nowait(message)

    def _connected(self) -> None:
        self._log("connected", gateway=self._gateway)
        asyncio.get_running_loop().call_later(_GATEWAY_S, self._ask_who_is_there)
        self._inbox.put_nowait(Connected())

    def _disconnected(self, reason: str) -> None:
        self._log("disconnected", reason=reason)
        self._inbox.put_nowait(Disconnected())

    def _gateway_heard(self) -> None:
        if not self._is_gateway_heard:
            self._log("gateway-heard")
        self._is_gateway_heard = True

    def _ask_who_is_there(self) -> None:
        if not self._is_gateway_heard:
            prefix, _, node = self._gateway.rpartition("/")
            hint = f"nothing heard from gateway {node} at this broker: is --node right (and --prefix {prefix})?"
            self._log("alone", hint=hint)

    @staticmethod
    def _now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)
