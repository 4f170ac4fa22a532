"""How large an arena a variant needs on a device: measured or predicted here, corrected by what devices of that kind did.

A device that runs an artifact, or refuses it for its arena, knows better than any prediction. Its word counts for that artifact
on every device of the same kind; a refusal also raises what is believed of all other artifacts there, an acceptance lowers
nothing but itself, so that what is accepted stays safe.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from fractions import Fraction

from gatewayd.core.device import Capabilities
from gatewayd.core.model import Variant
from gatewayd.core.names import Digest
from gatewayd.core.record import record

MAX_LESSONS = 4_096
"""Bounds memory; past it the oldest lesson is forgotten."""
MAX_FACTOR = Fraction(2)
"""Protects from a device that refuses everything: it would teach that nothing fits anywhere."""


@record
class RuntimeKind:
    """Devices whose arenas are laid out alike."""

    runtime: str
    version: str
    cpu: str

    @classmethod
    def of(cls, capabilities: Capabilities) -> "RuntimeKind":
        """Return the kind of a device."""
        return cls(capabilities.runtime, capabilities.runtime_version, capabilities.cpu)


@record
class Lesson:
    """What was seen of one artifact: the smallest arena it ran in, the largest it was refused in (None: neither yet)."""

    runs_in: int | None = None
    refused_in: int | None = None


@record
class Need:
    """Bytes (None: not known) and how they are known."""

    arena_bytes: int | None
    source: str


@record
class Beliefs:
    """Everything learned. Treat the mappings as read-only."""

    lessons: Mapping[tuple[RuntimeKind, Digest], Lesson] = field(default_factory=dict)
    factors: Mapping[RuntimeKind, Fraction] = field(default_factory=dict)

    def ran(self, kind: RuntimeKind, digest: Digest, *, arena_bytes: int) -> "Beliefs":
        """Learn that the artifact runs there in this arena."""
        before = self.lessons.get((kind, digest), Lesson())
        if before.runs_in is not None and before.runs_in <= arena_bytes:
            return self
        return self._with(kind, digest, replace(before, runs_in=arena_bytes))

    def refused(self, kind: RuntimeKind, variant: Variant, *, arena_bytes: int) -> "Beliefs":
        """Learn that this arena was too small for the artifact there."""
        before = self.lessons.get((kind, variant.digest), Lesson())
        if before.refused_in is not None and before.refused_in >= arena_bytes:
            return self
        taught = self._with(kind, variant.digest, replace(before, refused_in=arena_bytes))
        expected = base_need(variant, kind).arena_bytes
        if expected is None or expected > arena_bytes:
            return taught
        factor = min(
            MAX_FACTOR, max(self.factors.get(kind, Fraction(1)), Fraction(arena_bytes + 16, max(expected, 16)))
        )
        return replace(taught, factors={**self.factors, kind: factor})

    def need(self, variant: Variant, capabilities: Capabilities) -> Need:
        """Return the arena that the variant needs on such a device."""
        kind = RuntimeKind.of(capabilities)
        lesson = self.lessons.get((kind, variant.digest), Lesson())
        base = base_need(variant, kind)
        if lesson.runs_in is not None and (base.arena_bytes is None or lesson.runs_in < base.arena_bytes):
            return Need(lesson.runs_in, "seen running on a device of its kind")
        factor = self.factors.get(kind, Fraction(1))
        if base.arena_bytes is not None and factor > 1:
            base = Need(
                -(-int(base.arena_bytes * factor) // 16) * 16, f"{base.source}, corrected by devices of its kind"
            )
        floor = 0 if lesson.refused_in is None else lesson.refused_in + 16
        if floor > (base.arena_bytes or 0):
            return Need(floor, f"refused with {lesson.refused_in:,} bytes on a device of its kind")
        return base

    def _with(self, kind: RuntimeKind, digest: Digest, lesson: Lesson) -> "Beliefs":
        kept = {key: known for key, known in self.lessons.items() if key != (kind, digest)}
        if len(kept) >= MAX_LESSONS:
            del kept[next(iter(kept))]
        return replace(self, lessons={**kept, (kind, digest): lesson})


NOTHING_LEARNED = Beliefs()


def base_need(variant: Variant, kind: RuntimeKind) -> Need:
    """Return what admission measured, else predicted; both on a 64-bit build, which takes more than a 32-bit one.

    Arm's kernels take scratch memory that the measured ones do not: the larger of both counts where a device has them.
    """
    forecast = variant.structure.forecast
    predicted = forecast.host_bytes if forecast else None
    found = variant.arena_bytes if variant.arena_bytes is not None else predicted
    source = "measured" if variant.arena_bytes is not None else "predicted"
    if found is None:
        return Need(
            None, "neither measured nor predicted" + (f": {forecast.reason}" if forecast and forecast.reason else "")
        )
    is_optimized = "cmsis" in f"{kind.runtime} {kind.version}".lower()
    if (
        is_optimized
        and forecast is not None
        and forecast.cmsis_nn_bytes is not None
        and forecast.cmsis_nn_bytes > found
    ):
        return Need(forecast.cmsis_nn_bytes, "predicted for CMSIS-NN")
    return Need(found, source)
