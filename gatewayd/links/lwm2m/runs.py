"""Inference through the ML Model object, and samples through ML Runtime: several questions that belong together.

A slot that runs a model is observed, so that a result comes as a notification, one message after the run; where the device does
not observe, or its notification is lost, the slot is read. What a device infers by itself comes the same way, or as a Send.
Source: docs/lwm2m.md, "Running a model"; docs/lwm2m/26241.xml and 26242.xml.
"""

import itertools
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial

from gatewayd.core.device import RunResult, SampleResult
from gatewayd.core.errors import BadRequest, DeviceRefused, DeviceTimeout
from gatewayd.links.lwm2m import slot_runs as of
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.slot_runs import Outcome, SlotRuns, Waiting, outcome_of, result_of, sensor_of
from gatewayd.links.lwm2m.turns import Urgency
from gatewayd.links.lwm2m.watches import Watch
from gatewayd.wire.lwm2m.objects import MODEL, RUNTIME
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.values import Record

MAX_SLOTS = 8
"""Protects memory from a device that tells of slots without end; a report has no more."""
_TAGS = 2**31 - 1
_OBSERVE_S = 10.0
# Between two looks at whether a run is done; a device that answers the execute when it is done needs none.
_PAUSE_S, _MOST_PAUSE_S, _LEAST_PATIENCE_S = 0.02, 0.5, 0.1
_MOST_PATIENCE_S = 5.0  # where it is told, a look is only for what was lost
_SAMPLES, _SAMPLE_SEQUENCE, _SAMPLE_ENERGY, _READ_SENSOR = 17, 18, 19, 20

Own = Callable[[int, int, int, RunResult], None]
"""Takes what a device inferred by itself: slot, version, sensor, result."""


