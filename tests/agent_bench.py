"""A device around the agent without a process (`prove.shell`), and a gateway's side to play."""

from collections.abc import Callable, Sequence

from gatewayd.core.device import Capabilities, EnergySource, PushPhase, PushReport, Sensor, SlotState
from gatewayd.core.model import SelfTest
from gatewayd.core.names import DeviceId, ModelName, PushId
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.sim.flash import Power, PowerCut, Tear
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage, ResultFrame, SampleFrame
from prove.device import digest_of
from prove.shell import Shell
from tests.signing import KEYS, offer_bytes

SLOT_BYTES, CHUNK, PAGE, ARENA = 256, 32, 32, 1000
DEVICE = DeviceId("bench")
BAD, BROKEN = b"BAD!", b"CRSH"


def make_capabilities(
    *,
    arena: int = ARENA,
    operators: frozenset[str] | None = frozenset({"CONV_2D"}),
    slot_bytes: int = SLOT_BYTES,
    deflate_bits: int | None = None,
) -> Capabilities:
    mic = Sensor("mic", TensorSpec("mic", DType.INT8, (4,)))
    return Capabilities(
        board="bench", cpu="m4", clock_mhz=1, ram_bytes=1, flash_bytes=1, runtime="tflm", runtime_version="0", runtime_abi=3,
        arena_bytes=arena, slot_bytes=slot_bytes, chunk_bytes=CHUNK, energy_source=EnergySource.BATTERY,
        operators=operators, sensors=(mic,), deflate_bits=deflate_bits, page_bytes=PAGE if deflate_bits else None,
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
    digest = digest_of(content)
    test = SelfTest(7, b"good", 0)
    return OfferMessage(PushId(push), ModelName(model), version, digest, len(content), arena, abi, (operator,), test)


class Bench(Shell):
    """A device and a gateway's side to play; what it says and does is kept, a power cut is a reboot."""

    def __init__(
        self,
        *,
        slot_count: int = 2,
        page_bytes: int = PAGE,
        capabilities: Capabilities | None = None,
        takes_one_slot: bool = False,
    ) -> None:
        self.capabilities = capabilities or make_capabilities()
        self.slot_count, self.page_bytes = slot_count, page_bytes
        self.now_ms = 0
        self.dies_in_test = False
        self.said: list[terms.Publish] = []
        self.commands: list[terms.Command] = []
        board = terms.Board(self.capabilities, slot_count, page_bytes, KEYS, takes_one_slot=takes_one_slot)
        super().__init__(board, battery_percent=90)

    # what happens to the device

    def boot(self) -> None:
        """Power on: RAM is gone, flash is what it is."""
        self._cuttable(lambda: self.power_on(self.now_ms))

    def cut_after(self, operations: int, tear: Tear = Tear.HALF) -> None:
        """So many flash operations from now the power goes."""
        self.flash.power = Power(operations, tear)

    def start(self) -> "Bench":
        self.boot()
        self.take(terms.Connected())
        return self

    def take(self, event: terms.Event) -> None:
        """Hand in an event and all that comes of it; a power cut is a reboot."""
        self._cuttable(lambda: self.hand_in(event, self.now_ms))

    def _cuttable(self, act: Callable[[], None]) -> None:
        try:
            act()
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

    def carry_out(self, event: terms.Event, commands: Sequence[terms.Command]) -> list[terms.Event]:
        self.commands += commands
        return super().carry_out(event, commands)

    def publish(self, command: terms.Publish) -> None:
        self.said.append(command)

    def run_test(self, command: terms.RunSelfTest) -> terms.SelfTestDone:
        if self.dies_in_test:
            raise PowerCut("the model reset the device")
        kind = self.flash.read(command.slot, 0, 4)
        return terms.SelfTestDone(command.slot, kind, DType.INT8, "arena too small" if kind == BROKEN else "")

    def run_model(self, command: terms.RunModel) -> terms.RunDone:
        output = self.flash.read(command.slot, 4, 4) + (command.content or b"mic")
        return terms.RunDone(ResultFrame(command.request, FrameStatus.OK, 1, 2, 3, output))

    def read_sensor(self, command: terms.ReadSensor) -> terms.SampleDone:
        return terms.SampleDone(SampleFrame(command.request, FrameStatus.OK, 2, 3, b"four"))

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
