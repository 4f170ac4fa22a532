"""A device's state machine, from docs/device-protocol-mqtt.md alone: nothing of gatewayd is imported."""

import hashlib
import json
import struct
import time
from collections.abc import Callable, Mapping

from tests.second_device.flash import Flash, Push, Sensor, Slot, row
from tests.second_device.module import Manifest, Refused, is_expected, made_inputs, read_signed

CHUNK, PAGE, SLOT_BYTES, ARENA = 512, 1024, 32768, 65536
RETURNS = 1024
REPEAT_S, REPEATS, TRIAL_S, RESTARTS = 2.0, 30, 30.0, 3

Runner = Callable[[bytes, list[bytes]], list[bytes]]
Say = Callable[[str, bytes], None]


class Agent:
    """Takes pushes, runs models; what it says goes to `say(leaf, payload)`. A new one on the same flash is a restart."""

    def __init__(
        self,
        flash: Flash,
        *,
        keys: Mapping[bytes, bytes],
        runner: Runner,
        sensor: Sensor,
        say: Say,
        chunk: int = CHUNK,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.flash, self._chunk, self._clock = flash, chunk, clock
        self._keys, self._runner, self._sensor, self._say = keys, runner, sensor, say
        self._ended: dict[str, object] = {}
        self._is_connected = self._is_unheard = False
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
        self._is_connected = True
        self._birth()
        if self._is_unheard:
            self._is_unheard = False
            self._say_json("push", self._ended)
        push = self.flash.push
        if push is None or self._is_waiting:
            return
        if self._trial_begins_anew and (why := self._trial_again(push, now)):
            self._drop(why)
        elif push.phase == "want":
            self._want(now, asked=1)
        else:
            self._report(push.number, push.phase)

    def _trial_again(self, push: Push, now: float) -> str:
        self._trial_begins_anew, push.tries, self._due = False, push.tries + 1, now + TRIAL_S
        if self.flash.slots[push.slot].state != "trial":
            return "digest differs"
        return f"trial: the device restarted {push.tries} times" if push.tries > RESTARTS else ""

    def lost(self) -> None:
        """Say nothing until the next connection."""
        self._is_connected = False

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
            "drop": self._told_to_drop,
        }
        if leaf in handlers:
            if len(payload) >= 4:
                handlers[leaf](payload, now)
            return
        push, order = self.flash.push, json.loads(payload)
        if push is None or order["push"] != push.number or (self._is_waiting and leaf != "cancel"):
            if leaf in {"activate", "accept"} and self._ended.get("push") == order["push"]:
                self._say_json("push", self._ended)
        elif leaf == "cancel":
            self._drop(f"cancelled: {order['reason']}" if order.get("reason") else "cancelled")
        elif leaf == "activate" and push.phase in {"tested", "trial"}:
            self._activate(push, now)
        elif leaf == "accept" and push.phase == "trial":
            self._accept(push)

    def _birth(self) -> None:
        slots = [row(number, slot) for number, slot in enumerate(self.flash.slots)]
        sensor: dict[str, object] = {"name": self._sensor.name, "dtype": "INT16", "shape": self._sensor.shape}
        sensor |= {"scale": self._sensor.scale, "zero": 0, "preprocessing": self._sensor.preprocessing}
        status = {"v": 1, "state": "online", "board": "second", "cpu": "cortex-m4", "mhz": 120, "ram": 655360}
        status |= {"flash": 2097152, "runtime": "litert", "runtime_version": "2", "abi": 3, "arena": ARENA}
        status |= {
            "slot_bytes": SLOT_BYTES,
            "chunk": self._chunk,
            "energy": "mains",
            "drop": True,
            "returns": RETURNS,
            "sensors": [sensor],
            "slots": slots,
        }
        self._say_json("status", status)

    def _say_json(self, leaf: str, value: Mapping[str, object]) -> None:
        if self._is_connected:
            self._say(leaf, json.dumps(value).encode())

    def _report(self, number: int, phase: str, **more: object) -> None:
        report = {"push": number, "phase": phase, **more}
        if phase in {"accepted", "failed"}:
            self._ended, self._is_unheard = report, not self._is_connected
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
                self.flash.slots[push.slot].manifest = manifest
                return self._go_on(push, number, now)
            self._drop(f"superseded by push {number}")
        slot = next(index for index, each in enumerate(self.flash.slots) if each.state == "empty")
        self.flash.slots[slot] = Slot("staging", manifest=manifest)
        self.flash.push = Push(number, slot, leaving=manifest.instead[0] if manifest.instead else "")
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
        leaving = self._leaving(manifest)
        others = [each for each in self.flash.slots if each.state == "active" and each not in (active, leaving)]
        if len(others) >= len(self.flash.slots) - 1:
            raise Refused("no free slot")
        runs = active.manifest if active else None
        if runs is not None and (runs.digest == manifest.digest or runs.version == manifest.replaces):
            return
        if manifest.version < self.flash.accepted.get(manifest.model, 0) or (runs and manifest.version <= runs.version):
            raise Refused(f"version {manifest.version} is not newer")

    def _leaving(self, manifest: Manifest) -> Slot | None:
        """Find what gives way to it; another version of that is a reason to refuse."""
        name, version = manifest.instead or ("", 0)
        slot = self._active(name)
        if slot is not None and slot.manifest is not None and slot.manifest.version != version:
            raise Refused(f"instead of {name}@{version}: version {slot.manifest.version} is there")
        return slot

    def _told_to_drop(self, payload: bytes, _: float) -> None:
        order = json.loads(payload)
        why = self._keeps(order)
        slot = None if why else self._active(order["model"])
        if slot is not None:
            self.flash.slots[self.flash.slots.index(slot)] = Slot()
            self._birth()
        answer = {"status": "refused", "reason": why} if why else {"status": "dropped"}
        self._say_json("drop", {"request": order["request"], **answer})

    def _keeps(self, order: dict[str, object]) -> str:
        """Say why the model stays; nothing when it may go, or is gone."""
        push, model = self.flash.push, order["model"]
        slots = [each for each in self.flash.slots if each.manifest is not None and each.manifest.model == model]
        if not slots:
            return ""
        named = (order["version"], order["digest"])
        found = [
            each for each in slots if each.manifest and (each.manifest.version, each.manifest.digest.hex()) == named
        ]
        if not found:
            return f"another version of {model} is here"
        if found[0].state != "active":
            return f"{model} is being pushed"
        if push is not None and (len(slots) > 1 or push.leaving == model):
            return "a push needs it"
        others = [each for each in self.flash.slots if each.state == "active" and each is not found[0]]
        return "" if others or order.get("last") else "it is the only model"

    def _active(self, model: str) -> Slot | None:
        for slot in self.flash.slots:
            if slot.state == "active" and slot.manifest is not None and slot.manifest.model == model:
                return slot
        return None

    def _go_on(self, push: Push, number: int, now: float) -> None:
        staged = self.flash.slots[push.slot].manifest
        push.leaving = staged.instead[0] if staged is not None and staged.instead else ""
        is_new = push.number != number
        if is_new:
            push.number, push.tries = number, 0
        was_waiting, self._is_waiting = self._is_waiting, False
        if push.phase != "want" and not was_waiting:
            return self._report(number, push.phase)
        push.phase, self._asked = "want", 1
        if is_new or was_waiting or not now < self._due < float("inf"):
            self._want(now, asked=1)
        return None

    def _want(self, now: float, *, asked: int) -> None:
        push = self.flash.push
        assert push is not None
        slot = self.flash.slots[push.slot]
        assert slot.manifest is not None
        self._asked, self._due = asked, now + REPEAT_S
        length = min(self._chunk, slot.manifest.size - len(slot.content))
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
        wanted = (push.number, len(slot.content), min(self._chunk, slot.manifest.size - len(slot.content)))
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
        for gone in (old, self._active(self.flash.push.leaving) if self.flash.push else None):
            if gone is not None:
                self.flash.slots[self.flash.slots.index(gone)] = Slot()
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
        sample, follows, below, raw, begin = 0, 0, b"", b"", self._clock()
        try:
            model, manifest = self._model(number, version)
            content = payload[12:]
            if flags & 1:
                below = _threshold(flags, content)
                sample, raw = self._read(sensor)
                content = self._sensor.as_input(raw, manifest.inputs[0])
            _check_input(content, manifest)
            status, answer = 0, self._runner(model, [content])[0]
            if below and len(raw) <= RETURNS and not _is_sure(answer, manifest, below):
                answer, follows = answer + raw, 1
        except Refused as why:
            status, answer = 1, str(why).encode()
        except (RuntimeError, ValueError) as error:
            status, answer = 2, str(error).encode()[:200]
        micros = round((self._clock() - begin) * 1e6)
        self._say("result", struct.pack("<IBBHIII", request, status, follows, 0, micros, 0, sample) + answer)

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


def _check_input(content: bytes, manifest: Manifest) -> None:
    if len(content) != manifest.inputs[0].size:
        raise Refused(f"{len(content)} bytes of input; it takes {manifest.inputs[0].size}")


def _threshold(flags: int, content: bytes) -> bytes:
    if flags > 3 or len(content) != (4 if flags & 2 else 0):
        raise Refused(f"flags {flags} with {len(content)} bytes")
    return content


def _is_sure(answer: bytes, manifest: Manifest, below: bytes) -> bool:
    output = manifest.outputs[0]
    (least,) = struct.unpack("<f" if output.is_float else "<i", below)
    return any(each >= least for each in output.values(answer))
