"""The device's side of one push: offer → bytes in flash → digest → self-test → trial → accepted, or back to the old model.

Rules: the journal is written before anything that depends on it; an old model's slot is touched only once the journal says
that the new one is accepted; whatever goes wrong ends in `drop`, after which the old model is all there is. Functions over
the one struct, so that a C port follows line by line.
"""

from gatewayd.core.device import PushPhase, Report, Slot, SlotState
from gatewayd.core.module import Raw
from gatewayd.core.names import Digest, PushId
from gatewayd.core.selftest import matches
from gatewayd.wire.agent_journal import Journal, encode_journal
from gatewayd.wire.agent_terms import (
    EMPTY_SLOT,
    TRIAL_MS,
    WANT_REPEAT_MS,
    WANT_REPEATS,
    AgentState,
    Board,
    EraseSlot,
    HashSlot,
    Ignored,
    Publish,
    RunSelfTest,
    SelfTestDone,
    SlotHashed,
    SlotRecord,
    Step,
    WriteJournal,
    WriteSlot,
)
from gatewayd.wire.mqttdevice import (
    Accept,
    Activate,
    Cancel,
    ChunkFrame,
    OfferMessage,
    encode_push_report,
    encode_status,
)

TRIAL_NOT_CONFIRMED = "trial not confirmed"
_FIRST_SEED = 1
_MIN_SLOTS = 2  # one runs, one stages
_POSITION = {
    Step.RECEIVING: PushPhase.WANT,
    Step.HASHING: PushPhase.WRITTEN,
    Step.TESTING: PushPhase.VERIFIED,
    Step.TESTED: PushPhase.TESTED,
    Step.TRIAL: PushPhase.TRIAL,
}


def is_due(now_ms: int, due_ms: int) -> bool:
    """Return whether `due_ms` is reached; right across the wrap of a 32-bit millisecond counter (49.7 days)."""
    return (now_ms - due_ms) & 0xFFFFFFFF < 0x80000000  # noqa: PLR2004 - half the counter's range


def on_offer(board: Board, state: AgentState, offer: OfferMessage) -> None:
    """Answer an offer: where it stands if it is known, else begin, continue or refuse it."""
    if offer.push == state.push and is_under_way(state) and _slot(state).digest == offer.digest:
        report_position(board, state)
    elif state.ended_phase and (offer.push, offer.digest) == (state.ended_push, state.ended_digest):
        report_end(state)
    elif (refusal := refusal_of(board, state, offer)) != "":
        end(state, offer.push, offer.digest, PushPhase.REJECTED, refusal)
    elif (held := _held(state, offer)) is not None:
        _take_as_installed(board, state, offer, held)
    elif state.step >= Step.WAITING and _is_content_of(_slot(state), offer):
        _continue(board, state, offer)
    else:
        _begin(board, state, offer)


def on_chunk(board: Board, state: AgentState, chunk: ChunkFrame) -> None:
    """Write the bytes that were wanted; ignore any others (a chunk sent twice, of another push, or too late)."""
    wanted = min(board.capabilities.chunk_bytes, _slot(state).size_bytes - state.offset)
    is_wanted = state.step is Step.RECEIVING and (chunk.push, chunk.offset) == (state.push, state.offset)
    if not is_wanted or len(chunk.content) != wanted:
        state.out.append(Ignored(f"chunk at {chunk.offset} of push {chunk.push}: not wanted"))
        return
    before = _durable_offset(board, state)
    state.is_erased[state.staging] = False
    state.out.append(WriteSlot(state.staging, chunk.offset, chunk.content))
    state.offset += len(chunk.content)
    if _durable_offset(board, state) != before:
        write_journal(board, state)
    state.wants_left = WANT_REPEATS
    _want_or_hash(board, state)


def on_hashed(board: Board, state: AgentState, event: SlotHashed) -> None:
    """Compare the digest of what is in flash; then test the model on the real runtime."""
    slot = _slot(state)
    if state.step is not Step.HASHING or event.slot != state.staging:
        return
    if event.digest != slot.digest:
        drop(board, state, "digest differs")
        return
    state.step = Step.TESTING
    report_position(board, state)
    test = state.offer.self_test if state.offer is not None else None
    state.out.append(RunSelfTest(state.staging, slot.size_bytes, test.seed if test is not None else _FIRST_SEED))


def on_tested(board: Board, state: AgentState, event: SelfTestDone) -> None:
    """Compare the output; without an expected one, having loaded and run is enough."""
    if state.step is not Step.TESTING or event.slot != state.staging:
        return
    test = state.offer.self_test if state.offer is not None else None
    if event.failure:
        drop(board, state, f"self-test: {event.failure}")
    elif test is not None and not matches(test.expected, event.output, test.tolerance, event.dtype):
        drop(board, state, "self-test: output differs")
    else:
        state.step = Step.TESTED
        report_position(board, state)


