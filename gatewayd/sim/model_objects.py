"""The objects that carry models: Software Management (/9), ML Runtime (/26241) and ML Model (/26242), over `ModelSlots`.

One push is told twice, in the standard's words and in ours. Source: OMA LwM2M Software Management object 1.0 (SWMGMT);
docs/lwm2m for ours.
"""

import re
from collections.abc import Mapping, Sequence

from gatewayd.core.device import Capabilities, PushPhase, SlotState
from gatewayd.core.names import Digest
from gatewayd.sim.model_slots import RUNNABLE, ModelSlots
from gatewayd.sim.objects import BAD_REQUEST, NOT_ALLOWED, Refusal, Values, values_of
from gatewayd.wire.lwm2m.reports import runtime_records
from gatewayd.wire.lwm2m.values import Value

SOFTWARE, RUNTIME, MODEL = 9, 26241, 26242
PACKAGE, PACKAGE_URI = 2, 3
_INITIAL, _STARTED, _DOWNLOADED, _DELIVERED, _INSTALLED = range(5)
_RESULT_NONE, _RESULT_DOWNLOADING, _RESULT_INSTALLED, _RESULT_VERIFIED = 0, 1, 2, 3
_RESULT_NO_ROOM, _RESULT_LOST, _RESULT_INTEGRITY, _RESULT_DEVICE, _RESULT_INSTALL = 50, 52, 53, 57, 58
_SLOT_STATES = {SlotState.EMPTY: 0, SlotState.STAGING: 1, SlotState.TRIAL: 2, SlotState.ACTIVE: 3}
_PHASES = {phase: number for number, phase in enumerate(PushPhase, start=1)}
_UPDATE: Mapping[PushPhase | None, tuple[int, int]] = {
    None: (_INITIAL, _RESULT_NONE),
    PushPhase.WANT: (_STARTED, _RESULT_DOWNLOADING),
    PushPhase.WRITTEN: (_DOWNLOADED, _RESULT_DOWNLOADING),
    PushPhase.VERIFIED: (_DELIVERED, _RESULT_VERIFIED),
    PushPhase.TESTED: (_DELIVERED, _RESULT_VERIFIED),
    PushPhase.TRIAL: (_INSTALLED, _RESULT_INSTALLED),
    PushPhase.ACCEPTED: (_INSTALLED, _RESULT_INSTALLED),
}
_ARGUMENTS = re.compile(r"\s*(?:0='(\d{1,3})')?,?(?:1='(\d{1,10})')?\s*", re.ASCII)
_DROP_ARGUMENTS = re.compile(r"0='([0-9a-f]{64})'(,1)?", re.ASCII)


class SoftwareObject:
    """/9: each instance is a slot."""

    id, version = SOFTWARE, ""

    def __init__(self, slots: ModelSlots) -> None:
        self._slots = slots

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return range(len(self._slots.slots))

    def read(self, instance: int) -> Values:
        """See `ObjectPart`."""
        slot = self._slots.slots[instance]
        state, result = self._update(instance)
        is_active = slot.state in RUNNABLE
        return {0: slot.model or "", 1: str(slot.version or ""), 7: state, 9: result, 12: is_active}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset({PACKAGE, PACKAGE_URI}), frozenset({4, 6, 10, 11})

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        if resource == PACKAGE_URI and isinstance(value, str):
            self._slots.fetch(instance, value)
        elif resource == PACKAGE and isinstance(value, bytes):
            await self._slots.feed(instance, 0, value)
        else:
            raise Refusal(BAD_REQUEST, f"/{self.id}/{instance}/{resource} takes another type")

    async def execute(self, instance: int, resource: int, arguments: str) -> None:
        """See `ObjectPart`."""
        match resource:
            case 4:
                self._slots.ask_install(instance)
            case 6:
                await self._uninstall(instance, arguments)
            case 10:
                await self._slots.activate(instance)
            case _:
                raise Refusal(NOT_ALLOWED, "a model that answers is replaced, not switched off")

    async def _uninstall(self, instance: int, arguments: str) -> None:
        if self._slots.slots[instance].state in RUNNABLE:
            raise Refusal(NOT_ALLOWED, "a model that answers is replaced, not taken away")
        if self._slots.attempt.instance == instance:
            await self._slots.cancel(instance, f"uninstall {arguments}".strip())

    def _update(self, instance: int) -> tuple[int, int]:
        slot, attempt = self._slots.slots[instance], self._slots.attempt
        if slot.state is SlotState.ACTIVE:
            return _INSTALLED, _RESULT_INSTALLED
        if attempt.instance != instance:
            return (_STARTED, _RESULT_LOST) if slot.state is SlotState.STAGING else (_INITIAL, _RESULT_NONE)
        if attempt.phase in {PushPhase.REJECTED, PushPhase.FAILED}:
            return _failed(attempt.phase, attempt.reason)
        if attempt.phase is PushPhase.TESTED and attempt.is_install_asked:
            return _INSTALLED, _RESULT_INSTALLED
        return _UPDATE[attempt.phase]


