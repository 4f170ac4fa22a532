"""What the agent refuses, and why: pure questions about an offer and the slots; nothing is changed but the floors."""

from gatewayd.core.device import SlotState
from gatewayd.core.module import Deflate, Raw
from gatewayd.wire.agent_flash import decoded_end, stream_offset
from gatewayd.wire.agent_journal import name_crc
from gatewayd.wire.agent_terms import AgentState, Board, Floor, SlotRecord
from gatewayd.wire.mqttdevice import OfferMessage

_MIN_SLOTS = 2  # one runs, one stages
_ONE_SLOT = "one slot: no room to stage a model beside the running one"


def refusal_of(board: Board, state: AgentState, offer: OfferMessage) -> str:
    """Return why the offer cannot be taken, "" when it can."""
    has = board.capabilities
    missing = sorted(set(offer.operators) - has.operators) if has.operators is not None else []
    checks = (
        (board.slot_count < _MIN_SLOTS and not board.takes_one_slot, _ONE_SLOT),
        (offer.size_bytes > has.slot_bytes, f"size {offer.size_bytes} > {has.slot_bytes} bytes of a slot"),
        (offer.arena_bytes > has.arena_bytes, f"arena {offer.arena_bytes} > {has.arena_bytes} bytes"),
        (offer.runtime_abi != has.runtime_abi, f"abi {offer.runtime_abi}: this runtime reads {has.runtime_abi}"),
        (bool(missing), f"operators not supported: {', '.join(missing)}"),
        _encoding(board, offer),
        _age(state, offer),
        _leaving(board, state, offer),
        (not _has_room(board, state, offer), "no free slot"),
    )
    return next((reason for is_wrong, reason in checks if is_wrong), "")


def leaving_of(state: AgentState, offer: OfferMessage) -> int:
    """Return one more than the slot of the model that gives way to what is offered, 0 when none does."""
    if offer.instead_of is None:
        return 0
    slots = enumerate(state.slots, start=1)
    return next((place for place, slot in slots if _is_active(slot, offer.instead_of.model)), 0)


def held_slot(state: AgentState, offer: OfferMessage) -> int | None:
    """Return the slot where exactly these bytes run already under this name."""
    slots = enumerate(state.slots)
    return next((i for i, slot in slots if _is_active(slot, offer.model) and slot.digest == offer.digest), None)


def active_of(state: AgentState, new: SlotRecord) -> int | None:
    """Return the slot of the model that `new` replaces."""
    return next((index for index, slot in enumerate(state.slots) if _is_active(slot, new.model)), None)


def raise_floor(state: AgentState, accepted: SlotRecord) -> None:
    """Remember the version of a model that was accepted. There is always room: k slots hold at most k - 1 models."""
    crc = name_crc(accepted.model)
    kept = {name_crc(slot.model) for slot in state.slots if slot.state is SlotState.ACTIVE}
    places = [index for index, floor in enumerate(state.floors) if floor.name_crc == crc]
    places += [index for index, floor in enumerate(state.floors) if floor.name_crc == 0]
    places += [index for index, floor in enumerate(state.floors) if floor.name_crc not in kept]
    state.floors[places[0]] = Floor(crc, accepted.version)


def _age(state: AgentState, offer: OfferMessage) -> tuple[bool, str]:
    """An older version is refused unless the manifest names the newer one it replaces; so are other bytes of the same number."""
    crc = name_crc(offer.model)
    floor = max((floor.version for floor in state.floors if floor.name_crc == crc), default=0)
    active = max((slot.version for slot in state.slots if _is_active(slot, offer.model)), default=0)
    newest = max(floor, active)
    is_other = offer.version == active and held_slot(state, offer) is None
    is_older = offer.version < newest and offer.replaces != newest
    return is_older or is_other, f"version {offer.version}: {newest} is installed"


def _leaving(board: Board, state: AgentState, offer: OfferMessage) -> tuple[bool, str]:
    """A model gives way only in the version that was named; one that is not there has nothing to give."""
    place = leaving_of(state, offer)
    if offer.instead_of is None or place == 0:
        return False, ""
    if not board.capabilities.drops_models:
        return True, "this device lets no model give way"
    held = state.slots[place - 1].version
    return held != offer.instead_of.version, f"instead of {offer.instead_of}: version {held} is there"


def _encoding(board: Board, offer: OfferMessage) -> tuple[bool, str]:
    """A stream is taken within the declared window, and when the slot holds it beside what it decodes to, each in whole pages."""
    bits = board.capabilities.deflate_bits
    match offer.encoding:
        case Raw():
            return False, ""
        case Deflate(window_bits, size_bytes) if bits is not None and window_bits <= bits:
            is_too_much = stream_offset(board, size_bytes) < decoded_end(board, offer.size_bytes)
            return is_too_much, f"no room for {size_bytes} encoded bytes beside {offer.size_bytes}"
        case _:
            return True, "encoding not known"


def _has_room(board: Board, state: AgentState, offer: OfferMessage) -> bool:
    """With one slot the model that runs may give way to a newer version of itself."""
    if board.slot_count == 1:
        return state.slots[0].state is not SlotState.ACTIVE or state.slots[0].model == offer.model
    leaving = leaving_of(state, offer) - 1
    staying = [slot for index, slot in enumerate(state.slots) if slot.state is SlotState.ACTIVE and index != leaving]
    others = sum(slot.model != offer.model for slot in staying)
    has_staging = any(slot.state is not SlotState.ACTIVE for slot in state.slots)
    return has_staging and others < board.slot_count - 1


def _is_active(slot: SlotRecord, model: str) -> bool:
    return slot.state is SlotState.ACTIVE and slot.model == model
