"""A model is told to go, and the power goes with it: every flash operation torn in every way, and again in the recovery.

On a device that holds two models: whatever was cut, both are there or all but the one that was told to go; the same drop again
ends it, and the next push gets through. Each copy of the journal rots after each cut, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from gatewayd.core.device import PushPhase, PushReport
from gatewayd.core.names import DeviceId, ModelName, PushId
from gatewayd.sim.flash import FlashFault, Power, PowerCut, Tear
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from prove.device import Device, Geometry, digest_of
from prove.gateway import KEYS
from prove.models import NEW, OLD, Artifact, artifact_of, content_of

_DEVICE, _OTHER = DeviceId("cam-7"), ModelName("wake")
_MODEL_BYTES = 3_000


@dataclass(slots=True)
class DropTally:
    """What the runs came to: how many, and what was wrong."""

    runs: int = 0
    faults: list[str] = field(default_factory=list)


def cut_drops(geometry: Geometry) -> DropTally:
    """Cut a drop everywhere, then its recovery everywhere."""
    tally, operation, is_cut = DropTally(), -1, True
    while is_cut:
        operation, is_cut = operation + 1, False
        for tear in Tear:
            device, was_cut = _dropped(geometry, Power(operation, tear))
            is_cut |= was_cut
            tally.runs += 1
            tally.faults += [f"drop cut at {operation} ({tear.value}): {fault}" for fault in _look(device)]
            if was_cut:
                tally.runs += _recoveries(geometry, (operation, tear), tally.faults)
    return tally


def _recoveries(geometry: Geometry, cut: tuple[int, Tear], faults: list[str]) -> int:
    """Cut the start after the cut as well, and have each copy of the journal rot; return the number of runs."""
    for copy in (0, 1):
        device, _ = _dropped(geometry, Power(*cut), is_started=False)
        _start(device)  # which mends the copy that was torn
        device.rot_journal(copy)
        faults += [f"drop cut at {cut}, copy {copy} rotten: {fault}" for fault in _look(_started(device))]
    operation, is_cut = -1, True
    while is_cut:
        operation, is_cut = operation + 1, False
        for tear in Tear:
            device, _ = _dropped(geometry, Power(*cut), is_started=False)
            device.flash.power = Power(operation, tear)
            try:
                device.restart(0)
            except PowerCut:
                is_cut = True
            faults += [f"drop cut at {cut}, then at {operation}: {fault}" for fault in _look(_started(device))]
    return (operation + 1) * len(Tear) + 2


def _dropped(geometry: Geometry, power: Power, *, is_started: bool = True) -> tuple[Device, bool]:
    """Tell a device with two models to drop one; return it after the cut, started again, and whether there was one."""
    device = _board(geometry)
    device.flash.power = power
    try:
        device.hand_in(_order(), 0)
    except PowerCut:
        return (_started(device) if is_started else device), True
    device.flash.power = Power()
    return device, False


def _look(device: Device) -> Iterator[str]:
    """Yield what is wrong with a device after a cut, and after the same drop again and a push."""
    artifacts = _artifacts()
    held = {version: content for _, version, content in device.models().values()}
    if any(content != artifacts[version].content for version, content in held.items()):
        yield "a mixed image"
    if set(held) not in ({OLD, NEW}, {NEW}):
        yield f"holds {sorted(held)}"
    try:
        device.hand_in(terms.Connected(), 0)
        device.hand_in(_order(), 0)
        device.hand_in(_order(NEW), 0)
        if {version for _, version, _ in device.models().values()} != {NEW}:
            yield "the same drop again did not end it, or the last model went"
        _push(device, artifacts[OLD])
    except FlashFault as fault:
        yield f"flash: {fault}"
    if {version for _, version, _ in device.models().values()} != {OLD, NEW}:
        yield "the push after it did not get through"


def _order(version: int = OLD) -> terms.Event:
    artifact = _artifacts()[version]
    message = wire.DropMessage(1, artifact.model, version, digest_of(artifact.content))
    return terms.MessageReceived("drop", wire.encode_drop(message))


def _start(device: Device) -> None:
    device.flash.power = Power()
    device.restart(0)


def _started(device: Device) -> Device:
    _start(device)
    return device


@cache
def _artifacts() -> dict[int, Artifact]:
    contents = {version: content_of(version, _MODEL_BYTES) for version in (OLD, NEW)}
    return {OLD: artifact_of(OLD, contents[OLD]), NEW: artifact_of(NEW, contents[NEW], model=_OTHER)}


def _board(geometry: Geometry) -> Device:
    device = Device(replace(geometry, slot_count=3, drops=True), KEYS, lambda _: None)
    device.cells.content[:] = _image(geometry)
    _start(device)
    device.hand_in(terms.Connected(), 0)
    return device


@cache
def _image(geometry: Geometry) -> bytes:
    device = Device(replace(geometry, slot_count=3, drops=True), KEYS, lambda _: None)
    device.power_on(0)
    device.hand_in(terms.Connected(), 0)
    for artifact in _artifacts().values():
        _push(device, artifact)
    return bytes(device.cells.content)


def _push(device: Device, artifact: Artifact) -> None:
    """Push a version without a cut; the device's own state says what it wants."""
    said: list[terms.Publish] = []
    device.listen(said.append)
    push = PushId(device.agent.state.push + 1)
    device.hand_in(terms.MessageReceived("offer", wire.encode_offer(push, artifact.signed)), 0)
    while (want := _last(said)).phase is PushPhase.WANT:
        content = artifact.stream[want.offset : want.offset + want.length]
        device.hand_in(terms.MessageReceived("chunk", wire.encode_chunk(push, want.offset, content)), 0)
    device.hand_in(terms.MessageReceived("activate", wire.encode_activate(push)), 0)
    device.hand_in(terms.MessageReceived("accept", wire.encode_accept(push)), 0)


def _last(said: list[terms.Publish]) -> PushReport:
    heard = wire.decode_up("push", [each for each in said if each.kind == "push"][-1].payload, _DEVICE)
    assert isinstance(heard, PushReport)  # noqa: S101 - what up/push is
    return heard
