"""A device's state machine, from docs/device-protocol-mqtt.md alone: nothing of gatewayd is imported."""

import hashlib
import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.second_device.module import Manifest, Refused, Tensor, is_expected, made_inputs, read_signed

CHUNK, PAGE, SLOT_BYTES, ARENA = 512, 1024, 32768, 65536
REPEAT_S, REPEATS, TRIAL_S, RESTARTS = 2.0, 30, 30.0, 3

Runner = Callable[[bytes, list[bytes]], list[bytes]]
Say = Callable[[str, bytes], None]


@dataclass
class Slot:
    """One place for a model."""

    state: str = "empty"
    content: bytearray = field(default_factory=bytearray)
    manifest: Manifest | None = None


@dataclass
class Push:
    """A push under way; `noted` bytes are in flash for sure."""

    number: int
    slot: int
    phase: str = "want"
    noted: int = 0
    tries: int = 0


@dataclass
class Flash:
    """All that outlives a power cut."""

    slots: list[Slot] = field(default_factory=lambda: [Slot(), Slot()])
    push: Push | None = None
    accepted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sensor:
    """A source of samples of one form."""

    name: str
    shape: list[int]
    scale: float
    preprocessing: str
    read: Callable[[int], bytes]

    def as_input(self, sample: bytes, tensor: Tensor) -> bytes:
        real = [value * self.scale for value in struct.unpack(f"<{len(sample) // 2}h", sample)]
        if tensor.is_float:
            return struct.pack(f"<{len(real)}f", *real)
        bits = 8 * struct.calcsize(tensor.code)
        low, high = (0, 2**bits - 1) if tensor.code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        stored = [min(high, max(low, round(each / tensor.scale) + tensor.zero)) for each in real]
        return struct.pack(f"<{len(stored)}{tensor.code}", *stored)