@dataclass(slots=True)
class Runs:
    """Runs models on one device. `on_own` and `on_change` (a slot changed, and has to be read) must return at once."""

    operations: Operations
    on_own: Own = lambda *_: None
    on_change: Callable[[int], None] = lambda _: None
    _slots: dict[int, SlotRuns] = field(default_factory=dict)
    _watches: dict[int, Watch] = field(default_factory=dict)
    _tags: "itertools.count[int]" = field(default_factory=lambda: itertools.count(secrets.randbelow(_TAGS)))

    def saw(self, records: Iterable[Record], *, is_news: bool = False) -> None:
        """Learn from what was read (or, `is_news`, told) of any slots."""
        by_slot: dict[int, list[Record]] = {}
        for each in records:
            if each.path.object == MODEL and each.path.instance is not None:
                by_slot.setdefault(each.path.instance, []).append(each)
        for slot, found in by_slot.items():
            self._saw(slot, found, is_news=is_news)

    def forget(self) -> None:
        """The device may have started anew: it observes nothing then, and counts from 0."""
        self.unwatch()
        for slot in self._slots.values():
            slot.sequence = None

    def unwatch(self) -> None:
        """End every observation: nobody knows whether the device still has them."""
        for each in self._watches.values():
            each.end()
        self._watches.clear()

    @property
    def has_watches(self) -> bool:
        """Whether anything is observed, or was to be."""
        return bool(self._watches)

    def is_unwatched(self, slots: Collection[int]) -> bool:
        """Return whether one of these running slots should be observed and is not, or another is."""
        is_missing = any(slot not in self._watches or self._watches[slot].is_wanting for slot in slots)
        return is_missing or any(slot not in slots for slot in self._watches)

    async def watch(self, slots: Iterable[int]) -> None:
        """Have these slots observed, and no others: a slot that a push fills would tell of every block."""
        running = tuple(slots)
        for gone in [each for each in self._watches if each not in running]:
            self._watches.pop(gone).end()
        for slot in running[:MAX_SLOTS]:
            watch = self._watch(slot)
            if not self.operations.line.listens:
                return
            await watch.start(timeout_s=_OBSERVE_S)
            if watch.is_wanting:
                return  # no answer: the next one is not asked now

    async def look(self, slot: int) -> None:
        """Read a slot that told that it changed, but not to what. Raises: as `Operations.read`."""
        records = await self.operations.read(Path(MODEL, slot), timeout_s=_OBSERVE_S)
        self.saw(records, is_news=True)

    async def run(self, slot: int, *, version: int, content: bytes | None, sensor: int, until_s: float) -> RunResult:
        """Run the model of a slot. Raises: DeviceRefused, DeviceTimeout, DeviceUnreachable."""
        at, clock = Path(MODEL, slot), self.operations.line.clock
        began_s, runs = clock(), self._runs(slot)
        await self._be_ready(slot, runs, until_s)
        waiting = runs.begins(next(self._tags) % _TAGS + 1, by_sensor=content is None)
        try:
            if content is not None:
                await self.operations.write_value(
                    at / of.INPUT, content, timeout_s=self._left_s(until_s), urgency=Urgency.INFERENCE
                )
            waiting.has_begun = True  # who gives up now does not know whether it runs
            await self.operations.execute(
                at / of.RUN,
                _argument(None if content is not None else sensor, waiting.tag),
                timeout_s=self._left_s(until_s),
                urgency=Urgency.INFERENCE,
            )
            outcome = await self._ended(slot, waiting, until_s)
        except DeviceRefused:
            waiting.has_begun = False
            raise
        finally:
            runs.ends(waiting)
        device, held = self.operations.line.device, runs.version
        return result_of(device, outcome, version=version, held=held, elapsed_s=clock() - began_s)

    async def sample(self, sensor: int, *, until_s: float) -> SampleResult:
        """Have a sensor read now, and fetch what it gave. Raises: as `run`."""
        at, clock = Path(RUNTIME, 0), self.operations.line.clock
        began_s = clock()
        await self.operations.execute(
            at / _READ_SENSOR, f"0='{sensor}'", timeout_s=until_s - clock(), urgency=Urgency.INFERENCE
        )
        wanted = [at / each for each in (_SAMPLES, _SAMPLE_SEQUENCE, _SAMPLE_ENERGY)]
        records = await self.operations.read_several(wanted, timeout_s=until_s - clock(), urgency=Urgency.INFERENCE)
        readings = Readings(records)
        try:
            content = readings.content(at / _SAMPLES / sensor, of.MAX_DATA_BYTES)
            number = readings.whole_or(at / _SAMPLE_SEQUENCE, 0, of.U32, 0)
            energy_uj = readings.number_or(at / _SAMPLE_ENERGY, 0.0, of.MAX_UJ, 0.0)
        except BadRequest as error:
            raise DeviceRefused(f"device {self.operations.line.device}: {error}") from error
        return SampleResult(content, number, energy_uj, clock() - began_s)

    def _saw(self, slot: int, records: list[Record], *, is_news: bool) -> None:
        outcome = outcome_of(records)
        if outcome is None or (slot not in self._slots and len(self._slots) >= MAX_SLOTS):
            return
        runs = self._runs(slot)
        version = outcome.readings.value(outcome.at / of.VERSION)
        if isinstance(version, int) and not is_news:
            runs.version = version
        if runs.saw(outcome, is_news=is_news):
            self._tell_own(slot, runs.version, outcome)

    def _tell_own(self, slot: int, held: int, outcome: Outcome) -> None:
        """Tell what the device inferred by itself; a run of its own that failed is nobody's business."""
        said = outcome.readings.value(outcome.at / of.VERSION)
        version = said if isinstance(said, int) else held
        try:
            sensor = sensor_of(outcome)
            result = result_of(self.operations.line.device, outcome, version=version, held=held, elapsed_s=0.0)
        except (BadRequest, DeviceRefused):
            return
        self.on_own(slot, version, sensor, result)

    def _told(self, slot: int, records: tuple[Record, ...], *, is_news: bool) -> None:
        if is_news:
            self.operations.line.stirs()
        if records:
            self.saw(records, is_news=is_news)
            return
        waiting = self._runs(slot).waiting
        if waiting is not None:
            waiting.stirred.set()
        elif is_news:
            self.on_change(slot)

    async def _be_ready(self, slot: int, runs: SlotRuns, until_s: float) -> None:
        """Know the number of the last run, and be told of the next one where the device does that."""
        await self._watch(slot).start(timeout_s=min(_OBSERVE_S, self._left_s(until_s)))
        if runs.sequence is None:
            path = Path(MODEL, slot) / of.SEQUENCE
            self.saw(await self.operations.read(path, timeout_s=self._left_s(until_s), urgency=Urgency.INFERENCE))

    async def _ended(self, slot: int, waiting: Waiting, until_s: float) -> Outcome:
        """Wait until the run's result was told, and read the slot in case it is not. Raises: DeviceTimeout."""
        watch, is_told, news = self._watch(slot), self._watch(slot).is_prompt, self._watch(slot).news
        pause_s, most_s = (self._patience_s(), _MOST_PATIENCE_S) if is_told else (0.0, _MOST_PAUSE_S)
        while not (outcome := waiting.outcome) and self._left_s(until_s) > 0:
            if pause_s:
                await waiting.stirs(min(pause_s, self._left_s(until_s)))
            if not waiting.is_over():
                await self._read(slot, until_s)
                if (
                    waiting.is_over() and watch.is_live and watch.news == news
                ):  # nothing was told while it was read, either
                    watch.missed()
            pause_s = min(most_s, max(_PAUSE_S, 2 * pause_s))
        if outcome is None:
            raise DeviceTimeout(f"device {self.operations.line.device}: it took the run, and does not tell its outcome")
        return outcome

    async def _read(self, slot: int, until_s: float) -> None:
        path, left_s = Path(MODEL, slot), self._left_s(until_s)
        self.saw(await self.operations.read(path, timeout_s=left_s, urgency=Urgency.INFERENCE))

    def _patience_s(self) -> float:
        """Return how long a notification may take that follows the answer to the execute."""
        return max(_LEAST_PATIENCE_S, 2 * self.operations.line.trips.timing().ack_timeout_s)

    def _runs(self, slot: int) -> SlotRuns:
        return self._slots.setdefault(slot, SlotRuns())

    def _watch(self, slot: int) -> Watch:
        found = self._watches.get(slot)
        if found is None:
            found = self._watches[slot] = Watch(self.operations, Path(MODEL, slot), partial(self._told, slot))
        return found

    def _left_s(self, until_s: float) -> float:
        return max(0.0, until_s - self.operations.line.clock())


def _argument(sensor: int | None, tag: int) -> str:
    """Return the arguments of a run: 0 is the sensor, 1 the tag (0: the device has none)."""
    parts = ([] if sensor is None else [f"0='{sensor}'"]) + ([f"1='{tag}'"] if tag else [])
    return ",".join(parts)
