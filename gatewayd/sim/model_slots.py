"""The agent as LwM2M objects: what is written and executed becomes its messages, what it says becomes resources. No sockets.

The agent is the one of `wire.agent`, unchanged: its messages are its own language, and this file is the only one that
speaks both. A firmware that attaches over LwM2M has the same layer around the same agent. Source: docs/device-agent.md.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gatewayd.core.device import Born, PushPhase, PushReport, Report, Slot, SlotState
from gatewayd.core.names import DeviceId, Digest, PushId
from gatewayd.sim.objects import BAD_REQUEST, BUSY, INCOMPLETE, NOT_ALLOWED, TOO_BIG, Refusal
from gatewayd.wire.agent_terms import MessageReceived, Publish
from gatewayd.wire.mqttdevice import (
    MAX_DATA_BYTES,
    DropFrame,
    DropMessage,
    FrameStatus,
    ResultFrame,
    SampleFrame,
    decode_up,
    encode_accept,
    encode_activate,
    encode_cancel,
    encode_chunk,
    encode_drop,
    encode_offer,
    encode_run,
    encode_sample,
)

_SELF, _NO_PUSH = DeviceId("self"), PushId(0)
MAX_RUNS_WAITING = 4
"""Runs that wait for the one before: bounds the device's memory for inputs; one more is answered with 5.03."""
RUNNABLE = (SlotState.TRIAL, SlotState.ACTIVE)


class Commands(Protocol):
    """What the board does for the objects."""

    async def submit(self, message: MessageReceived) -> None:
        """Hand a message to the agent; return when it is written to flash what it made the agent write, and answered."""

    def fetch(self, slot: int, uri: str) -> None:
        """Begin to pull the package of the slot; stop when `uri` is empty."""


@dataclass(slots=True)
class Attempt:
    """The push that one instance is about: 13 to 15 of it, and what the agent said last."""

    instance: int = -1
    push: PushId = _NO_PUSH
    phase: PushPhase | None = None
    offset: int = 0
    wanted: int = 0
    reason: str = ""
    is_install_asked: bool = False


@dataclass(slots=True)
class Outcome:
    """The last run of a slot, and the input for the next. `tag` 0: nobody asked for that run."""

    content: bytes = b""
    frame: ResultFrame = field(default_factory=lambda: ResultFrame(0, FrameStatus.OK, 0, 0, 0))
    runs: int = 0
    tag: int = 0
    sensor: int = 0


@dataclass(slots=True)
class Sampled:
    """The last sample of each sensor."""

    contents: dict[int, bytes] = field(default_factory=dict)
    frame: SampleFrame = field(default_factory=lambda: SampleFrame(0, FrameStatus.OK, 0, 0))


