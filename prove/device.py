"""The device of the proof: the real agent on simulated flash. A model's answer is made from the bytes in flash."""

import hashlib
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.core.device import Capabilities, EnergySource, SlotState
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType
from gatewayd.sim.flash import Flash, Layout, MemoryCells, Power
from gatewayd.wire import agent_terms as terms
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_journal import journal_bytes
from gatewayd.wire.mqttdevice import FrameStatus, ResultFrame, SampleFrame

MODEL = ModelName("kws")
WORD_BYTES = 16
ANSWER_BYTES = 4
_EXERCISED_BYTES = 256
_DIGESTS_AT = (100, 200)


@dataclass(frozen=True, slots=True)
class Geometry:
    """The board's flash and receive buffer."""

    page_bytes: int
    chunk_bytes: int
    slot_bytes: int
    slot_count: int = 2

    @property
    def layout(self) -> Layout:
        """Where everything is in flash."""
        copy_bytes = journal_bytes(self.slot_count, self.page_bytes)
        return Layout(self.slot_count, self.slot_bytes, self.page_bytes, copy_bytes, WORD_BYTES)


def answer_of(content: bytes) -> bytes:
    """Return what a model says to any input: made from its beginning only, because no input exercises every weight."""
    return hashlib.sha256(content[:_EXERCISED_BYTES]).digest()[:ANSWER_BYTES]


class Device:
    """One board with power. `publish` takes what the agent says; flash operations raise PowerCut."""

    def __init__(self, geometry: Geometry, keys: dict[bytes, bytes], publish: Callable[[terms.Publish], None]) -> None:
        self._publish = publish
        capabilities = Capabilities(
            board="proof", cpu="m4", clock_mhz=64, ram_bytes=2**18, flash_bytes=2**20, runtime="tflm", runtime_version="1",
            runtime_abi=3, arena_bytes=2**15, slot_bytes=geometry.slot_bytes, chunk_bytes=geometry.chunk_bytes,
            energy_source=EnergySource.MAINS, operators=None, sensors=(),
        )  # fmt: skip
        self.board = terms.Board(capabilities, geometry.slot_count, geometry.page_bytes, keys)
        self.cells = MemoryCells(geometry.layout)
        self.flash = Flash(geometry.layout, self.cells)
        self.agent = Agent(self.board)
        self.resets_in_test: int | None = None
        self.resets_in_run: int | None = None
        """A version that resets the board, when it is tested or when it runs."""

    def boot(self, now_ms: int) -> None:
        """Power on: RAM is gone."""
        self.flash.power = Power()
        self.agent = Agent(self.board)
        self.take(terms.Booted(self.flash.journals()), now_ms)

    def take(self, event: terms.Event, now_ms: int) -> None:
        """Hand in an event and all that comes of it. Raises: PowerCut."""
        events = deque([event])
        while events:
            commands = self.agent.handle(events.popleft(), now_ms)
            if len(commands) > terms.MAX_COMMANDS:
                raise AssertionError(f"{len(commands)} commands")
            events += [done for command in commands if (done := self._execute(command)) is not None]

    def models(self) -> dict[int, tuple[SlotState, int, bytes]]:
        """Return what may run: slot → (state, version, the bytes in flash)."""
        return {
            index: (slot.state, slot.version, self.flash.read(index, 0, slot.size_bytes))
            for index, slot in enumerate(self.agent.state.slots)
            if slot.state in {SlotState.ACTIVE, SlotState.TRIAL}
        }

    def rot_journal(self, copy: int) -> None:
        """Flip bits in every state record of a copy: in the digests of both slots, which nothing but the checksum guards."""
        layout = self.flash.layout
        content = self.flash.journals()[copy]
        for found in re.finditer(b"GWJ2", content):
            for at in _DIGESTS_AT:
                self.cells.content[layout.journal_address(copy) + found.start() + at] ^= 1

    def _execute(self, command: terms.Command) -> terms.Event | None:
        match command:
            case terms.Publish():
                self._publish(command)
            case terms.EraseSlot(slot, offset):
                self.flash.erase(slot, offset)
            case terms.WriteSlot(slot, offset, content):
                self.flash.write(slot, offset, content)
            case terms.WriteJournal(copy, offset, content):
                self.flash.write_journal(copy, offset, content)
            case _:
                return self._answer(command)
        return None

    def _answer(self, command: terms.Command) -> terms.Event | None:
        match command:
            case terms.HashSlot(slot, size_bytes):
                return terms.SlotHashed(slot, self.flash.digest(slot, size_bytes))
            case terms.RunSelfTest(slot, size_bytes):
                self._watch(slot, self.resets_in_test)
                return terms.SelfTestDone(slot, self._run(slot, size_bytes), DType.INT8)
            case terms.RunModel(request, slot, size_bytes):
                self._watch(slot, self.resets_in_run)
                return terms.RunDone(ResultFrame(request, FrameStatus.OK, 1, 1, 1, self._run(slot, size_bytes)))
            case terms.ReadSensor(request):
                return terms.SampleDone(SampleFrame(request, FrameStatus.OK, 1, 1, b"x"))
            case _:
                return None

    def _run(self, slot: int, size_bytes: int) -> bytes:
        return answer_of(self.flash.read(slot, 0, min(size_bytes, _EXERCISED_BYTES)))

    def _watch(self, slot: int, poisonous: int | None) -> None:
        if self.agent.state.slots[slot].version == poisonous:
            raise ModelReset


class ModelReset(RuntimeError):
    """The model reset the board: its watchdog bit."""


def digest_of(content: bytes) -> Digest:
    """Return the SHA-256."""
    return Digest(hashlib.sha256(content).hexdigest())
