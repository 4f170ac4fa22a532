"""The device's side of a drop: a model leaves because it was told to, not because another one came.

The journal forgets the model before its flash is erased, so a cut leaves either all models or all but this one. What a push
needs (the version it goes back to, the model that gives way to it) stays, and so does the last model unless the last is meant.
"""

from gatewayd.core.device import SlotState
from gatewayd.wire.agent_flash import erase_slot, slot_now, write_journal
from gatewayd.wire.agent_push import publish_status
from gatewayd.wire.agent_terms import EMPTY_SLOT, AgentState, Board, Ignored, Publish, SlotRecord
from gatewayd.wire.mqttdevice import DropFrame, DropMessage, encode_drop_answer

_UNFINISHED = {SlotState.STAGING, SlotState.TRIAL}


def on_drop(board: Board, state: AgentState, message: DropMessage) -> None:
    """Let the model go, or say why it stays; one that is not there is gone already, so a repetition changes nothing."""
    if not board.capabilities.drops_models:
        state.out.append(Ignored("drop: not announced"))
        return
    named = (message.model, message.version, message.digest)
    place = next(
        (i for i, slot in enumerate(state.slots) if slot.state is SlotState.ACTIVE and _name(slot) == named), None
    )
    if place is None:
        _answer(state, message, _other(state, message))
        return
    if why := _needed(state, place, message):
        _answer(state, message, why)
        return
    state.slots[place] = EMPTY_SLOT
    write_journal(board, state)
    publish_status(board, state)
    _answer(state, message, "")
    erase_slot(board, state, place)


def _other(state: AgentState, message: DropMessage) -> str:
    """Return what of that model is there instead; "" when nothing is."""
    held = [slot for slot in state.slots if slot.state is not SlotState.EMPTY and slot.model == message.model]
    if not held:
        return ""
    if any(slot.state in _UNFINISHED and slot.version == message.version for slot in held):
        return f"{message.model} is being pushed: cancel that"
    return f"holds {message.model} version {held[0].version}, {held[0].digest[:8]}"


def _needed(state: AgentState, place: int, message: DropMessage) -> str:
    """Return why the model in that slot must stay, "" when it need not."""
    under_way = slot_now(state)
    if under_way.state in _UNFINISHED and (under_way.model == message.model or state.leaving == place + 1):
        return f"the push of {under_way.model} needs it until its end"
    others = sum(slot.state is SlotState.ACTIVE for slot in state.slots) - 1
    return "it is the only model that runs" if others == 0 and not message.is_last else ""


def _name(slot: SlotRecord) -> tuple[str, int, str]:
    return slot.model, slot.version, slot.digest


def _answer(state: AgentState, message: DropMessage, reason: str) -> None:
    if state.is_connected:
        state.out.append(Publish("drop", encode_drop_answer(DropFrame(message.request, reason)), 0, retain=False))
