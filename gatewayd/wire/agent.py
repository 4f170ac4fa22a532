"""The device agent: a sans-IO state machine that a C port without an allocator can follow line by line.

`Agent.handle` takes one event and the time, and returns what to do. `sim/device.py` is a shell around it; a firmware's main
loop is another. A device with k slots holds at most k - 1 models, the free slot is for staging; it works with no model at all.
The push itself is in `agent_push.py`, the journal in `agent_journal.py`, the terms in `agent_terms.py`.
"""

from typing import assert_never

from gatewayd.core.device import PushPhase, SlotState
from gatewayd.core.errors import BadRequest
from gatewayd.wire.agent_drop import on_drop
from gatewayd.wire.agent_flash import read_journal, slot_now, write_journal
from gatewayd.wire.agent_push import (
    end,
    on_accept,
    on_activate,
    on_cancel,
    on_chunk,
    on_hashed,
    on_inflated,
    on_offer,
    on_tested,
    on_time,
    publish_status,
    report_end,
    report_position,
    start_trial,
)
from gatewayd.wire.agent_terms import (
    EMPTY_SLOT,
    MAX_ATTEMPTS,
    WANT_REPEATS,
    AgentState,
    BatteryChanged,
    Board,
    Booted,
    Command,
    Connected,
    Disconnected,
    Event,
    HashSlot,
    Ignored,
    MessageReceived,
    Publish,
    ReadSensor,
    RunDone,
    RunModel,
    SampleDone,
    SelfTestDone,
    SlotHashed,
    SlotInflated,
    Step,
    Ticked,
    new_state,
)
from gatewayd.wire.mqttdevice import (
    Accept,
    Activate,
    Cancel,
    ChunkFrame,
    DownMessage,
    DropMessage,
    FrameStatus,
    OfferMessage,
    Ping,
    ResultFrame,
    RunFrame,
    SampleFrame,
    SampleRequest,
    decode_down,
    encode_pong,
    encode_push_report,
    encode_result,
    encode_sample_result,
    offered_push,
)

_RUNNABLE = {SlotState.ACTIVE, SlotState.TRIAL}


class Agent:
    """One device's agent. `state` is all it keeps; readable for tests and logs, changed by `handle` only."""

    __slots__ = ("board", "state")

    def __init__(self, board: Board, *, battery_percent: int | None = None) -> None:
        self.board = board
        self.state = new_state(board, battery_percent)

    def handle(self, event: Event, now_ms: int) -> tuple[Command, ...]:
        """Take one event; return what the shell must do, in order.

        `now_ms` is any millisecond counter that only goes up; it may wrap at 32 bits. Time alone (a trial's end, a repeated want)
        is looked at with every event.
        """
        if isinstance(event, Booted):
            self.state = new_state(self.board, self.state.battery_percent)
        board, state = self.board, self.state
        state.now_ms = now_ms
        state.out = []
        _dispatch(board, state, event)
        on_time(board, state)
        return tuple(state.out)

    def due_ms(self) -> int | None:
        """Return when time alone will make it act, or None: the shell hands in `Ticked` then."""
        state = self.state
        if state.step is Step.TRIAL:
            return state.trial_due_ms
        return state.want_due_ms if state.step is Step.RECEIVING and state.wants_left > 0 else None


def _dispatch(board: Board, state: AgentState, event: Event) -> None:
    match event:
        case Booted():
            _boot(board, state, event)
        case Connected():
            _connected(board, state)
        case Disconnected():
            state.is_connected = False
        case MessageReceived():
            _message(board, state, event)
        case BatteryChanged(percent):
            state.battery_percent = percent
            _status_when_ready(board, state)
        case Ticked():
            pass
        case _:
            _finish(board, state, event)


def _finish(
    board: Board, state: AgentState, event: SlotHashed | SlotInflated | SelfTestDone | RunDone | SampleDone
) -> None:
    """Take what a command gave back."""
    match event:
        case SlotHashed():
            _checked(board, state, event)
            on_hashed(board, state, event)
        case SlotInflated():
            on_inflated(board, state, event)
        case SelfTestDone():
            on_tested(board, state, event)
        case RunDone(frame):
            _send(state, "result", encode_result(frame))
        case SampleDone(frame):
            _send(state, "sample", encode_sample_result(frame))
        case _:
            assert_never(event)


def _boot(board: Board, state: AgentState, event: Booted) -> None:
    """Believe the journal, count a restart within a trial, then check that what it says is in flash."""
    state.step = Step.CHECKING
    read_journal(board, state, event)
    _find_unfinished(state)
    _check_next(board, state)


def _find_unfinished(state: AgentState) -> None:
    for index, slot in enumerate(state.slots):
        if slot.state in {SlotState.STAGING, SlotState.TRIAL}:
            state.staging = index
        if slot.state is SlotState.TRIAL:
            _count_restart(state)


def _count_restart(state: AgentState) -> None:
    """A restart within a trial may be the new model's fault: after a few the old one is all there is."""
    state.is_journal_stale = True
    state.attempts += 1
    if state.attempts > MAX_ATTEMPTS:
        _void_trial(state, f"trial: the device restarted {state.attempts} times")


