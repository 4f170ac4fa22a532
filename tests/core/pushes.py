"""A push on its way, and what can happen to it: shared by the tests of the table and of whole histories."""

from dataclasses import replace

from gatewayd.core.device import PushPhase, PushReport, Slot, SlotState
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.update import (
    Command,
    DeviceBack,
    Event,
    Limits,
    Push,
    PushState,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendOffer,
    Step,
    new_push,
    step,
)

SIZE = 2500
DEVICE, MODEL, DIGEST = DeviceId("cam-7"), ModelName("kws"), Digest("ab" * 32)
LIMITS = Limits()
LIVE = [state for state in PushState if not state.is_end]
ENDS = [state for state in PushState if state.is_end]
S, P = PushState, PushPhase
OFFER, ACTIVATE, TRIAL, ACCEPT = (SendOffer(),), (SendActivate(),), (RunTrial(),), (SendAccept(),)


def started() -> Step:
    return new_push(
        id=PushId(7),
        device=DEVICE,
        model=MODEL,
        version=2,
        variant="tflite-int8",
        digest=DIGEST,
        size_bytes=SIZE,
        now_s=0.0,
        limits=LIMITS,
    )


def push(state: PushState, *, offset: int = 1024, present: bool = True, confirmed: bool = False) -> Push:
    base = started().push
    return replace(base, state=state, deadline_s=10.0, offset=offset, present=present, confirmed=confirmed)


def report(phase: PushPhase, offset: int = 0, length: int = 0, *, push_id: int = 7, reason: str = "") -> PushReport:
    return PushReport(DEVICE, PushId(push_id), phase, offset, length, reason)


def held(state: SlotState, *, version: int = 2, digest: Digest = DIGEST) -> DeviceBack:
    return DeviceBack((Slot(0, SlotState.EMPTY), Slot(1, state, MODEL, version, digest)))


def stepped(before: Push, event: Event, *, now_s: float = 5.0, limits: Limits = LIMITS) -> Step:
    return step(before, event, now_s=now_s, limits=limits)


def cancels(commands: tuple[Command, ...]) -> bool:
    return len(commands) == 1 and isinstance(commands[0], SendCancel)
