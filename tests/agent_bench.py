"""A device around the agent without a process: flash in memory that tears when the power goes, and a gateway's side to play."""

import hashlib
from collections import deque
from dataclasses import dataclass, field

from gatewayd.core.device import Capabilities, EnergySource, PushPhase, PushReport, Sensor, SlotState
from gatewayd.core.model import SelfTest
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.sim.flash import Flash, Layout, MemoryCells, Power, PowerCut, Tear
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.agent import Agent
from gatewayd.wire.agent_journal import journal_bytes
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage, ResultFrame, SampleFrame
from tests.signing import KEYS, offer_bytes

SLOT_BYTES, CHUNK, PAGE, ARENA = 256, 32, 32, 1000
DEVICE = DeviceId("bench")
BAD, BROKEN = b"BAD!", b"CRSH"


def capabilities(*, arena: int = ARENA, operators: frozenset[str] | None = frozenset({"CONV_2D"})) -> Capabilities:
    mic = Sensor("mic", TensorSpec("mic", DType.INT8, (4,)))
    return Capabilities(
        board="bench", cpu="m4", clock_mhz=1, ram_bytes=1, flash_bytes=1, runtime="tflm", runtime_version="0", runtime_abi=3,
        arena_bytes=arena, slot_bytes=SLOT_BYTES, chunk_bytes=CHUNK, energy_source=EnergySource.BATTERY,
        operators=operators, sensors=(mic,),
    )  # fmt: skip


def content_of(model: str, version: int, *, kind: bytes = b"good", size: int = 100) -> bytes:
    """A stand-in for a model file: its first four bytes say how the runtime takes it."""
    return (kind + f"{model}{version}".encode() * size)[:size]


def offer_of(
    push: int,
    content: bytes,
    *,
    model: str = "kws",
    version: int = 1,
    arena: int = 10,
    abi: int = 3,
    operator: str = "CONV_2D",
) -> OfferMessage:
    digest = Digest(hashlib.sha256(content).hexdigest())
    test = SelfTest(7, b"good", 0)
    return OfferMessage(PushId(push), ModelName(model), version, digest, len(content), arena, abi, (operator,), test)