def on_activate(board: Board, state: AgentState, message: Activate) -> None:
    """Let the new model answer, on trial; the old one stays in its slot."""
    if state.step is Step.TESTED and message.push == state.push:
        _set_state(state, state.staging, SlotState.TRIAL)
        state.step = Step.TRIAL
        state.trial_due_ms = state.now_ms + TRIAL_MS
        write_journal(board, state)
        publish_status(board, state)
        report_position(board, state)
    else:
        _answer_late(board, state, message.push)


def on_accept(board: Board, state: AgentState, message: Accept) -> None:
    """End the trial: the new model stays, the old one's slot becomes free. The journal is the point of no return."""
    if state.step is not Step.TRIAL or message.push != state.push:
        _answer_late(board, state, message.push)
        return
    new = _slot(state)
    old = _active_of(state, new)
    _set_state(state, state.staging, SlotState.ACTIVE)
    if old is not None:
        state.slots[old] = EMPTY_SLOT
    state.step, state.offer = Step.IDLE, None
    write_journal(board, state)
    publish_status(board, state)
    end(state, state.push, new.digest, PushPhase.ACCEPTED, "")
    if old is not None:
        _erase(state, old)


def on_cancel(board: Board, state: AgentState, message: Cancel) -> None:
    """Drop the push, whatever it was doing."""
    if state.step >= Step.WAITING and message.push == state.push:
        drop(board, state, f"cancelled: {message.reason}" if message.reason else "cancelled")
    else:
        _answer_late(board, state, message.push)


def on_time(board: Board, state: AgentState) -> None:
    """Repeat a want that got no answer; end a trial that nobody accepted."""
    if state.step is Step.RECEIVING and state.wants_left > 0 and is_due(state.now_ms, state.want_due_ms):
        state.wants_left -= 1
        report_position(board, state)
    elif state.step is Step.TRIAL and is_due(state.now_ms, state.trial_due_ms):
        drop(board, state, TRIAL_NOT_CONFIRMED)


def drop(board: Board, state: AgentState, reason: str) -> None:
    """End the push under way: the journal forgets the new model before its flash is erased."""
    digest = _slot(state).digest
    state.slots[state.staging] = EMPTY_SLOT
    state.step, state.offer = Step.IDLE, None
    write_journal(board, state)
    publish_status(board, state)
    end(state, state.push, digest, PushPhase.FAILED, reason)
    _erase(state, state.staging)


def end(state: AgentState, push: PushId, digest: Digest, phase: PushPhase, reason: str) -> None:
    """Remember how a push ended, and say so now or at the next connection."""
    state.ended_push, state.ended_digest = push, digest
    state.ended_phase, state.ended_reason = phase, reason
    report_end(state)


def report_end(state: AgentState) -> None:
    """Say how the last push ended."""
    if state.ended_phase is None:
        return
    state.is_end_unsent = not state.is_connected
    payload = encode_push_report(state.ended_push, state.ended_phase, reason=state.ended_reason)
    _publish(state, "push", payload)


def report_position(board: Board, state: AgentState) -> None:
    """Say where the push under way stands; while receiving, that is which bytes are wanted."""
    if not is_under_way(state):
        return
    left = _slot(state).size_bytes - state.offset
    state.want_due_ms = state.now_ms + WANT_REPEAT_MS
    payload = encode_push_report(
        state.push, _POSITION[state.step], offset=state.offset, length=min(board.capabilities.chunk_bytes, left)
    )
    _publish(state, "push", payload)


def is_under_way(state: AgentState) -> bool:
    """Return whether a push is under way and its offer known."""
    return state.step >= Step.RECEIVING


def refusal_of(board: Board, state: AgentState, offer: OfferMessage) -> str:
    """Return why the offer cannot be taken, "" when it can."""
    has = board.capabilities
    newest = max((slot.version for slot in state.slots if _is_active(slot, offer.model)), default=0)
    missing = sorted(set(offer.operators) - has.operators) if has.operators is not None else []
    is_older = offer.version < newest and offer.replaces != newest
    is_old = is_older or (offer.version == newest and _held(state, offer) is None)
    checks = (
        (board.slot_count < _MIN_SLOTS, "one slot: no room to stage a model beside the running one"),
        (offer.size_bytes > has.slot_bytes, f"size {offer.size_bytes} > {has.slot_bytes} bytes of a slot"),
        (offer.arena_bytes > has.arena_bytes, f"arena {offer.arena_bytes} > {has.arena_bytes} bytes"),
        (offer.runtime_abi != has.runtime_abi, f"abi {offer.runtime_abi}: this runtime reads {has.runtime_abi}"),
        (bool(missing), f"operators not supported: {', '.join(missing)}"),
        (not isinstance(offer.encoding, Raw), "encoding not known"),
        (is_old, f"version {offer.version}: {newest} is installed"),
        (not _has_room(board, state, offer), "no free slot"),
    )
    return next((reason for is_wrong, reason in checks if is_wrong), "")


def publish_status(board: Board, state: AgentState) -> None:
    """Say what the device is and holds."""
    battery = None if state.battery_percent is None else state.battery_percent / 100
    slots = tuple(_reported(index, slot) for index, slot in enumerate(state.slots))
    _publish(state, "status", encode_status(Report(board.capabilities, slots, battery)), retain=True)


