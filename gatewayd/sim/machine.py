"""Carries out what the agent says: flash, interpreter, sensors, and the time and energy they take on this board."""

import asyncio
import os
import signal
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from gatewayd.core.errors import CallerError, GatewayError
from gatewayd.core.tensor import DType, Tensor, TensorSpec, converted
from gatewayd.sim.board import RADIO_NJ_PER_BYTE, Truth
from gatewayd.sim.conditions import Conditions
from gatewayd.sim.flash import Flash, PowerCut
from gatewayd.sim.runtime import BoardModel, BoardRuntime
from gatewayd.sim.sensor import ReplaySensor
from gatewayd.sim.unpack import unpacked
from gatewayd.wire.agent_terms import (
    EraseSlot,
    HashSlot,
    InflateSlot,
    ReadSensor,
    RunDone,
    RunModel,
    RunSelfTest,
    SampleDone,
    SelfTestDone,
    SlotHashed,
    SlotInflated,
    WriteJournal,
    WriteSlot,
)
from gatewayd.wire.mqttdevice import FrameStatus, ResultFrame, SampleFrame

Task = EraseSlot | WriteSlot | WriteJournal | HashSlot | InflateSlot | RunSelfTest | RunModel | ReadSensor
Done = SlotHashed | SlotInflated | SelfTestDone | RunDone | SampleDone

_MAX_REASON = 160