class Agent:
    """Takes pushes, runs models; what it says goes to `say(leaf, payload)`. A new one on the same flash is a restart."""

    def __init__(self, flash: Flash, *, keys: Mapping[bytes, bytes], runner: Runner, sensor: Sensor, say: Say) -> None:
        self.flash = flash
        self._keys, self._runner, self._sensor, self._say = keys, runner, sensor, say
        self._ended: dict[str, object] = {}
        self._is_waiting = flash.push is not None and flash.push.phase != "trial"
        self._asked, self._due = 0, float("inf")
        self._samples = 0
        self._trial_begins_anew = flash.push is not None and not self._is_waiting
        self._check_slots()

    def _check_slots(self) -> None:
        for number, slot in enumerate(self.flash.slots):
            if slot.state in {"active", "trial"} and not self._is_whole(slot):
                self.flash.slots[number] = Slot()
        push = self.flash.push
        if push is not None and self._is_waiting:
            del self.flash.slots[push.slot].content[push.noted :]

    def _is_whole(self, slot: Slot) -> bool:
        return slot.manifest is not None and hashlib.sha256(slot.content).digest() == slot.manifest.digest

    def connected(self, now: float) -> None:
        """Publish the birth; go on with what was asked for."""
        self._birth()
        push = self.flash.push
        if push is None:
            return
        if self._trial_begins_anew:
            self._trial_begins_anew, push.tries = False, push.tries + 1
            if self.flash.slots[push.slot].state != "trial":
                self._drop("digest differs")
            elif push.tries > RESTARTS:
                self._drop(f"trial: the device restarted {push.tries} times")
            else:
                self._due = now + TRIAL_S
        elif push.phase == "want" and not self._is_waiting:
            self._want(now, asked=1)
        if self._ended:
            self._say_json("push", self._ended)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._due or self.flash.push is None:
            return
        self._due = float("inf")
        if self.flash.push.phase == "trial":
            self._drop("trial not confirmed")
        elif self._asked <= REPEATS:
            self._want(now, asked=self._asked + 1)

    def heard(self, leaf: str, payload: bytes, now: float) -> None:
        """Obey one message of `down/<leaf>`; one that cannot be read is dropped."""
        handlers: dict[str, Callable[[bytes, float], None]] = {
            "offer": self._offered,
            "chunk": self._got_chunk,
            "run": self._run,
            "sample": self._sample,
            "ping": lambda token, _: self._say("pong", token),
        }
        if leaf in handlers:
            if len(payload) >= 4:
                handlers[leaf](payload, now)
            return
        push = self.flash.push
        if push is None or json.loads(payload)["push"] != push.number or self._is_waiting:
            return
        if leaf == "activate" and push.phase in {"tested", "trial"}:
            self._activate(push, now)
        elif leaf == "accept" and push.phase == "trial":
            self._accept(push)
        elif leaf == "cancel":
            self._drop(json.loads(payload).get("reason", "cancelled"))

    def _birth(self) -> None:
        slots = [_row(number, slot) for number, slot in enumerate(self.flash.slots)]
        sensor: dict[str, object] = {"name": self._sensor.name, "dtype": "INT16", "shape": self._sensor.shape}
        sensor |= {"scale": self._sensor.scale, "zero": 0, "preprocessing": self._sensor.preprocessing}
        status = {"v": 1, "state": "online", "board": "second", "cpu": "cortex-m4", "mhz": 120, "ram": 655360}
        status |= {"flash": 2097152, "runtime": "litert", "runtime_version": "2", "abi": 3, "arena": ARENA}
        status |= {"slot_bytes": SLOT_BYTES, "chunk": CHUNK, "energy": "mains", "sensors": [sensor], "slots": slots}
        self._say_json("status", status)

    def _say_json(self, leaf: str, value: Mapping[str, object]) -> None:
        self._say(leaf, json.dumps(value).encode())

    def _report(self, number: int, phase: str, **more: object) -> None:
        report = {"push": number, "phase": phase, **more}
        if phase in {"accepted", "failed"}:
            self._ended = report
        self._say_json("push", report)

    def _offered(self, payload: bytes, now: float) -> None:
        number, push = struct.unpack_from("<I", payload)[0], self.flash.push
        try:
            manifest = read_signed(payload[4:], self._keys)
            if self._ended.get("push") == number:
                return self._say_json("push", self._ended)
            if push is None or push.number != number or self._is_waiting:
                self._check_fit(manifest)
        except Refused as why:
            return self._report(number, "rejected", reason=str(why)[:200])
        active = self._active(manifest.model)
        if active is not None and active.manifest is not None and active.manifest.digest == manifest.digest:
            active.manifest = manifest
            self.flash.accepted[manifest.model] = manifest.version
            self._birth()
            return self._report(number, "accepted")
        if push is not None:
            staged = self.flash.slots[push.slot].manifest
            if staged is not None and staged.is_same_content(manifest):
                push.number = number
                return self._go_on(push, now)
            self._drop("another push came")
        slot = next(index for index, each in enumerate(self.flash.slots) if each.state == "empty")
        self.flash.slots[slot] = Slot("staging", manifest=manifest)
        self.flash.push = Push(number, slot)
        self._birth()
        return self._want(now, asked=1)

    def _check_fit(self, manifest: Manifest) -> None:
        if manifest.encoding != 0:
            raise Refused("encoding was not declared")
        if manifest.size > SLOT_BYTES or manifest.arena > ARENA:
            raise Refused(f"{manifest.size} bytes, arena {manifest.arena}: more than {SLOT_BYTES} or {ARENA}")
        if manifest.abi != 3:
            raise Refused(f"ABI {manifest.abi}")
        active = self._active(manifest.model)
        others = [each for each in self.flash.slots if each.state == "active" and each is not active]
        if len(others) >= len(self.flash.slots) - 1:
            raise Refused("no free slot")
        runs = active.manifest if active else None
        if runs is not None and (runs.digest == manifest.digest or runs.version == manifest.replaces):
            return
        if manifest.version < self.flash.accepted.get(manifest.model, 0) or (runs and manifest.version <= runs.version):
            raise Refused(f"version {manifest.version} is not newer")

    def _active(self, model: str) -> Slot | None:
        for slot in self.flash.slots:
            if slot.state == "active" and slot.manifest is not None and slot.manifest.model == model:
                return slot
        return None

    def _go_on(self, push: Push, now: float) -> None:
        was_waiting, self._is_waiting = self._is_waiting, False
        if push.phase == "want" or was_waiting:
            push.phase = "want"
            if was_waiting or not now < self._due < float("inf"):
                self._want(now, asked=1)
        else:
            self._report(push.number, push.phase)

    def _want(self, now: float, *, asked: int) -> None:
        push = self.flash.push
        assert push is not None
        slot = self.flash.slots[push.slot]
        assert slot.manifest is not None
        self._asked, self._due = asked, now + REPEAT_S
        length = min(CHUNK, slot.manifest.size - len(slot.content))
        if length > 0:
            self._report(push.number, "want", offset=len(slot.content), length=length)
        else:
            self._verify(push, slot)

    def _got_chunk(self, payload: bytes, now: float) -> None:
        push = self.flash.push
        if push is None or push.phase != "want" or self._is_waiting or len(payload) < 9:
            return
        number, offset = struct.unpack_from("<II", payload)
        slot, data = self.flash.slots[push.slot], payload[8:]
        assert slot.manifest is not None
        wanted = (push.number, len(slot.content), min(CHUNK, slot.manifest.size - len(slot.content)))
        if (number, offset, len(data)) != wanted:
            return
        slot.content += data
        push.noted = len(slot.content) // PAGE * PAGE
        self._want(now, asked=1)

    def _verify(self, push: Push, slot: Slot) -> None:
        self._due, push.noted = float("inf"), len(slot.content)
        self._report(push.number, "written")
        if not self._is_whole(slot):
            return self._drop("digest differs")
        self._report(push.number, "verified")
        push.tries += 1
        if push.tries > RESTARTS:
            return self._drop("self-test: begun 3 times without an end")
        why = self._self_test(slot)
        if why:
            return self._drop(why)
        push.phase, push.tries = "tested", 0
        return self._report(push.number, "tested")

    def _self_test(self, slot: Slot) -> str:
        assert slot.manifest is not None
        seed, expected, tolerance = slot.manifest.test or (1, b"", 0)
        try:
            outputs = self._runner(bytes(slot.content), made_inputs(slot.manifest, seed))
        except (RuntimeError, ValueError) as error:
            return f"self-test: {error}"[:200]
        return "" if is_expected(slot.manifest, outputs[0], expected, tolerance) else "self-test: output differs"

    def _activate(self, push: Push, now: float) -> None:
        if push.phase == "tested":
            push.phase, self._due = "trial", now + TRIAL_S
            self.flash.slots[push.slot].state = "trial"
            self._birth()
        self._report(push.number, "trial")

    def _accept(self, push: Push) -> None:
        new = self.flash.slots[push.slot]
        assert new.manifest is not None
        old = self._active(new.manifest.model)
        if old is not None:
            self.flash.slots[self.flash.slots.index(old)] = Slot()
        new.state, self._due, self.flash.push = "active", float("inf"), None
        self.flash.accepted[new.manifest.model] = new.manifest.version
        self._birth()
        self._report(push.number, "accepted")

    def _drop(self, reason: str) -> None:
        push, self.flash.push = self.flash.push, None
        assert push is not None
        self.flash.slots[push.slot] = Slot()
        self._is_waiting, self._due = False, float("inf")
        self._birth()
        self._report(push.number, "failed", reason=reason)

    def _run(self, payload: bytes, _: float) -> None:
        request, number, flags, sensor, _zero, version = struct.unpack_from("<IBBBBI", payload)
        sample, begin = 0, time.perf_counter()
        try:
            model, manifest = self._model(number, version)
            content = payload[12:]
            if flags & 1:
                sample, raw = self._read(sensor)
                content = self._sensor.as_input(raw, manifest.inputs[0])
            status, answer = 0, b"".join(self._runner(model, _split(content, manifest.inputs)))
        except Refused as why:
            status, answer = 1, str(why).encode()
        except (RuntimeError, ValueError) as error:
            status, answer = 2, str(error).encode()[:200]
        micros = round((time.perf_counter() - begin) * 1e6)
        self._say("result", struct.pack("<IBBHIII", request, status, 0, 0, micros, 0, sample) + answer)

    def _model(self, number: int, version: int) -> tuple[bytes, Manifest]:
        slot = self.flash.slots[number] if number < len(self.flash.slots) else Slot()
        if slot.state not in {"active", "trial"} or slot.manifest is None or slot.manifest.version != version:
            raise Refused(f"slot {number} does not hold version {version}")
        return bytes(slot.content), slot.manifest

    def _read(self, sensor: int) -> tuple[int, bytes]:
        if sensor != 0:
            raise Refused(f"no sensor {sensor}")
        number, self._samples = self._samples, self._samples + 1
        return number, self._sensor.read(number)

    def _sample(self, payload: bytes, _: float) -> None:
        request, sensor = struct.unpack_from("<IB", payload)
        try:
            status, (number, answer) = 0, self._read(sensor)
        except Refused as why:
            status, number, answer = 1, 0, str(why).encode()
        self._say("sample", struct.pack("<IBBHII", request, status, 0, 0, 0, number) + answer)


def _split(content: bytes, inputs: tuple[Tensor, ...]) -> list[bytes]:
    if len(content) != sum(each.size for each in inputs):
        raise Refused(f"{len(content)} bytes of input")
    parts = []
    for each in inputs:
        parts.append(content[: each.size])
        content = content[each.size :]
    return parts


def _row(number: int, slot: Slot) -> dict[str, Any]:
    row: dict[str, Any] = {"slot": number, "state": slot.state}
    if slot.manifest is not None:
        row |= {"model": slot.manifest.model, "version": slot.manifest.version, "digest": slot.manifest.digest.hex()}
    return row