class ModelObject:
    """/26242: each instance is a slot, the same as that of /9."""

    id, version = MODEL, "1.0"

    def __init__(self, slots: ModelSlots) -> None:
        self._slots = slots

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return range(len(self._slots.slots))

    def read(self, instance: int) -> Values:
        """See `ObjectPart`."""
        return {**self._held(instance), **self._ran(instance), **self._pushed(instance)}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset({4, 13, 18}), frozenset({5, 16, 17, 21})

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        match resource, value:
            case 13, int():
                self._slots.name_push(instance, value)
            case 4, bytes():
                self._slots.write_input(instance, value)
            case 18, bytes():
                await self._slots.offer(instance, value)
            case _:
                raise Refusal(BAD_REQUEST, f"/{self.id}/{instance}/{resource} takes another type")

    async def execute(self, instance: int, resource: int, arguments: str) -> None:
        """See `ObjectPart`."""
        match resource:
            case 5:
                sensor, tag = _arguments(arguments)
                await self._slots.run(instance, sensor, tag or 0)
            case 16:
                await self._slots.accept(instance)
            case 21:
                await self._drop(instance, arguments)
            case _:
                await self._slots.cancel(instance, "by the server")

    async def _drop(self, instance: int, arguments: str) -> None:
        found = _DROP_ARGUMENTS.fullmatch(arguments)
        if found is None:
            raise Refusal(BAD_REQUEST, "the arguments are 0='<digest>', and 1 when it may be the last")
        await self._slots.drop(instance, Digest(found[1]), is_last=found[2] is not None)

    def _held(self, instance: int) -> Values:
        slot = self._slots.slots[instance]
        digest = bytes.fromhex(slot.digest) if slot.digest is not None else b""
        return {0: _SLOT_STATES[slot.state], 1: slot.model or "", 2: slot.version or 0, 3: digest}

    def _ran(self, instance: int) -> Values:
        outcome = self._slots.outcomes[instance]
        frame = outcome.frame
        figures: Values = {7: frame.compute_us, 8: frame.energy_uj, 9: int(frame.status), 12: frame.sample}
        return {6: frame.content, 11: outcome.runs, **figures, 19: outcome.tag, 20: outcome.sensor}

    def _pushed(self, instance: int) -> Values:
        attempt, push = self._slots.attempt, self._slots.named_push(instance)
        reason = self._slots.outcomes[instance].frame.reason
        if attempt.instance != instance or push != attempt.push:
            return {10: reason, 13: push, 14: 0, 15: 0}
        phase = _PHASES[attempt.phase] if attempt.phase is not None else 0
        return {10: attempt.reason or reason, 13: push, 14: phase, 15: attempt.offset}


class RuntimeObject:
    """/26241: what the board is for models."""

    id, version = RUNTIME, "1.0"

    def __init__(self, slots: ModelSlots, has: Capabilities) -> None:
        self._slots = slots
        self._fixed = values_of(runtime_records(has))

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return (0,)

    def read(self, instance: int) -> Values:  # noqa: ARG002 - there is one
        """See `ObjectPart`."""
        sampled = self._slots.sampled
        samples: Values = {17: dict(sampled.contents)} if sampled.contents else {}
        return {**self._fixed, **samples, 18: sampled.frame.sample, 19: sampled.frame.energy_uj}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset(), frozenset({20})

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        raise NotImplementedError((instance, resource, value))

    async def execute(self, instance: int, resource: int, arguments: str) -> None:  # noqa: ARG002 - there is one of each
        """See `ObjectPart`."""
        await self._slots.read_sensor(_arguments(arguments)[0] or 0)


def _arguments(text: str) -> tuple[int | None, int | None]:
    """Return arguments 0 (a sensor) and 1 (a run's tag). Source: OMA LwM2M Core 1.1.1, section 6.3.5."""
    found = _ARGUMENTS.fullmatch(text)
    if found is None:
        raise Refusal(BAD_REQUEST, "the arguments are 0='<index of a sensor>',1='<tag>'")
    sensor, tag = (int(each) if each is not None else None for each in found.groups())
    return sensor, tag


def _failed(phase: PushPhase, reason: str) -> tuple[int, int]:
    """A failed install keeps what was delivered in the standard's words, though the agent has dropped it: uninstall to go on."""
    if phase is PushPhase.REJECTED:
        return _INITIAL, _RESULT_NO_ROOM if reason.startswith(("size", "no free slot")) else _RESULT_DEVICE
    if reason.startswith("digest"):
        return _INITIAL, _RESULT_INTEGRITY
    if reason.startswith("self-test"):
        return _DELIVERED, _RESULT_INSTALL
    return _INITIAL, _RESULT_DEVICE
