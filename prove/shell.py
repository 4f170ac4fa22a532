"""The shell around an agent on simulated flash, without a process and without a clock: what proofs and tests share.

It carries out what touches flash; what the model and the sensors say is for the class that fills it in.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from gatewayd.sim.flash import Flash, Layout, MemoryCells, Power
from gatewayd.sim.unpack import unpacked
from gatewayd.wire import agent_terms as terms
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_journal import WORD_BYTES, journal_bytes

Asking = terms.HashSlot | terms.InflateSlot | terms.RunSelfTest | terms.RunModel | terms.ReadSensor
"""The commands that give something back."""


class Shell(ABC):
    """One board with power, its flash in memory. Flash operations raise PowerCut where `flash.power` says so."""

    def __init__(self, board: terms.Board, *, battery_percent: int | None = None) -> None:
        self.board = board
        self.battery_percent = battery_percent
        layout = layout_of(board)
        self.cells = MemoryCells(layout)
        self.flash = Flash(layout, self.cells)
        self.agent = self._new_agent()

    def power_on(self, now_ms: int) -> None:
        """Start: RAM is gone, flash is what it is. Raises: PowerCut."""
        self.flash.power = Power()
        self.restart(now_ms)

    def restart(self, now_ms: int) -> None:
        """As `power_on`, but a cut that is due stays due. Raises: PowerCut."""
        self.agent = self._new_agent()
        self.hand_in(terms.Booted(self.flash.journals()), now_ms)

    def hand_in(self, event: terms.Event, now_ms: int) -> None:
        """Hand in an event and all that comes of it. Raises: PowerCut."""
        events = deque([event])
        while events:
            taken = events.popleft()
            commands = self.agent.handle(taken, now_ms)
            if len(commands) > terms.MAX_COMMANDS:
                raise AssertionError(f"{len(commands)} commands")
            events += self.carry_out(taken, commands)

    def carry_out(self, event: terms.Event, commands: Sequence[terms.Command]) -> list[terms.Event]:  # noqa: ARG002 - to be seen by who records
        """Carry out in order what `event` led to; return what comes back."""
        return [done for command in commands if (done := self.execute(command)) is not None]

    @abstractmethod
    def publish(self, command: terms.Publish) -> None:
        """Take what the agent says."""

    @abstractmethod
    def run_test(self, command: terms.RunSelfTest) -> terms.SelfTestDone:
        """Run the model on the self-test's input."""

    @abstractmethod
    def run_model(self, command: terms.RunModel) -> terms.RunDone:
        """Run the model."""

    @abstractmethod
    def read_sensor(self, command: terms.ReadSensor) -> terms.SampleDone:
        """Read a sensor."""

    def _new_agent(self) -> Agent:
        return Agent(self.board, battery_percent=self.battery_percent)

    def execute(self, command: terms.Command) -> terms.Event | None:
        """Carry out one command; return what it gives back."""
        match command:
            case terms.Publish():
                self.publish(command)
            case terms.EraseSlot(slot, offset, end):
                self.flash.erase(slot, offset, end)
            case terms.WriteSlot(slot, offset, content):
                self.flash.write(slot, offset, content)
            case terms.WriteJournal(copy, offset, content):
                self.flash.write_journal(copy, offset, content)
            case terms.Ignored():
                pass
            case _:
                return self._answer(command)
        return None

    def _answer(self, command: Asking) -> terms.Event:
        match command:
            case terms.HashSlot(slot, size_bytes, offset):
                return terms.SlotHashed(slot, self.flash.digest(slot, size_bytes, offset))
            case terms.InflateSlot():
                return unpacked(self.flash, command)
            case terms.RunSelfTest():
                return self.run_test(command)
            case terms.RunModel():
                return self.run_model(command)
            case terms.ReadSensor():
                return self.read_sensor(command)


def layout_of(board: terms.Board) -> Layout:
    """Return where everything is in the flash of such a board."""
    copy_bytes = journal_bytes(board.slot_count, board.page_bytes)
    return Layout(board.slot_count, board.capabilities.slot_bytes, board.page_bytes, copy_bytes, WORD_BYTES)
