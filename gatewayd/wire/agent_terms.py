"""What the device agent is told (events), what it tells its shell to do (commands), and the one struct it keeps.

Everything has a fixed size, so that a C port needs no allocator: slots are at most 8, names 63 characters, one offer and one
chunk are held at a time, one event gives at most `MAX_COMMANDS` commands. No I/O here, and no clock: time comes with the event.

The shell's contract: it carries out the commands of one event in order, each durable before the next; what they give back
(`SlotHashed`, `SlotInflated`, `SelfTestDone`, `RunDone`, `SampleDone`) it hands in before the next outside event. A flash
that fails to write is a reset: the shell restarts, and the journal says what is true.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from gatewayd.core.device import Capabilities, PushPhase, SlotState
from gatewayd.core.model import SelfTest
from gatewayd.core.names import Digest, ModelName, PushId
from gatewayd.core.record import record
from gatewayd.core.tensor import DType
from gatewayd.wire.mqttdevice import ResultFrame, SampleFrame

MAX_COMMANDS = 20
"""The most that one event leads to: a push that supersedes another writes the journal twice and reports both ends."""
WANT_REPEAT_MS = 2_000
WANT_REPEATS = 30
"""A gateway that is silent for 30 repeats is not coming back on this connection: the battery is spared until it speaks again."""
TRIAL_MS = 30_000
MAX_ATTEMPTS = 3
"""How often a self-test may be begun, and how often the device may start during one trial, before the new model is dropped.

A model that resets its device looks like a power cut; three cuts in a row at the same place are not the power.
"""

_NO_MODEL, _NO_DIGEST, _NO_PUSH = ModelName(""), Digest("0" * 64), PushId(0)


@record
class Board:
    """The constants of one device.

    `page_bytes` is what its flash erases at once: the journal notes progress once per page, so that a power cut costs at most one
    page sent again (with `page_bytes` ≤ the chunk, at most one chunk). `keys` are the raw public keys by their names
    (`wire.manifest`) that may sign what it installs. `takes_one_slot`: with a single slot it gives up the model it runs when a
    newer version is offered, and has none until the new one is there; otherwise such a device takes no push.
    """

    capabilities: Capabilities
    slot_count: int
    page_bytes: int
    keys: Mapping[bytes, bytes]
    takes_one_slot: bool = False


class Step(IntEnum):
    """Where the agent stands. Up to CHECKING it answers nothing."""

    OFF = 0
    CHECKING = 1
    IDLE = 2
    WAITING = 3
    RECEIVING = 4
    UNPACKING = 5
    HASHING = 6
    TESTING = 7
    TESTED = 8
    TRIAL = 9


@record
class SlotRecord:
    """What a slot holds; everything but `state` is void in an empty one."""

    state: SlotState = SlotState.EMPTY
    model: ModelName = _NO_MODEL
    version: int = 0
    digest: Digest = _NO_DIGEST
    size_bytes: int = 0


EMPTY_SLOT = SlotRecord()


@record
class Floor:
    """The newest version of a model ever accepted, so that an older one is refused even when that model is gone."""

    name_crc: int = 0
    version: int = 0


NO_FLOOR = Floor()


@record
class Booted:
    """Power came: both copies of the journal, whole, as they are in flash (any bytes)."""

    journals: tuple[bytes, bytes]


@record
class Connected:
    """The broker is there and the subscription stands."""


@record
class Disconnected:
    """The broker is gone."""


@record
class MessageReceived:
    """A message came on `down/<kind>`."""

    kind: str
    payload: bytes


@record
class SlotHashed:
    """SHA-256 of bytes of a slot, as `HashSlot` asked."""

    slot: int
    digest: Digest


@record
class SlotInflated:
    """`InflateSlot` is done; `failure` says why the stream was refused ("": the slot holds all it decodes to)."""

    slot: int
    failure: str = ""


@record
class SelfTestDone:
    """The model ran on the self-test's input: its first output, or why it did not load or run."""

    slot: int
    output: bytes
    dtype: DType
    failure: str = ""


@record
class RunDone:
    """A run ended, well or not."""

    frame: ResultFrame


@record
class SampleDone:
    """A sensor was read, or not."""

    frame: SampleFrame


@record
class BatteryChanged:
    """The battery's charge in whole percent."""

    percent: int


@record
class Ticked:
    """Time passed, nothing else."""


Event = (
    Booted
    | Connected
    | Disconnected
    | MessageReceived
    | SlotHashed
    | SlotInflated
    | SelfTestDone
    | RunDone
    | SampleDone
    | BatteryChanged
    | Ticked
)