@dataclass
class Bench:
    """Runs the agent's commands."""

    slot_count: int = 2
    page_bytes: int = PAGE
    capabilities: Capabilities = field(default_factory=capabilities)
    now_ms: int = 0
    dies_in_test: bool = False
    said: list[terms.Publish] = field(default_factory=list)
    commands: list[terms.Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        copy_bytes = journal_bytes(self.slot_count, self.page_bytes)
        layout = Layout(self.slot_count, SLOT_BYTES, self.page_bytes, copy_bytes, word_bytes=16)
        self.cells = MemoryCells(layout)
        self.flash = Flash(layout, self.cells)
        self.agent = Agent(terms.Board(self.capabilities, self.slot_count, self.page_bytes, KEYS), battery_percent=90)

    # what happens to the device

    def boot(self) -> None:
        """Power on: RAM is gone, flash is what it is."""
        self.flash.power = Power()
        self.agent = Agent(self.agent.board, battery_percent=90)
        self.take(terms.Booted(self.flash.journals()))

    def cut_after(self, operations: int, tear: Tear = Tear.HALF) -> None:
        """So many flash operations from now the power goes."""
        self.flash.power = Power(operations, tear)

    def start(self) -> "Bench":
        self.boot()
        self.take(terms.Connected())
        return self

    def take(self, event: terms.Event) -> None:
        """Hand in an event and all that comes of it; a power cut is a reboot."""
        try:
            self._take(event)
        except PowerCut:
            self.boot()

    def send(self, kind: str, payload: bytes) -> None:
        self.take(terms.MessageReceived(kind, payload))

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.take(terms.Ticked())

    # what the gateway does

    def offer(self, offer: OfferMessage) -> None:
        self.send("offer", offer_bytes(offer))

    def chunk(self, push: int, content: bytes, report: PushReport | None = None) -> None:
        """Send what was wanted last."""
        report = report or self.reports()[-1]
        piece = content[report.offset : report.offset + report.length]
        self.send("chunk", wire.encode_chunk(PushId(push), report.offset, piece))

    def transfer(self, offer: OfferMessage, content: bytes) -> None:
        """Offer, then send whatever is wanted until nothing is."""
        self.offer(offer)
        while self.reports() and self.reports()[-1].phase is PushPhase.WANT:
            self.chunk(offer.push, content)

    def push(self, offer: OfferMessage, content: bytes) -> None:
        """Play a whole push."""
        self.transfer(offer, content)
        self.send("activate", wire.encode_activate(offer.push))
        self.send("accept", wire.encode_accept(offer.push))

    def run(self, slot: int, version: int, content: bytes | None = b"\x01") -> ResultFrame:
        self.send("run", wire.encode_run(5, slot=slot, version=version, content=content))
        frame = wire.decode_up("result", self.last("result").payload, DEVICE)
        assert isinstance(frame, ResultFrame)
        return frame

    # what was said

    def last(self, kind: str) -> terms.Publish:
        return [each for each in self.said if each.kind == kind][-1]

    def reports(self) -> list[PushReport]:
        values = [wire.decode_up("push", each.payload, DEVICE) for each in self.said if each.kind == "push"]
        return [each for each in values if isinstance(each, PushReport)]

    def phases(self) -> list[str]:
        """All phases said, runs of wants as one."""
        found = [report.phase.value for report in self.reports()]
        return [phase for index, phase in enumerate(found) if index == 0 or phase != found[index - 1]]

    def slots(self) -> list[tuple[str, str, int]]:
        return [(slot.state.value, slot.model, slot.version) for slot in self.agent.state.slots]

    def runnable(self) -> dict[str, int]:
        """Models whose bytes in flash are what the agent says it runs, with their version."""
        found: dict[str, int] = {}
        for index, slot in enumerate(self.agent.state.slots):
            if slot.state is SlotState.ACTIVE and self.flash.digest(index, slot.size_bytes) == slot.digest:
                found[str(slot.model)] = max(slot.version, found.get(slot.model, 0))
        return found

    # the machine

    def _take(self, event: terms.Event) -> None:
        events = deque([event])
        while events:
            commands = self.agent.handle(events.popleft(), self.now_ms)
            assert len(commands) <= terms.MAX_COMMANDS
            self.commands += commands
            events += [done for command in commands if (done := self.execute(command)) is not None]

    def execute(self, command: terms.Command) -> terms.Event | None:
        match command:
            case terms.Publish():
                self.said.append(command)
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
            case terms.RunSelfTest(slot):
                if self.dies_in_test:
                    raise PowerCut("the model reset the device")
                kind = self.flash.read(slot, 0, 4)
                return terms.SelfTestDone(slot, kind, DType.INT8, "arena too small" if kind == BROKEN else "")
            case terms.RunModel(request, slot, _, _, content):
                output = self.flash.read(slot, 4, 4) + (content or b"mic")
                return terms.RunDone(ResultFrame(request, FrameStatus.OK, 1, 2, 3, output))
            case terms.ReadSensor(request):
                return terms.SampleDone(SampleFrame(request, FrameStatus.OK, 2, 3, b"four"))
            case _:
                return None

    def rot(self, address: int, change: int = 1) -> None:
        """Flip bits of one byte of the flash."""
        self.cells.content[address] ^= change


V1, V2 = content_of("kws", 1), content_of("kws", 2)
FIRST, SECOND = offer_of(1, V1), offer_of(2, V2, version=2)
WHOLE_PUSH = ["want", "written", "verified", "tested", "trial", "accepted"]


def installed() -> Bench:
    """A device that runs version 1."""
    bench = Bench().start()
    bench.push(FIRST, V1)
    bench.said.clear()
    return bench


def on_trial() -> Bench:
    """A device that runs version 1 and has version 2 on trial."""
    bench = installed()
    bench.transfer(SECOND, V2)
    bench.send("activate", wire.encode_activate(PushId(2)))
    bench.said.clear()
    return bench
