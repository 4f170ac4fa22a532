"""The shell around `wire.agent`, as a firmware's main loop is; whatever protocol the device speaks.

One event at a time goes to the agent, its commands are carried out in order, and what they give back goes to the agent before
the next event.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gatewayd.sim.board import BATTERY_UJ
from gatewayd.sim.log import Log
from gatewayd.sim.machine import Done, Task
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_terms import (
    BatteryChanged,
    Booted,
    Command,
    Event,
    Ignored,
    Publish,
    ReadSensor,
    RunModel,
    RunSelfTest,
    Ticked,
)

MAX_INBOX = 64
"""Messages that wait for the agent. Past it a message is lost, as in a device's receive ring."""
_LONG = (RunSelfTest, RunModel, ReadSensor)
"""Commands that take their time: whoever waits for an event to be taken does not wait for these."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """The process was asked to end."""


class Hardware(Protocol):
    """What the shell needs of a board: `sim.machine.Machine`, or one in memory. `spent_nj`: of the battery, since the start."""

    spent_nj: int

    async def journals(self) -> tuple[bytes, bytes]:
        """Return both copies of the journal as they are in flash."""

    async def execute(self, task: Task) -> Done | None:
        """Carry out one command; return what it gives back. Raises: FlashFault, OSError: the board must reset."""


class AgentShell:
    """One agent on its machine. `publish` gets what it says; `serve` ends after `stop`."""

    def __init__(self, agent: Agent, machine: Hardware, *, log: Log, publish: Callable[[Publish], None]) -> None:
        self.agent, self.machine = agent, machine
        self._log = log
        self._publish = publish
        self._inbox: asyncio.Queue[tuple[Event | _Stop, asyncio.Future[None] | None]] = asyncio.Queue()
        self._taken: asyncio.Future[None] | None = None
        self._start_percent = agent.state.battery_percent

    async def boot(self) -> None:
        """Power on: what is in flash counts. Raises: FlashFault, OSError."""
        await self._take(Booted(await self.machine.journals()))

    async def restart(self) -> None:
        """Hand in a power cycle, after what waits already."""
        await self.submit(Booted(await self.machine.journals()))

    async def serve(self) -> None:
        """Take events until `stop`.

        Raises: FlashFault, OSError: a board would reset; the process ends and is started again by whoever runs it.
        """
        while True:
            event, self._taken = await self._next()
            if isinstance(event, _Stop):
                return
            await self._take(event)
            self._tell_taken()

    def stop(self) -> None:
        """Ask `serve` to end."""
        self._inbox.put_nowait((_Stop(), None))

    def post(self, event: Event) -> bool:
        """Hand in an event; False when it was lost because too many wait."""
        if self._inbox.qsize() >= MAX_INBOX:
            return False
        self._inbox.put_nowait((event, None))
        return True

    async def submit(self, event: Event) -> None:
        """Hand in an event and return when the agent took it, its writes to flash done; a run may go on."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((event, taken))
        await taken

    async def _next(self) -> tuple[Event | _Stop, asyncio.Future[None] | None]:
        due_ms = self.agent.due_ms()
        wait_s = None if due_ms is None else max(0, due_ms - self._now_ms()) / 1000
        try:
            async with asyncio.timeout(wait_s):
                return await self._inbox.get()
        except TimeoutError:
            return Ticked(), None

    async def _take(self, event: Event) -> None:
        events: deque[Event] = deque([event])
        while events:
            for command in self.agent.handle(events.popleft(), self._now_ms()):
                done = await self._execute(command)
                if done is not None:
                    events.append(done)
            if (battery := self._battery()) is not None:
                events.append(battery)

    async def _execute(self, command: Command) -> Done | None:
        if isinstance(command, Publish):
            shown = command.payload.decode()[:120] if command.kind == "push" else f"{len(command.payload)} bytes"
            self._log("publish", kind=command.kind, content=shown)
            self._publish(command)
            return None
        if isinstance(command, Ignored):
            self._log("ignored", reason=command.reason)
            return None
        if isinstance(command, _LONG):
            self._tell_taken()
        self._log(type(command).__name__, slot=getattr(command, "slot", "-"), offset=getattr(command, "offset", "-"))
        return await self.machine.execute(command)

    def _tell_taken(self) -> None:
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)
        self._taken = None

    def _battery(self) -> BatteryChanged | None:
        if self._start_percent is None:
            return None
        spent = self.machine.spent_nj / 1e3 / BATTERY_UJ
        percent = max(0, self._start_percent - int(spent * 100))
        return None if percent == self.agent.state.battery_percent else BatteryChanged(percent)

    @staticmethod
    def _now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)
