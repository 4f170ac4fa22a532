"""The device's side of one push: offer → bytes in flash → digest → self-test → trial → accepted, or back to the old model.

Rules: the journal is written before anything that depends on it; an old model's slot is touched only once the journal says
that the new one is accepted; whatever goes wrong ends in `drop`, after which the old model is all there is. Functions over
the one struct, so that a C port follows line by line.
"""

from gatewayd.core.device import PushPhase, Report, Slot, SlotState
from gatewayd.core.module import Deflate, Raw
from gatewayd.core.names import Digest, PushId
from gatewayd.core.selftest import matches
from gatewayd.wire.agent_flash import (
    durable_offset,
    erase_slot,
    note_progress,
    received_at,
    set_state,
    slot_now,
    transfer_bytes,
    write_journal,
)
from gatewayd.wire.agent_rules import active_of, held_slot, leaving_of, raise_floor, refusal_of
from gatewayd.wire.agent_terms import (
    EMPTY_SLOT,
    MAX_ATTEMPTS,
    TRIAL_MS,
    WANT_REPEAT_MS,
    WANT_REPEATS,
    AgentState,
    Board,
    EraseSlot,
    HashSlot,
    Ignored,
    InflateSlot,
    Publish,
    RunSelfTest,
    SelfTestDone,
    SlotHashed,
    SlotInflated,
    SlotRecord,
    Step,
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
_POSITION = {
    Step.RECEIVING: PushPhase.WANT,
    Step.UNPACKING: PushPhase.WRITTEN,
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
    if offer.push == state.push and is_under_way(state) and slot_now(state).digest == offer.digest:
        _repeat_position(board, state)
    elif state.ended_phase and (offer.push, offer.digest) == (state.ended_push, state.ended_digest):
        report_end(state)
    elif (refusal := refusal_of(board, state, offer)) != "":
        end(state, offer.push, offer.digest, PushPhase.REJECTED, refusal)
    elif (held := held_slot(state, offer)) is not None:
        _take_as_installed(board, state, offer, held)
    elif state.step >= Step.WAITING and _is_content_of(state, offer):
        _continue(board, state, offer)
    else:
        _begin(board, state, offer)


def on_chunk(board: Board, state: AgentState, chunk: ChunkFrame) -> None:
    """Write the bytes that were wanted; ignore any others (a chunk sent twice, of another push, or too late)."""
    wanted = min(board.capabilities.chunk_bytes, transfer_bytes(state) - state.offset)
    is_wanted = state.step is Step.RECEIVING and (chunk.push, chunk.offset) == (state.push, state.offset)
    if not is_wanted or len(chunk.content) != wanted:
        state.out.append(Ignored(f"chunk at {chunk.offset} of push {chunk.push}: not wanted"))
        return
    before = durable_offset(board, state)
    state.is_erased[state.staging] = False
    state.out.append(WriteSlot(state.staging, received_at(board, state) + chunk.offset, chunk.content))
    state.offset += len(chunk.content)
    if durable_offset(board, state) != before:
        note_progress(board, state)
    state.wants_left = WANT_REPEATS
    _want_or_check(board, state)


def on_hashed(board: Board, state: AgentState, event: SlotHashed) -> None:
    """Compare the digest of what is in flash, of the stream before it is decoded; then test the model on the real runtime."""
    if event.slot != state.staging:
        return
    if state.step is Step.UNPACKING:
        _unpack(board, state, event)
    elif state.step is Step.HASHING:
        _test(board, state, event)


def on_inflated(board: Board, state: AgentState, event: SlotInflated) -> None:
    """The artifact is in flash as far as the decoder can tell; its digest decides."""
    if state.step is not Step.UNPACKING or event.slot != state.staging:
        return
    if event.failure:
        drop(board, state, f"inflate: {event.failure}")
        return
    state.step = Step.HASHING
    state.out.append(HashSlot(state.staging, slot_now(state).size_bytes))


def _unpack(board: Board, state: AgentState, event: SlotHashed) -> None:
    """Nothing is decoded that the manifest does not name."""
    if event.digest != state.encoded_digest:
        drop(board, state, "digest of the encoded bytes differs")
        return
    size_bytes = slot_now(state).size_bytes
    at = received_at(board, state)
    state.out.append(InflateSlot(state.staging, at, state.encoded_bytes, size_bytes, state.window_bits))


def _test(board: Board, state: AgentState, event: SlotHashed) -> None:
    slot = slot_now(state)
    if event.digest != slot.digest:
        drop(board, state, "digest differs")
        return
    if state.attempts >= MAX_ATTEMPTS:
        drop(board, state, f"self-test: the device restarted in {state.attempts} attempts")
        return
    state.step = Step.TESTING
    state.attempts += 1
    write_journal(board, state)
    report_position(board, state)
    seed = state.self_test.seed if state.self_test is not None else _FIRST_SEED
    state.out.append(RunSelfTest(state.staging, slot.size_bytes, seed))


def on_tested(board: Board, state: AgentState, event: SelfTestDone) -> None:
    """Compare the output; without an expected one, having loaded and run is enough."""
    if state.step is not Step.TESTING or event.slot != state.staging:
        return
    test = state.self_test
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
        set_state(state, state.staging, SlotState.TRIAL)
        state.attempts, state.offset = 0, slot_now(state).size_bytes
        state.encoded_bytes, state.encoded_mark = 0, 0
        start_trial(state)
        write_journal(board, state)
        publish_status(board, state)
        report_position(board, state)
    else:
        _answer_late(board, state, message.push)


def on_accept(board: Board, state: AgentState, message: Accept) -> None:
    """End the trial: the new model stays; the slots of the old one, and of one that gives way, become free.

    The journal is the point of no return.
    """
    if state.step is not Step.TRIAL or message.push != state.push:
        _answer_late(board, state, message.push)
        return
    new = slot_now(state)
    gone = _leaving_with(state, new)
    set_state(state, state.staging, SlotState.ACTIVE)
    for slot in gone:
        state.slots[slot] = EMPTY_SLOT
    raise_floor(state, new)
    _rest(state)
    write_journal(board, state)
    publish_status(board, state)
    end(state, state.push, new.digest, PushPhase.ACCEPTED, "")
    for slot in gone:
        erase_slot(board, state, slot)


def on_cancel(board: Board, state: AgentState, message: Cancel) -> None:
    """Drop the push, whatever it was doing."""
    if state.step >= Step.WAITING and message.push == state.push:
        drop(board, state, f"cancelled: {message.reason}" if message.reason else "cancelled")
    else:
        # Who cancels knows the end: an answer would make a gateway that forgot the push cancel again, for ever.
        state.out.append(Ignored(f"push {message.push}: over, or not known"))


def on_time(board: Board, state: AgentState) -> None:
    """Repeat a want that got no answer; end a trial that nobody accepted."""
    if state.step is Step.RECEIVING and state.wants_left > 0 and is_due(state.now_ms, state.want_due_ms):
        state.wants_left -= 1
        report_position(board, state)
    elif state.step is Step.TRIAL and is_due(state.now_ms, state.trial_due_ms):
        drop(board, state, TRIAL_NOT_CONFIRMED)


def drop(board: Board, state: AgentState, reason: str) -> None:
    """End the push under way: the journal forgets the new model before its flash is erased."""
    digest = slot_now(state).digest
    state.slots[state.staging] = EMPTY_SLOT
    state.encoded_bytes, state.encoded_mark = 0, 0
    _rest(state)
    write_journal(board, state)
    publish_status(board, state)
    end(state, state.push, digest, PushPhase.FAILED, reason)
    erase_slot(board, state, state.staging)


def start_trial(state: AgentState) -> None:
    """Begin a trial, or begin it again after a restart: its time counts from now, its restarts are counted in flash."""
    state.step, state.trial_due_ms = Step.TRIAL, state.now_ms + TRIAL_MS


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
    left = transfer_bytes(state) - state.offset
    state.want_due_ms = state.now_ms + WANT_REPEAT_MS
    payload = encode_push_report(
        state.push, _POSITION[state.step], offset=state.offset, length=min(board.capabilities.chunk_bytes, left)
    )
    _publish(state, "push", payload)


def is_under_way(state: AgentState) -> bool:
    """Return whether a push is under way and its offer known."""
    return state.step >= Step.RECEIVING


def publish_status(board: Board, state: AgentState) -> None:
    """Say what the device is and holds."""
    battery = None if state.battery_percent is None else state.battery_percent / 100
    slots = tuple(_reported(index, slot) for index, slot in enumerate(state.slots))
    _publish(state, "status", encode_status(Report(board.capabilities, slots, battery)), retain=True)


def _repeat_position(board: Board, state: AgentState) -> None:
    """Answer a repeated offer. A want that was said just now is on its way: saying it again would bring its bytes twice."""
    if state.step is not Step.RECEIVING or is_due(state.now_ms, state.want_due_ms):
        report_position(board, state)
    state.wants_left = WANT_REPEATS


def _begin(board: Board, state: AgentState, offer: OfferMessage) -> None:
    if state.step >= Step.WAITING:
        drop(board, state, f"superseded by push {offer.push}")
    record = SlotRecord(SlotState.STAGING, offer.model, offer.version, offer.digest, offer.size_bytes)
    # With one slot the model that runs gives way here, when nothing speaks against the new one any more.
    state.staging = next((index for index, slot in enumerate(state.slots) if slot.state is SlotState.EMPTY), 0)
    state.slots[state.staging] = record
    state.push, state.offset, state.attempts = offer.push, 0, 0
    state.encoded_bytes, state.encoded_mark = _encoded(offer)
    state.leaving = leaving_of(state, offer)
    _receive(state, offer)
    write_journal(board, state)
    if not state.is_erased[state.staging]:
        erase_slot(board, state, state.staging)
    publish_status(board, state)
    _want_or_check(board, state)


def _continue(board: Board, state: AgentState, offer: OfferMessage) -> None:
    """Take up what is in flash for the same content: after a restart, or under the number of a newer push."""
    leaving = leaving_of(state, offer)
    if offer.push != state.push or leaving != state.leaving:
        state.attempts = 0 if offer.push != state.push else state.attempts
        state.push, state.leaving = offer.push, leaving
        write_journal(board, state)
    if state.step is not Step.WAITING:
        report_position(board, state)
        return
    _receive(state, offer)
    at, slot_end = received_at(board, state), board.capabilities.slot_bytes
    if state.offset == 0:
        # the erase of the whole slot may have been cut
        state.out.append(EraseSlot(state.staging, 0, slot_end))
    elif state.offset < offer.transfer_bytes:
        # what was written past the journal's word may be torn, and flash is written once per erase
        state.out.append(EraseSlot(state.staging, at + state.offset, slot_end))
    elif state.encoded_bytes:
        # the power may have gone while it was decoded
        state.out.append(EraseSlot(state.staging, 0, at))
    _want_or_check(board, state)


def _receive(state: AgentState, offer: OfferMessage) -> None:
    state.step, state.self_test, state.wants_left = Step.RECEIVING, offer.self_test, WANT_REPEATS
    if not isinstance(offer.encoding, Raw):
        state.encoded_digest = offer.encoding.digest
    if isinstance(offer.encoding, Deflate):
        state.window_bits = offer.encoding.window_bits


def _encoded(offer: OfferMessage) -> tuple[int, int]:
    """Return size and mark of the stream that is offered: what tells it from another one of the same artifact."""
    if isinstance(offer.encoding, Raw):
        return 0, 0
    return offer.encoding.size_bytes, int.from_bytes(bytes.fromhex(offer.encoding.digest)[:4], "little")


def _rest(state: AgentState) -> None:
    state.step, state.self_test, state.leaving = Step.IDLE, None, 0


def _leaving_with(state: AgentState, new: SlotRecord) -> tuple[int, ...]:
    """Return the slots that become free when `new` is accepted: of its older version, and of the model that gives way."""
    places = {active_of(state, new), state.leaving - 1}
    return tuple(index for index, slot in enumerate(state.slots) if index in places and slot.state is SlotState.ACTIVE)


def _want_or_check(board: Board, state: AgentState) -> None:
    """Ask for the next bytes; when all are there, say so and have them hashed."""
    received = transfer_bytes(state)
    if state.offset == received:
        state.step = Step.UNPACKING if state.encoded_bytes else Step.HASHING
        state.out.append(HashSlot(state.staging, received, received_at(board, state)))
    report_position(board, state)


def _take_as_installed(board: Board, state: AgentState, offer: OfferMessage, held: int) -> None:
    """The same bytes run already: only the version's number may be new."""
    if state.step >= Step.WAITING:
        drop(board, state, f"superseded by push {offer.push}")
    if state.slots[held].version != offer.version:
        slot = state.slots[held]
        state.slots[held] = SlotRecord(slot.state, slot.model, offer.version, slot.digest, slot.size_bytes)
        raise_floor(state, state.slots[held])
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


def _is_content_of(state: AgentState, offer: OfferMessage) -> bool:
    """Return whether what is being received is what is offered: the same artifact, and, until it is decoded, the same stream."""
    slot, same = slot_now(state), (offer.model, offer.version, offer.digest, offer.size_bytes)
    is_same = (slot.model, slot.version, slot.digest, slot.size_bytes) == same
    is_decoded = slot.state is SlotState.TRIAL
    return is_same and (is_decoded or (state.encoded_bytes, state.encoded_mark) == _encoded(offer))


def _reported(index: int, slot: SlotRecord) -> Slot:
    if slot.state is SlotState.EMPTY:
        return Slot(index, SlotState.EMPTY)
    return Slot(index, slot.state, slot.model, slot.version, slot.digest)
