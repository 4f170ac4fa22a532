"""What is known of the runs of one slot, and which result belongs to which run. No I/O.

A result is told by its counter (11), and by the tag of its run (19) where the device has that: a result that is late, told twice
or of a run that nobody asked for is never taken for another. Source: docs/lwm2m.md, "Running a model".
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gatewayd.core.device import RunResult
from gatewayd.core.errors import BadRequest, DeviceRefused
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.links.lwm2m.freshness import runs_after
from gatewayd.wire.lwm2m.objects import MODEL
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.values import Record

RUN, INPUT, OUTPUT, TIME, ENERGY, RESULT, REASON, SEQUENCE, SAMPLE, VERSION, TAG, SENSOR = (
    5, 4, 6, 7, 8, 9, 10, 11, 12, 2, 19, 20,
)  # fmt: skip
MAX_DATA_BYTES = 1_048_576
MAX_UJ = 1e12
U32 = 2**32 - 1
_U31 = 2**31 - 1
_MAX_REASON_CHARS = 200
_MAX_SENSOR = 7  # a device has at most eight sensors


@record
class Outcome:
    """What a slot shows of its last run. `tag` None: the device has no tags; 0: nobody asked for that run."""

    readings: Readings
    sequence: int
    tag: int | None
    sample: int | None

    @property
    def at(self) -> Path:
        """The slot's place."""
        return Path(MODEL, self.readings.instances(MODEL)[0])


@dataclass(slots=True)
class Waiting:
    """A run under way. `before`: the counter when it was asked for; `skips`: earlier runs whose end may come first.

    `has_begun`: it was asked for, and not refused.
    """

    before: int | None
    tag: int
    by_sensor: bool
    skips: int = 0
    has_begun: bool = False
    outcome: Outcome | None = None
    stirred: asyncio.Event = field(default_factory=asyncio.Event)

    def is_ended_by(self, outcome: Outcome) -> bool:
        """Return whether that is this run's result."""
        if self.tag and outcome.tag is not None:
            return outcome.tag == self.tag
        if self.before is None or runs_after(self.before, outcome.sequence) <= self.skips:
            return False
        return self.by_sensor or not outcome.sample

    def is_over(self) -> bool:
        """Return whether its result is here."""
        return self.outcome is not None

    async def stirs(self, within_s: float) -> bool:
        """Return whether something was told of the slot within that time, as soon as it was."""
        try:
            async with asyncio.timeout(within_s):
                await self.stirred.wait()
        except TimeoutError:
            return False
        self.stirred.clear()
        return True


@dataclass(slots=True)
class SlotRuns:
    """The runs of one slot. `owes`: of the last run asked for nobody saw the end."""

    sequence: int | None = None
    version: int = 0
    has_tags: bool = False
    owes: bool = False
    waiting: Waiting | None = None

    def begins(self, tag: int, *, by_sensor: bool) -> Waiting:
        """Take note that a run is about to be asked for."""
        skips = 1 if self.owes and not self.has_tags else 0
        self.waiting = Waiting(self.sequence, tag if self.has_tags else 0, by_sensor, skips)
        return self.waiting

    def ends(self, waiting: Waiting) -> None:
        """Take note that nobody waits for the run any more. Without tags one unseen end is waited for, a second is not."""
        self.owes = waiting.has_begun and waiting.outcome is None and not waiting.skips
        self.waiting = None

    def saw(self, outcome: Outcome, *, is_news: bool) -> bool:
        """Take what the slot shows; return whether it is a result of the device's own accord, new to us."""
        waiting = self.waiting
        ahead = 1 if self.sequence is None else runs_after(self.sequence, outcome.sequence)
        is_own = is_news and self.sequence is not None and ahead > 0 and self._is_own(outcome)
        self.has_tags = self.has_tags or outcome.tag is not None
        is_awaited = waiting is not None and waiting.outcome is None and waiting.is_ended_by(outcome)
        if is_awaited and waiting is not None:
            waiting.outcome = outcome
            waiting.stirred.set()
        if is_awaited or ahead > 0 or not is_news:  # a read is the truth: a device that restarted counts from 0
            if ahead < 0 and waiting is not None:
                waiting.before = outcome.sequence
            self.sequence = outcome.sequence
        return is_own and not is_awaited

    def _is_own(self, outcome: Outcome) -> bool:
        """Return whether nobody asked for that run; without tags that is sure only where nothing of ours is under way."""
        return outcome.tag == 0 if outcome.tag is not None else self.waiting is None and not self.owes


def outcome_of(records: Sequence[Record]) -> Outcome | None:
    """Return what records of one slot show of its last run; None where they do not tell which one it was."""
    readings = Readings(records)
    at = Path(MODEL, readings.instances(MODEL)[0])
    sequence = _number(readings, at / SEQUENCE)
    if sequence is None:
        return None
    return Outcome(readings, sequence, _number(readings, at / TAG), _number(readings, at / SAMPLE))


def result_of(device: DeviceId, outcome: Outcome, *, version: int, held: int, elapsed_s: float) -> RunResult:
    """Return the result of a run of `version`; `held` is the slot's version where the outcome does not name it.

    Raises: DeviceRefused when the run failed, was another version's, or cannot be read.
    """
    readings, at = outcome.readings, outcome.at
    try:
        result = readings.whole_or(at / RESULT, 0, 2, 0)
        if result:
            reason = readings.text_or(at / REASON, most=_MAX_REASON_CHARS) or "no reason given"
            raise DeviceRefused(f"device {device} {'refused' if result == 1 else 'failed'}: {reason}")
        ran = readings.whole_or(at / VERSION, 0, _U31, held)
        if ran != version:
            raise DeviceRefused(f"device {device}: slot {at.instance} holds version {ran}, not {version}")
        return RunResult(
            readings.content(at / OUTPUT, MAX_DATA_BYTES),
            readings.whole_or(at / TIME, 0, _U31, 0) / 1e6,
            readings.number_or(at / ENERGY, 0.0, MAX_UJ, 0.0),
            readings.whole_or(at / SAMPLE, 0, U32, 0),
            elapsed_s,
        )
    except BadRequest as error:
        raise DeviceRefused(f"device {device}: {error}") from error


def sensor_of(outcome: Outcome) -> int:
    """Return the sensor that the run used; a device that does not tell has one. Raises: BadRequest."""
    return outcome.readings.whole_or(outcome.at / SENSOR, 0, _MAX_SENSOR, 0)


def _number(readings: Readings, path: Path) -> int | None:
    value = readings.value(path)
    is_one = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= U32
    return value if is_one and isinstance(value, int) else None