def write_journal(board: Board, state: AgentState) -> None:
    """Write the next copy of the journal."""
    state.journal_sequence += 1
    journal = Journal(state.journal_sequence, state.push, _durable_offset(board, state), tuple(state.slots))
    state.out.append(WriteJournal(state.journal_sequence % 2, encode_journal(journal)))


def _begin(board: Board, state: AgentState, offer: OfferMessage) -> None:
    if state.step >= Step.WAITING:
        drop(board, state, f"superseded by push {offer.push}")
    record = SlotRecord(SlotState.STAGING, offer.model, offer.version, offer.digest, offer.size_bytes)
    state.staging = next(index for index, slot in enumerate(state.slots) if slot.state is SlotState.EMPTY)
    state.slots[state.staging] = record
    state.push, state.offset = offer.push, 0
    _receive(state, offer)
    write_journal(board, state)
    if not state.is_erased[state.staging]:
        _erase(state, state.staging)
    publish_status(board, state)
    _want_or_hash(board, state)


def _continue(board: Board, state: AgentState, offer: OfferMessage) -> None:
    """Take up what is in flash for the same content: after a restart, or under the number of a newer push."""
    state.push = offer.push
    write_journal(board, state)
    if state.step is not Step.WAITING:
        report_position(board, state)
        return
    _receive(state, offer)
    if state.offset < offer.size_bytes:
        # what was written past the journal's word may be torn, and flash is written once per erase
        state.out.append(EraseSlot(state.staging, state.offset))
    _want_or_hash(board, state)


def _receive(state: AgentState, offer: OfferMessage) -> None:
    state.step, state.offer, state.wants_left = Step.RECEIVING, offer, WANT_REPEATS


def _want_or_hash(board: Board, state: AgentState) -> None:
    size_bytes = _slot(state).size_bytes
    if state.offset == size_bytes:
        state.step = Step.HASHING
        state.out.append(HashSlot(state.staging, size_bytes))
    report_position(board, state)


def _take_as_installed(board: Board, state: AgentState, offer: OfferMessage, held: int) -> None:
    """The same bytes run already: only the version's number may be new."""
    if state.step >= Step.WAITING:
        drop(board, state, f"superseded by push {offer.push}")
    if state.slots[held].version != offer.version:
        slot = state.slots[held]
        state.slots[held] = SlotRecord(slot.state, slot.model, offer.version, slot.digest, slot.size_bytes)
        write_journal(board, state)
        publish_status(board, state)
    end(state, offer.push, offer.digest, PushPhase.ACCEPTED, "")


def _answer_late(board: Board, state: AgentState, push: PushId) -> None:
    """A command that came twice, or after the end: tell where that push stands."""
    if push == state.push and is_under_way(state):
        report_position(board, state)
    elif state.ended_phase is not None and push == state.ended_push:
        report_end(state)
    else:
        state.out.append(Ignored(f"push {push}: not known"))


def _publish(state: AgentState, kind: str, payload: bytes, *, retain: bool = False) -> None:
    if state.is_connected:
        state.out.append(Publish(kind, payload, 1, retain))


def _erase(state: AgentState, slot: int) -> None:
    state.out.append(EraseSlot(slot, 0))
    state.is_erased[slot] = True


def _durable_offset(board: Board, state: AgentState) -> int:
    """What the journal may say: whole pages, because a page that was begun is erased and written again."""
    is_complete = state.offset == _slot(state).size_bytes
    return state.offset if is_complete else state.offset - state.offset % board.page_bytes


def _has_room(board: Board, state: AgentState, offer: OfferMessage) -> bool:
    others = sum(slot.state is SlotState.ACTIVE and slot.model != offer.model for slot in state.slots)
    has_staging = any(slot.state is not SlotState.ACTIVE for slot in state.slots)
    return has_staging and others < board.slot_count - 1


def _held(state: AgentState, offer: OfferMessage) -> int | None:
    """The slot where exactly these bytes run already under this name."""
    slots = enumerate(state.slots)
    return next((i for i, slot in slots if _is_active(slot, offer.model) and slot.digest == offer.digest), None)


def _active_of(state: AgentState, new: SlotRecord) -> int | None:
    return next((index for index, slot in enumerate(state.slots) if _is_active(slot, new.model)), None)


def _is_active(slot: SlotRecord, model: str) -> bool:
    return slot.state is SlotState.ACTIVE and slot.model == model


def _is_content_of(slot: SlotRecord, offer: OfferMessage) -> bool:
    same = (offer.model, offer.version, offer.digest, offer.size_bytes)
    return (slot.model, slot.version, slot.digest, slot.size_bytes) == same


def _slot(state: AgentState) -> SlotRecord:
    return state.slots[state.staging]


def _set_state(state: AgentState, index: int, new: SlotState) -> None:
    slot = state.slots[index]
    state.slots[index] = SlotRecord(new, slot.model, slot.version, slot.digest, slot.size_bytes)


def _reported(index: int, slot: SlotRecord) -> Slot:
    if slot.state is SlotState.EMPTY:
        return Slot(index, SlotState.EMPTY)
    return Slot(index, slot.state, slot.model, slot.version, slot.digest)