@dataclass(slots=True)
class Machine:
    """One board's hardware. `spent_nj` is what inferences and answers took from the battery since the start.

    `returns_bytes` is the largest sample that goes with an answer. `exported` is a directory for a slot's model as a file, for a
    runtime that reads files.
    """

    flash: Flash
    exported: Path
    runtime: BoardRuntime
    sensors: tuple[ReplaySensor, ...]
    truth: Truth
    returns_bytes: int = 0
    spent_nj: int = 0
    conditions: Conditions = field(default_factory=Conditions)

    async def journals(self) -> tuple[bytes, bytes]:
        """Return both copies of the journal as they are in flash."""
        return await asyncio.to_thread(self.flash.journals)

    async def execute(self, task: Task) -> Done | None:
        """Carry out one command; return what it gives back. Raises: FlashFault, OSError: the board must reset."""
        match task:
            case EraseSlot(slot) | WriteSlot(slot):
                self.runtime.forget(slot)
                await asyncio.to_thread(self._change, task)
            case WriteJournal():
                await asyncio.to_thread(self._change, task)
            case _:
                return await self._answer(task)
        return None

    def _change(self, task: EraseSlot | WriteSlot | WriteJournal) -> None:
        try:
            match task:
                case EraseSlot(slot, offset, end):
                    self.flash.erase(slot, offset, end)
                case WriteSlot(slot, offset, content):
                    self.flash.write(slot, offset, content)
                case WriteJournal(copy, offset, content):
                    self.flash.write_journal(copy, offset, content)
        except PowerCut:
            _die()

    def _unpack(self, task: InflateSlot) -> SlotInflated:
        try:
            return unpacked(self.flash, task)
        except PowerCut:
            _die()
            raise

    async def _answer(self, task: HashSlot | InflateSlot | RunSelfTest | RunModel | ReadSensor) -> Done:
        match task:
            case HashSlot(slot, size_bytes, offset):
                return SlotHashed(slot, await asyncio.to_thread(self.flash.digest, slot, size_bytes, offset))
            case InflateSlot():
                return await asyncio.to_thread(self._unpack, task)
            case RunSelfTest():
                return await self._self_test(task)
            case RunModel():
                return RunDone(await self._run(task))
            case ReadSensor(request, sensor):
                return SampleDone(self._sample(request, sensor))
            case _:
                assert_never(task)

    async def _self_test(self, task: RunSelfTest) -> SelfTestDone:
        try:
            model = await self._loaded(task.slot, task.size_bytes)
            output, dtype = await self.runtime.self_test(model, task.seed)
        except GatewayError as error:
            return SelfTestDone(task.slot, b"", DType.INT8, _short(error))
        await asyncio.sleep(self._compute_s(model))
        self.spent_nj += self._energy_nj(model, radio_bytes=0)
        return SelfTestDone(task.slot, output, dtype)

    async def _run(self, task: RunModel) -> ResultFrame:
        try:
            model = await self._loaded(task.slot, task.size_bytes)
            sample, raw, content = self._input(task, model)
            output, compute_s = await self._timed(model, content)
        except CallerError as error:
            return ResultFrame(task.request, FrameStatus.REFUSED, 0, 0, 0, reason=_short(error))
        except GatewayError as error:
            return ResultFrame(task.request, FrameStatus.FAILED, 0, 0, 0, reason=_short(error))
        is_unsure = task.below is not None and _is_below(output, model.loaded.outputs[0].dtype, task.below)
        sent = output + raw if is_unsure and len(raw) <= self.returns_bytes else output
        energy_nj = self._energy_nj(model, radio_bytes=len(task.content or b"") + len(sent))
        self.spent_nj += energy_nj
        compute_us, has_sample = round(compute_s * 1e6), len(sent) > len(output)
        return ResultFrame(task.request, FrameStatus.OK, compute_us, energy_nj, sample, sent, has_sample=has_sample)

    async def _timed(self, model: BoardModel, content: bytes) -> tuple[bytes, float]:
        """Run; wait until this board would have been done; return the output and the board's seconds."""
        loop = asyncio.get_running_loop()
        start_s, compute_s = loop.time(), self._compute_s(model)
        output = await self.runtime.run([content])
        await asyncio.sleep(max(0.0, start_s + compute_s - loop.time()))
        return output, compute_s

    def _compute_s(self, model: BoardModel) -> float:
        return self.truth.compute_s(model.macs) * self.conditions.compute

    def _energy_nj(self, model: BoardModel, *, radio_bytes: int) -> int:
        """Who computes for longer takes more from the battery; the radio takes what it takes."""
        computing = self.truth.energy_nj(model.macs, radio_bytes=0) * self.conditions.compute
        return round(computing) + radio_bytes * RADIO_NJ_PER_BYTE

    def _input(self, task: RunModel, model: BoardModel) -> tuple[int, bytes, bytes]:
        """Return the sample's number and bytes (0 and none when the input came with the request), and the input as stored."""
        if task.content is not None:
            return 0, b"", task.content
        sensor = self.sensors[task.sensor]
        number, content = sensor.read()
        return number, content, _as_stored(sensor.description.spec, content, model.loaded.inputs[0])

    def _sample(self, request: int, sensor: int) -> SampleFrame:
        number, content = self.sensors[sensor].read()
        energy_nj = len(content) * RADIO_NJ_PER_BYTE
        self.spent_nj += energy_nj
        return SampleFrame(request, FrameStatus.OK, energy_nj, number, content)

    async def _loaded(self, slot: int, size_bytes: int) -> BoardModel:
        held = self.runtime.held(slot)
        if held is not None:
            return held
        path = self.exported / f"slot-{slot}.tflite"
        await asyncio.to_thread(path.write_bytes, await asyncio.to_thread(self.flash.read, slot, 0, size_bytes))
        return await self.runtime.load(slot, path)


def _die() -> None:
    """The power is gone: nothing after this is done."""
    os.kill(os.getpid(), signal.SIGKILL)


def _as_stored(spec: TensorSpec, content: bytes, target: TensorSpec) -> bytes:
    tensor = Tensor(spec.name, spec.dtype, spec.shape, content)
    return converted(tensor, source=spec.quantization, target=target).content


def _is_below(output: bytes, dtype: DType, below: bytes) -> bool:
    """Whether no element of the output reaches the threshold, both as stored."""
    (threshold,) = struct.unpack("<f" if dtype is DType.FP32 else "<i", below)
    values = Tensor("", dtype, (len(output) // dtype.item_bytes,), output).values()
    return not any(each >= threshold for each in values)


def _short(error: GatewayError) -> str:
    return " ".join(str(error).split())[:_MAX_REASON]
