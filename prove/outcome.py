"""Where a run of the proof starts, and what it came to."""

from dataclasses import dataclass, field

from prove.cuts import Counts
from prove.device import Geometry
from prove.models import Artifact


@dataclass(frozen=True, slots=True)
class Base:
    """Where every run starts: a device that runs the old version."""

    geometry: Geometry
    artifacts: dict[int, Artifact]
    image: bytes


@dataclass(slots=True)
class Outcome:
    """What a run came to. `faults` is empty when everything that must hold held.

    `is_corrected`: the gateway had called the push a failure for want of the device's word, and took that back when it came.
    """

    counts: Counts
    fired: int = 0
    version: int = 0
    resent_chunks: int = 0
    is_corrected: bool = False
    elapsed_s: float = 0.0
    faults: list[str] = field(default_factory=list)
