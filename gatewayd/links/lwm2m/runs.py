"""Inference through the ML Model object, and samples through ML Runtime: several questions that belong together.

Source: docs/lwm2m.md, "Running a model"; docs/lwm2m/26241.xml and 26242.xml.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from gatewayd.core.device import RunResult, SampleResult
from gatewayd.core.errors import BadRequest, DeviceRefused, DeviceTimeout
from gatewayd.links.lwm2m.line import Urgency
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.wire.lwm2m.objects import MODEL, RUNTIME
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.values import Record

_U31 = 2**31 - 1
_U32 = 2**32 - 1
_MAX_DATA_BYTES = 1_048_576
_MAX_UJ = 1e12
_MAX_REASON_CHARS = 200
# Between two looks at whether a run is done; a device that answers the execute when it is done needs none.
_PAUSE_S, _MOST_PAUSE_S = 0.02, 0.5
_RUN, _INPUT, _OUTPUT, _TIME, _ENERGY, _RESULT, _REASON, _SEQUENCE, _SAMPLE, _VERSION = 5, 4, 6, 7, 8, 9, 10, 11, 12, 2
_SAMPLES, _SAMPLE_SEQUENCE, _SAMPLE_ENERGY, _READ_SENSOR = 17, 18, 19, 20


@dataclass(slots=True)
class Runs:
    """Runs models on one device. `_sequences`: the number of the last run seen in each slot."""

    operations: Operations
    _sequences: dict[int, int] = field(default_factory=dict)

    def saw(self, records: Iterable[Record]) -> None:
        """Learn how many runs the slots have seen, from what was read anyway."""
        for each in records:
            if each.path.object == MODEL and each.path.resource == _SEQUENCE and isinstance(each.value, int):
                self._sequences[each.path.instance or 0] = each.value

    def forget(self) -> None:
        """The device may have started anew, and counts from 0 then."""
        self._sequences.clear()

    async def run(self, slot: int, *, version: int, content: bytes | None, sensor: int, until_s: float) -> RunResult:
        """Run the model of a slot. Raises: DeviceRefused, DeviceTimeout, DeviceUnreachable."""
        at, clock = Path(MODEL, slot), self.operations.line.clock
        began_s = clock()
        before = await self._before(slot, until_s)
        if content is not None:
            await self.operations.write_value(
                at / _INPUT, content, timeout_s=until_s - clock(), urgency=Urgency.INFERENCE
            )
        argument = "" if content is not None else f"0='{sensor}'"
        await self.operations.execute(at / _RUN, argument, timeout_s=until_s - clock(), urgency=Urgency.INFERENCE)
        records = await self._after(slot, before, until_s)
        return _result(self.operations, Readings(records), at, version=version, elapsed_s=clock() - began_s)

    async def sample(self, sensor: int, *, until_s: float) -> SampleResult:
        """Have a sensor read now, and fetch what it gave. Raises: as `run`."""
        at, clock = Path(RUNTIME, 0), self.operations.line.clock
        began_s = clock()
        await self.operations.execute(
            at / _READ_SENSOR, f"0='{sensor}'", timeout_s=until_s - clock(), urgency=Urgency.INFERENCE
        )
        records: list[Record] = []
        for resource in (_SAMPLES, _SAMPLE_SEQUENCE, _SAMPLE_ENERGY):
            records += await self.operations.read(at / resource, timeout_s=until_s - clock(), urgency=Urgency.INFERENCE)
        readings = Readings(records)
        try:
            content = readings.content(at / _SAMPLES / sensor, _MAX_DATA_BYTES)
            number = readings.whole_or(at / _SAMPLE_SEQUENCE, 0, _U32, 0)
            energy_uj = readings.number_or(at / _SAMPLE_ENERGY, 0.0, _MAX_UJ, 0.0)
        except BadRequest as error:
            raise DeviceRefused(f"device {self.operations.line.device}: {error}") from error
        return SampleResult(content, number, energy_uj, clock() - began_s)

    async def _before(self, slot: int, until_s: float) -> int | None:
        if slot not in self._sequences:
            path = Path(MODEL, slot) / _SEQUENCE
            self.saw(await self.operations.read(path, timeout_s=self._left_s(until_s), urgency=Urgency.INFERENCE))
        return self._sequences.get(slot)

    async def _after(self, slot: int, before: int | None, until_s: float) -> tuple[Record, ...]:
        """Read the slot until it tells of another run than the last one. Raises: DeviceTimeout."""
        pause_s, clock = _PAUSE_S, self.operations.line.clock
        while clock() < until_s:
            records = await self.operations.read(
                Path(MODEL, slot), timeout_s=self._left_s(until_s), urgency=Urgency.INFERENCE
            )
            self.saw(records)
            if self._sequences.get(slot) != before:
                return records
            await asyncio.sleep(min(pause_s, max(0.0, self._left_s(until_s))))
            pause_s = min(_MOST_PAUSE_S, 2 * pause_s)
        raise DeviceTimeout(f"device {self.operations.line.device}: it took the run, and does not tell its outcome")

    def _left_s(self, until_s: float) -> float:
        return until_s - self.operations.line.clock()


def _result(operations: Operations, readings: Readings, at: Path, *, version: int, elapsed_s: float) -> RunResult:
    try:
        result = readings.whole_or(at / _RESULT, 0, 2, 0)
        if result:
            reason = readings.text_or(at / _REASON, most=_MAX_REASON_CHARS) or "no reason given"
            how = "refused" if result == 1 else "failed"
            raise DeviceRefused(f"device {operations.line.device} {how}: {reason}")
        held = readings.whole_or(at / _VERSION, 0, _U31, 0)
        if held != version:
            raise DeviceRefused(
                f"device {operations.line.device}: slot {at.instance} holds version {held}, not {version}"
            )
        return RunResult(
            readings.content(at / _OUTPUT, _MAX_DATA_BYTES),
            readings.whole_or(at / _TIME, 0, _U31, 0) / 1e6,
            readings.number_or(at / _ENERGY, 0.0, _MAX_UJ, 0.0),
            readings.whole_or(at / _SAMPLE, 0, _U32, 0),
            elapsed_s,
        )
    except BadRequest as error:
        raise DeviceRefused(f"device {operations.line.device}: {error}") from error