def _void_trial(state: AgentState, reason: str) -> None:
    digest = slot_now(state).digest
    state.slots[state.staging], state.leaving = EMPTY_SLOT, 0
    end(state, state.push, digest, PushPhase.FAILED, reason)


def _check_next(board: Board, state: AgentState) -> None:
    while state.checked_slots < board.slot_count:
        slot = state.slots[state.checked_slots]
        if slot.state in _RUNNABLE:
            state.out.append(HashSlot(state.checked_slots, slot.size_bytes))
            return
        state.checked_slots += 1
    _ready(board, state)


def _ready(board: Board, state: AgentState) -> None:
    """Flash is as the journal says, and what the checks changed is in the journal before anything is answered."""
    if state.is_journal_stale:
        write_journal(board, state)
    match slot_now(state).state:
        case SlotState.STAGING:
            state.step = Step.WAITING
        case SlotState.TRIAL:
            start_trial(state)
        case _:
            state.step = Step.IDLE
    if state.is_connected:
        _connected(board, state)


def _checked(board: Board, state: AgentState, event: SlotHashed) -> None:
    """A model that is not in flash as the journal says is no model: its slot is free."""
    if state.step is not Step.CHECKING or event.slot != state.checked_slots:
        return
    slot = state.slots[event.slot]
    if event.digest != slot.digest:
        state.is_journal_stale = True
        if slot.state is SlotState.TRIAL:
            _void_trial(state, "trial: the model in flash changed")
        state.slots[event.slot] = EMPTY_SLOT
    state.checked_slots += 1
    _check_next(board, state)


def _connected(board: Board, state: AgentState) -> None:
    """Say who it is, then where the push stands or how the last one ended, if nobody heard it."""
    state.is_connected, state.wants_left = True, WANT_REPEATS
    if state.step <= Step.CHECKING:
        return
    publish_status(board, state)
    if state.is_end_unsent:
        report_end(state)
    report_position(board, state)


def _message(board: Board, state: AgentState, event: MessageReceived) -> None:
    try:
        message = decode_down(event.kind, event.payload, board.keys)
    except BadRequest as error:
        _refuse(state, event, str(error))
        return
    if state.step <= Step.CHECKING:
        state.out.append(Ignored("still starting"))
    else:
        _obey(board, state, message)


def _refuse(state: AgentState, event: MessageReceived, reason: str) -> None:
    """An offer that cannot be believed gets an answer and changes nothing; anything else gets none."""
    push = offered_push(event.payload) if event.kind == "offer" else None
    state.out.append(Ignored(reason))
    if push is not None and state.is_connected and state.step > Step.CHECKING:
        state.out.append(Publish("push", encode_push_report(push, PushPhase.REJECTED, reason=reason), 1, retain=False))


def _obey(board: Board, state: AgentState, message: DownMessage) -> None:  # one line per message, as C's switch has
    match message:
        case OfferMessage():
            on_offer(board, state, message)
        case ChunkFrame():
            on_chunk(board, state, message)
        case Activate():
            on_activate(board, state, message)
        case Accept():
            on_accept(board, state, message)
        case Cancel():
            on_cancel(board, state, message)
        case DropMessage():
            on_drop(board, state, message)
        case RunFrame():
            _run(board, state, message)
        case SampleRequest():
            _sample(board, state, message)
        case Ping(token):
            _send(state, "pong", encode_pong(token))
        case _:
            assert_never(message)


def _run(board: Board, state: AgentState, frame: RunFrame) -> None:
    refusal = _run_refusal(board, state, frame)
    if refusal:
        refused = ResultFrame(frame.request, FrameStatus.REFUSED, 0, 0, 0, reason=refusal)
        _send(state, "result", encode_result(refused))
        return
    size_bytes = state.slots[frame.slot].size_bytes
    below = frame.below if board.capabilities.returns_bytes else None
    state.out.append(RunModel(frame.request, frame.slot, size_bytes, frame.sensor, frame.content, below))


def _run_refusal(board: Board, state: AgentState, frame: RunFrame) -> str:
    if frame.slot >= board.slot_count or state.slots[frame.slot].state not in _RUNNABLE:
        return f"slot {frame.slot} holds no model"
    held = state.slots[frame.slot].version
    if frame.version != held:
        return f"slot {frame.slot} holds version {held}, not {frame.version}"
    is_there = frame.content is not None or frame.sensor < len(board.capabilities.sensors)
    return "" if is_there else f"no sensor {frame.sensor}"


def _sample(board: Board, state: AgentState, message: SampleRequest) -> None:
    if message.sensor < len(board.capabilities.sensors):
        state.out.append(ReadSensor(message.request, message.sensor))
        return
    refused = SampleFrame(message.request, FrameStatus.REFUSED, 0, 0, reason=f"no sensor {message.sensor}")
    _send(state, "sample", encode_sample_result(refused))


def _status_when_ready(board: Board, state: AgentState) -> None:
    if state.step > Step.CHECKING:
        publish_status(board, state)


def _send(state: AgentState, kind: str, payload: bytes) -> None:
    """Publish with QoS 0: whoever asked has a deadline and asks again."""
    if state.is_connected:
        state.out.append(Publish(kind, payload, 0, retain=False))
