"""What the agent does to flash: the two copies of the journal, and erasing slots. Functions over the one struct."""

from gatewayd.core.device import SlotState
from gatewayd.wire.agent_journal import (
    Journal,
    JournalCopy,
    encode_progress,
    encode_state,
    journal_bytes,
    newest_copy,
    read_copy,
)
from gatewayd.wire.agent_terms import AgentState, Board, Booted, EraseSlot, SlotRecord, WriteJournal


def read_journal(board: Board, state: AgentState, event: Booted) -> None:
    """Take over what the newest whole record says. Copies that differ, or hold dirt, have to be written anew: stale."""
    first, second = (_read(board, content) for content in event.journals)
    newest = newest_copy((first, second))
    journal = (first, second)[newest].journal
    state.journal_ends, state.journal_newest = [first.end, second.end], newest
    if journal is None:
        return
    state.is_journal_stale = first.journal != second.journal or -1 in state.journal_ends
    state.journal_sequence, state.push = journal.sequence, journal.push
    state.offset, state.attempts = journal.offset, journal.attempts
    state.slots, state.floors = list(journal.slots), list(journal.floors)
    state.encoded_bytes, state.encoded_mark = journal.encoded_bytes, journal.encoded_mark
    state.leaving = journal.leaving


def write_journal(board: Board, state: AgentState) -> None:
    """Write the whole state to both copies; when they are written, it holds whatever happens next."""
    _write(board, state, encode_state(_journal(board, state)))


def note_progress(board: Board, state: AgentState) -> None:
    """Write how far the transfer got to both copies: the small record."""
    _write(board, state, encode_progress(state.journal_sequence + 1, durable_offset(board, state)))


def erase_slot(board: Board, state: AgentState, slot: int) -> None:
    """Erase a slot that the journal calls empty, or whose bytes it does not count on."""
    state.out.append(EraseSlot(slot, 0, board.capabilities.slot_bytes))
    state.is_erased[slot] = True


def durable_offset(board: Board, state: AgentState) -> int:
    """Return what the journal may say: whole pages, because a page that was begun is erased and written again."""
    is_complete = state.offset == transfer_bytes(state)
    return state.offset if is_complete else state.offset - state.offset % board.page_bytes


def slot_now(state: AgentState) -> SlotRecord:
    """Return the slot of the push under way."""
    return state.slots[state.staging]


def transfer_bytes(state: AgentState) -> int:
    """Return how many bytes are to be received for the push under way."""
    return state.encoded_bytes or slot_now(state).size_bytes


def received_at(board: Board, state: AgentState) -> int:
    """Return where in the slot the received bytes go: a stream to its last pages, to be decoded into the first."""
    return stream_offset(board, state.encoded_bytes) if state.encoded_bytes else 0


def stream_offset(board: Board, encoded_bytes: int) -> int:
    """Return where a stream of that size begins: at a page boundary, and it ends in the last whole page of the slot."""
    whole_pages = board.capabilities.slot_bytes // board.page_bytes
    return (whole_pages - _pages(board, encoded_bytes)) * board.page_bytes


def decoded_end(board: Board, size_bytes: int) -> int:
    """Return where the last page of an artifact of that size ends."""
    return _pages(board, size_bytes) * board.page_bytes


def set_state(state: AgentState, index: int, new: SlotState) -> None:
    """Change what a slot's model may do."""
    slot = state.slots[index]
    state.slots[index] = SlotRecord(new, slot.model, slot.version, slot.digest, slot.size_bytes)


def _read(board: Board, content: bytes) -> JournalCopy:
    copy_bytes = journal_bytes(board.slot_count, board.page_bytes)
    slot_bytes = board.capabilities.slot_bytes
    return read_copy(content, slot_count=board.slot_count, slot_bytes=slot_bytes, copy_bytes=copy_bytes)


def _journal(board: Board, state: AgentState) -> Journal:
    slots, floors = tuple(state.slots), tuple(state.floors)
    offset = durable_offset(board, state)
    encoded = state.encoded_bytes, state.encoded_mark
    return Journal(
        state.journal_sequence + 1, state.push, offset, state.attempts, slots, floors, *encoded, state.leaving
    )


def _write(board: Board, state: AgentState, record: bytes) -> None:
    """Append to the copy that is behind, if one is, then to the other; a full copy begins anew with the whole state."""
    whole = encode_state(_journal(board, state))
    for copy in (1 - state.journal_newest, state.journal_newest):
        end = state.journal_ends[copy]
        if end < 0 or end + len(record) > journal_bytes(board.slot_count, board.page_bytes):
            state.out.append(WriteJournal(copy, 0, whole))
            state.journal_ends[copy] = len(whole)
        else:
            state.out.append(WriteJournal(copy, end, record))
            state.journal_ends[copy] = end + len(record)
    state.journal_sequence += 1
    state.is_journal_stale = False


def _pages(board: Board, size_bytes: int) -> int:
    return -(-size_bytes // board.page_bytes)
