"""A board for benchmarks: the real agent and the real LwM2M device around flash in memory, without threads or an interpreter.

A model "runs" at once and gives nothing: what is measured is how its bytes travel.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gatewayd.core.device import Capabilities, EnergySource
from gatewayd.core.module import Manifest, Raw
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType
from gatewayd.sim.flash import Flash, Layout, MemoryCells
from gatewayd.sim.lwm2m_device import Lwm2mDevice
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.machine import Done, Task
from gatewayd.sim.relay import Link
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_journal import journal_bytes
from gatewayd.wire.agent_terms import (
    Board,
    EraseSlot,
    HashSlot,
    ReadSensor,
    RunDone,
    RunModel,
    RunSelfTest,
    SampleDone,
    SelfTestDone,
    SlotHashed,
    WriteJournal,
    WriteSlot,
)
from gatewayd.wire.manifest import key_ring
from gatewayd.wire.mqttdevice import FrameStatus, ResultFrame, SampleFrame

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SLOTS, SLOT_BYTES, CHUNK = 2, 393_216, 1024
_ABI = 3


@dataclass(slots=True)
class MemoryMachine:
    """Hardware in memory; see `sim.shell.Hardware`."""

    flash: Flash
    spent_nj: int = 0

    async def journals(self) -> tuple[bytes, bytes]:
        """Return both copies of the journal."""
        return self.flash.journals()

    async def execute(self, task: Task) -> Done | None:
        """Carry out one command."""
        match task:
            case EraseSlot(slot, offset, end):
                self.flash.erase(slot, offset, end)
            case WriteSlot(slot, offset, content):
                self.flash.write(slot, offset, content)
            case WriteJournal(copy, offset, content):
                self.flash.write_journal(copy, offset, content)
            case HashSlot(slot, size_bytes, offset):
                return SlotHashed(slot, self.flash.digest(slot, size_bytes, offset))
            case RunSelfTest(slot):
                return SelfTestDone(slot, b"", DType.INT8)
            case RunModel(request):
                return RunDone(ResultFrame(request, FrameStatus.OK, 1, 1, 0, b"\0"))
            case ReadSensor(request):
                return SampleDone(SampleFrame(request, FrameStatus.REFUSED, 0, 0, reason="no sensor"))
        return None


def capabilities() -> Capabilities:
    """Return what the board says of itself."""
    return Capabilities(
        board="bench", cpu="cortex-m4", clock_mhz=100, ram_bytes=262_144, flash_bytes=2**20, runtime="tflm",
        runtime_version="0", runtime_abi=_ABI, arena_bytes=65_536, slot_bytes=SLOT_BYTES, chunk_bytes=CHUNK,
        energy_source=EnergySource.MAINS, operators=None, sensors=(),
    )  # fmt: skip


def memory_device(options: Lwm2mOptions, radio: Link | None) -> Lwm2mDevice:
    """Return a device with empty flash."""
    keys = key_ring([KEY.public_key().public_bytes_raw()])
    agent = Agent(Board(capabilities(), SLOTS, CHUNK, keys))
    return Lwm2mDevice(agent, MemoryMachine(_flash()), radio=radio, options=options, log=_ignore)


def manifest_of(digest: Digest, size_bytes: int, *, version: int) -> Manifest:
    """Return what the board takes any bytes for."""
    return Manifest(
        model=ModelName("bench"), version=version, target="bench", digest=digest, size_bytes=size_bytes, encoding=Raw(),
        runtime_abi=_ABI, operators=(), arena_bytes=1024, inputs=(), outputs=(), self_test=None,
    )  # fmt: skip


def _flash() -> Flash:
    layout = Layout(SLOTS, SLOT_BYTES, CHUNK, journal_bytes(SLOTS, CHUNK))
    return Flash(layout, MemoryCells(layout))


def _ignore(event: str, **fields: object) -> None:
    """Nobody reads it."""