@record
class Publish:
    """Send a message on `up/<kind>`."""

    kind: str
    payload: bytes
    qos: int
    retain: bool


@record
class EraseSlot:
    """Erase a slot from `offset` to `end`: page boundaries, or the slot's end."""

    slot: int
    offset: int
    end: int


@record
class WriteSlot:
    """Write into erased flash."""

    slot: int
    offset: int
    content: bytes


@record
class WriteJournal:
    """Write a record into a copy (0 or 1) of the journal. At offset 0: erase all pages of that copy first."""

    copy: int
    offset: int
    content: bytes


@record
class HashSlot:
    """Hash `size_bytes` of a slot from `offset`, as they are in flash; answer with `SlotHashed`."""

    slot: int
    size_bytes: int
    offset: int = 0


@record
class InflateSlot:
    """Decode the raw DEFLATE stream of `encoded_bytes` at `offset` into the slot's beginning, which is erased.

    Never more than `size_bytes` are written, whatever the stream says; `wire/agent_inflate.py` is how. Answer with
    `SlotInflated`.
    """

    slot: int
    offset: int
    encoded_bytes: int
    size_bytes: int
    window_bits: int


@record
class RunSelfTest:
    """Load the model into the arena and run it once on the generated input of `seed`; answer with `SelfTestDone`."""

    slot: int
    size_bytes: int
    seed: int


@record
class RunModel:
    """Run a slot's model on `content`, or, when None, on a sample of sensor number `sensor`; answer with `RunDone`.

    `below`: the raw sample goes behind the output when no element of that reaches this (as `RunFrame` has it; None: never).
    """

    request: int
    slot: int
    size_bytes: int
    sensor: int
    content: bytes | None
    below: bytes | None = None


@record
class ReadSensor:
    """Read a sensor; answer with `SampleDone`."""

    request: int
    sensor: int


@record
class Ignored:
    """A message had no effect; for the device's own log."""

    reason: str


Command = (
    Publish | EraseSlot | WriteSlot | WriteJournal | HashSlot | InflateSlot | RunSelfTest | RunModel | ReadSensor | Ignored
)  # fmt: skip


@dataclass(slots=True)
class AgentState:
    """All the agent's RAM; mutable, because on a microcontroller this is one static struct (`agent_memory.py` counts it).

    `push`, `staging`, `offset`, `attempts` and `self_test` belong to the push under way (steps WAITING to TRIAL; the self-test
    came with the offer and dies with the RAM: the offer comes again). `ended_*` is the last push that ended, kept to answer its
    offer again; `is_end_unsent` that nobody was connected to hear it. `is_erased` per slot: known to be erased, so that no erase
    is spent twice. `encoded_bytes` is the size of what is sent when that is a DEFLATE stream (0: the artifact itself),
    `encoded_mark` the first four bytes of its digest (kept in the journal), `encoded_digest` and `window_bits` came with the
    offer and die with the RAM. `leaving` is one more than the slot that gives way when the push is accepted (0: none).
    `journal_ends` is where each copy's next record goes (-1: erase it first),
    `journal_newest` the copy written last.
    """

    slots: list[SlotRecord]
    floors: list[Floor]
    is_erased: list[bool]
    journal_ends: list[int]
    journal_newest: int = 0
    journal_sequence: int = 0
    is_journal_stale: bool = False
    step: Step = Step.OFF
    now_ms: int = 0
    is_connected: bool = False
    battery_percent: int | None = None
    checked_slots: int = 0
    push: PushId = _NO_PUSH
    staging: int = 0
    offset: int = 0
    attempts: int = 0
    leaving: int = 0
    encoded_bytes: int = 0
    encoded_mark: int = 0
    encoded_digest: Digest = _NO_DIGEST
    window_bits: int = 0
    self_test: SelfTest | None = None
    want_due_ms: int = 0
    wants_left: int = 0
    trial_due_ms: int = 0
    ended_push: PushId = _NO_PUSH
    ended_digest: Digest = _NO_DIGEST
    ended_phase: PushPhase | None = None
    ended_reason: str = ""
    is_end_unsent: bool = False
    out: list[Command] = field(default_factory=list)


def new_state(board: Board, battery_percent: int | None) -> AgentState:
    """Return the state before power comes."""
    count = board.slot_count
    return AgentState(
        [EMPTY_SLOT] * count, [NO_FLOOR] * count, [False] * count, [-1, -1], battery_percent=battery_percent
    )
