"""The device of the proof: the real agent on simulated flash. A model's answer is made from the bytes in flash."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.core.device import Capabilities, EnergySource, SlotState
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType
from gatewayd.wire import agent_terms as terms
from gatewayd.wire.mqttdevice import FrameStatus, ResultFrame, SampleFrame
from prove.shell import Asking, Shell

MODEL = ModelName("kws")
ANSWER_BYTES = 4
_EXERCISED_BYTES = 256
_DIGEST_AT, _SLOT_BYTES = 100, 104
"""Within a state record: a byte of the first slot's digest, and the way to the next slot's."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The board's flash and receive buffer. `deflate_bits`: it is pushed to compressed, within such a window.

    `drops`: another model gives way to the new version as well, and may be told to go.
    """

    page_bytes: int
    chunk_bytes: int
    slot_bytes: int
    slot_count: int = 2
    deflate_bits: int | None = None
    drops: bool = False

    def board(self, keys: dict[bytes, bytes]) -> terms.Board:
        """Return the board's constants."""
        capabilities = Capabilities(
            board="proof", cpu="m4", clock_mhz=64, ram_bytes=2**18, flash_bytes=2**20, runtime="tflm", runtime_version="1",
            runtime_abi=3, arena_bytes=2**15, slot_bytes=self.slot_bytes, chunk_bytes=self.chunk_bytes,
            energy_source=EnergySource.MAINS, operators=None, sensors=(), deflate_bits=self.deflate_bits,
            page_bytes=self.page_bytes, drops_models=self.drops,
        )  # fmt: skip
        return terms.Board(capabilities, self.slot_count, self.page_bytes, keys, takes_one_slot=self.slot_count == 1)


def answer_of(content: bytes) -> bytes:
    """Return what a model says to any input: made from its beginning only, because no input exercises every weight."""
    return hashlib.sha256(content[:_EXERCISED_BYTES]).digest()[:ANSWER_BYTES]


class Device(Shell):
    """One board with power. `publish` takes what the agent says; `unpackings` counts the streams that were decoded."""

    def __init__(self, geometry: Geometry, keys: dict[bytes, bytes], publish: Callable[[terms.Publish], None]) -> None:
        super().__init__(geometry.board(keys))
        self._publish = publish
        self.unpackings = 0
        self.resets_in_test: int | None = None
        self.resets_in_run: int | None = None
        """A version that resets the board, when it is tested or when it runs."""

    def listen(self, publish: Callable[[terms.Publish], None]) -> None:
        """Give what the agent says to somebody else from now on."""
        self._publish = publish

    def publish(self, command: terms.Publish) -> None:
        """See `Shell`."""
        self._publish(command)

    def run_test(self, command: terms.RunSelfTest) -> terms.SelfTestDone:
        """See `Shell`."""
        self._watch(command.slot, self.resets_in_test)
        return terms.SelfTestDone(command.slot, self._run(command.slot, command.size_bytes), DType.INT8)

    def run_model(self, command: terms.RunModel) -> terms.RunDone:
        """See `Shell`."""
        self._watch(command.slot, self.resets_in_run)
        output = self._run(command.slot, command.size_bytes)
        return terms.RunDone(ResultFrame(command.request, FrameStatus.OK, 1, 1, 1, output))

    def read_sensor(self, command: terms.ReadSensor) -> terms.SampleDone:
        """See `Shell`."""
        return terms.SampleDone(SampleFrame(command.request, FrameStatus.OK, 1, 1, b"x"))

    def models(self) -> dict[int, tuple[SlotState, int, bytes]]:
        """Return what may run: slot → (state, version, the bytes in flash)."""
        return {
            index: (slot.state, slot.version, self.flash.read(index, 0, slot.size_bytes))
            for index, slot in enumerate(self.agent.state.slots)
            if slot.state in {SlotState.ACTIVE, SlotState.TRIAL}
        }

    def rot_journal(self, copy: int) -> None:
        """Flip bits in every state record of a copy: in the digests of all slots, which nothing but the checksum guards."""
        layout = self.flash.layout
        content = self.flash.journals()[copy]
        for found in re.finditer(b"GWJ3", content):
            for slot in range(layout.slot_count):
                at = found.start() + _DIGEST_AT + slot * _SLOT_BYTES
                self.cells.content[layout.journal_address(copy) + at] ^= 1

    def _answer(self, command: Asking) -> terms.Event:
        self.unpackings += isinstance(command, terms.InflateSlot)
        return super()._answer(command)

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