@dataclass(slots=True)
class _Waiting:
    """A run or a sample under way: of which slot or sensor, and who waits for its end."""

    index: int
    tag: int = 0
    sensor: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class ModelSlots:
    """All slots of one device. `take` is told what the agent publishes; the rest is what the server asks for."""

    def __init__(self, slot_count: int, commands: Commands, on_change: Callable[[], None]) -> None:
        self.slots = tuple(Slot(index, SlotState.EMPTY) for index in range(slot_count))
        self.report: Report | None = None
        self.attempt = Attempt()
        self.outcomes = [Outcome() for _ in range(slot_count)]
        self.sampled = Sampled()
        self._commands = commands
        self._on_change = on_change
        self._offered: dict[int, PushId] = {}
        self._part = bytearray()
        self._runs: dict[int, _Waiting] = {}
        self._reads: dict[int, _Waiting] = {}
        self._requests = 0
        self._why_kept = ""

    def forget(self) -> None:
        """The power went: what was in RAM is gone; the agent says the rest."""
        self.attempt, self.sampled = Attempt(), Sampled()
        self.outcomes = [Outcome() for _ in self.outcomes]
        self._offered.clear()
        self._part.clear()
        for waiting in (*self._runs.values(), *self._reads.values()):
            waiting.over.set()
        self._runs.clear()
        self._reads.clear()

    def take(self, said: Publish) -> None:
        """Take what the agent says: its status, where a push stands, a result, a sample."""
        match decode_up(said.kind, said.payload, _SELF):
            case Born(report=report):
                self.report, self.slots = report, report.slots
            case PushReport() as report:
                self._stands(report)
            case ResultFrame() as frame:
                self._ran(frame)
            case SampleFrame() as frame:
                self._sampled(frame)
            case DropFrame(reason=reason):
                self._why_kept = reason
        self._on_change()

    def staging_instance(self) -> int | None:
        """Return the only instance that can take a package now: the one that is staging, else the lowest empty one."""
        for state in (SlotState.STAGING, SlotState.EMPTY):
            found = next((slot.index for slot in self.slots if slot.state is state), None)
            if found is not None:
                return found
        return None

    def name_push(self, instance: int, push: int) -> None:
        """Take the push's number (13); what it is about comes with the manifest."""
        self._check_instance(instance)
        self._offered = {instance: PushId(push)}

    def named_push(self, instance: int) -> int:
        """Return 13."""
        named = self._offered.get(instance)
        return named if named is not None else self.attempt.push if self.attempt.instance == instance else 0

    async def offer(self, instance: int, signed: bytes) -> None:
        """Hand the signed manifest (18) to the agent."""
        self._check_instance(instance)
        push = self._offered.pop(instance, _NO_PUSH) or (self.attempt.push if self._is_about(instance) else _NO_PUSH)
        if push == 0:
            raise Refusal(NOT_ALLOWED, "the push's number (13) comes before its manifest")
        self._part.clear()
        self.attempt = Attempt(instance, push)
        await self._commands.submit(MessageReceived("offer", encode_offer(push, signed)))

    async def feed(self, instance: int, start: int, content: bytes) -> None:
        """Take bytes of the package from byte `start`; what is there already is skipped.

        Raises: Refusal: 4.05 when none are wanted, 4.08 on a gap, 4.13 past the end.
        """
        done = 0
        while done < len(content):
            held = self.held_bytes(instance)
            if start + done > held:
                raise Refusal(INCOMPLETE, f"bytes from {held} are wanted, not from {start + done}")
            done = max(done, min(held - start, len(content)))
            piece = content[done : done + self.attempt.wanted - len(self._part)]
            done += len(piece)
            self._part += piece
            if piece and len(self._part) == self.attempt.wanted:
                await self._flush()
                if self.attempt.phase is not PushPhase.WANT and done < len(content):
                    raise Refusal(TOO_BIG, "the manifest says that the package ends before")

    def held_bytes(self, instance: int) -> int:
        """Return how much of the package is held, a part of a chunk in RAM included. Raises: Refusal (4.05)."""
        if not self._is_about(instance) or self.attempt.phase is not PushPhase.WANT:
            raise Refusal(NOT_ALLOWED, "no package is wanted here: its manifest comes first")
        return self.attempt.offset + len(self._part)

    def is_wanting(self, instance: int) -> bool:
        """Return whether bytes of a package are wanted."""
        return self._is_about(instance) and self.attempt.phase is PushPhase.WANT

    def fetch(self, instance: int, uri: str) -> None:
        """Begin to pull the package from `uri`. Raises: Refusal (4.05)."""
        if uri:
            self.held_bytes(instance)
        self._commands.fetch(instance, uri)

    def ask_install(self, instance: int) -> None:
        """Verify and test (4); both happen as soon as all bytes are there. Raises: Refusal (4.05) before that."""
        phases = {PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED, PushPhase.TRIAL}
        if not self._is_about(instance) or self.attempt.phase not in phases:
            raise Refusal(NOT_ALLOWED, "nothing is delivered here")
        self.attempt.is_install_asked = True
        self._on_change()

    async def activate(self, instance: int) -> None:
        """Begin the trial (10)."""
        if self.slots[instance].state in RUNNABLE:
            return
        if not self._is_about(instance) or self.attempt.phase is not PushPhase.TESTED:
            raise Refusal(NOT_ALLOWED, "nothing that passed its test is here")
        self.attempt.is_install_asked = True
        await self._commands.submit(MessageReceived("activate", encode_activate(self.attempt.push)))

    async def accept(self, instance: int) -> None:
        """End the trial (16)."""
        await self._about_push(instance, "accept", encode_accept(self.attempt.push))

    async def cancel(self, instance: int, reason: str) -> None:
        """Drop the push (17)."""
        await self._about_push(instance, "cancel", encode_cancel(self.attempt.push, reason))

    async def drop(self, instance: int, digest: Digest, *, is_last: bool) -> None:
        """Let the slot's model go. Raises: Refusal (4.05) saying why it stays."""
        slot = self.slots[instance]
        if slot.state is SlotState.EMPTY:
            return
        if slot.state is not SlotState.ACTIVE or slot.model is None or slot.version is None or slot.digest != digest:
            raise Refusal(NOT_ALLOWED, f"slot {instance} holds another model")
        self._why_kept = "it drops no models"
        order = DropMessage(0, slot.model, slot.version, digest, is_last)
        await self._commands.submit(MessageReceived("drop", encode_drop(order)))
        if self._why_kept:
            raise Refusal(NOT_ALLOWED, self._why_kept)

    async def run(self, instance: int, sensor: int | None, tag: int = 0) -> None:
        """Run the slot's model on the input written before, or on a sensor's sample; return when it is done.

        Raises: Refusal (4.05, 5.03).
        """
        slot = self.slots[instance]
        if slot.state not in RUNNABLE or slot.version is None:
            raise Refusal(NOT_ALLOWED, f"slot {instance} holds no model")
        if len(self._runs) >= MAX_RUNS_WAITING:
            raise Refusal(BUSY, f"{MAX_RUNS_WAITING} runs wait already")
        content = self.outcomes[instance].content if sensor is None else None
        self._requests += 1
        request, waiting = self._requests, _Waiting(instance, tag, sensor or 0)
        self._runs[request] = waiting
        frame = encode_run(request, slot=instance, version=slot.version, sensor=sensor or 0, content=content)
        await self._commands.submit(MessageReceived("run", frame))
        await waiting.over.wait()

    def write_input(self, instance: int, content: bytes) -> None:
        """Keep the input (4) for the next run."""
        if len(content) > MAX_DATA_BYTES:
            raise Refusal(TOO_BIG, f"an input has at most {MAX_DATA_BYTES} bytes")
        self.outcomes[instance].content = content

    async def read_sensor(self, sensor: int) -> None:
        """Take a sample now; return when it is there. Raises: Refusal (4.00, 5.03)."""
        if self.report is None or sensor >= len(self.report.capabilities.sensors):
            raise Refusal(BAD_REQUEST, f"there is no sensor {sensor}")
        if len(self._reads) >= MAX_RUNS_WAITING:
            raise Refusal(BUSY, f"{MAX_RUNS_WAITING} samples wait already")
        self._requests += 1
        request, waiting = self._requests, _Waiting(sensor)
        self._reads[request] = waiting
        await self._commands.submit(MessageReceived("sample", encode_sample(request, sensor)))
        await waiting.over.wait()

    async def _flush(self) -> None:
        chunk = encode_chunk(self.attempt.push, self.attempt.offset, bytes(self._part))
        self._part.clear()
        before = self.attempt.offset
        await self._commands.submit(MessageReceived("chunk", chunk))
        if self.attempt.phase is PushPhase.WANT and self.attempt.offset == before:
            raise Refusal(INCOMPLETE, f"the bytes from {before} were not taken")

    async def _about_push(self, instance: int, kind: str, payload: bytes) -> None:
        if not self._is_about(instance):
            raise Refusal(NOT_ALLOWED, "this instance is about no push")
        await self._commands.submit(MessageReceived(kind, payload))

    def _stands(self, report: PushReport) -> None:
        if self.attempt.instance < 0:  # after a restart the agent goes on with what its journal says
            self.attempt = Attempt(self._trying(), report.push)
        if report.push != self.attempt.push:
            return  # the end of one that was superseded; its instance is about the new one now
        self.attempt.phase, self.attempt.reason = report.phase, report.reason
        if report.phase is PushPhase.WANT:
            self.attempt.offset, self.attempt.wanted = report.offset, report.length
        else:
            self._part.clear()

    def _trying(self) -> int:
        on_trial = next((slot.index for slot in self.slots if slot.state is SlotState.TRIAL), None)
        return on_trial if on_trial is not None else self.staging_instance() or 0

    def _ran(self, frame: ResultFrame) -> None:
        waiting = self._runs.pop(frame.request, None)
        if waiting is not None:
            outcome = self.outcomes[waiting.index]
            outcome.frame, outcome.runs = frame, outcome.runs + 1
            outcome.tag, outcome.sensor = waiting.tag, waiting.sensor
            waiting.over.set()

    def _sampled(self, frame: SampleFrame) -> None:
        waiting = self._reads.pop(frame.request, None)
        if waiting is not None:
            self.sampled.frame = frame
            self.sampled.contents[waiting.index] = frame.content
            waiting.over.set()

    def _is_about(self, instance: int) -> bool:
        return self.attempt.instance == instance

    def _check_instance(self, instance: int) -> None:
        wanted = self.staging_instance()
        if instance != wanted:
            raise Refusal(NOT_ALLOWED, f"instance {wanted} is the one that takes a package now")
