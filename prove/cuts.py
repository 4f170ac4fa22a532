"""What can go wrong in the middle of a push, as values."""

from dataclasses import dataclass
from enum import Enum

from gatewayd.sim.flash import Tear


class Kind(Enum):
    """What happens, and what `Cut.index` counts: flash operations of the device, messages, or commits of the gateway."""

    FLASH = "the device's power goes in the middle of a flash operation"
    POWER = "the device's power goes before it reads a message, or after it sent one"
    ROT_0 = "the same, and copy 0 of the journal rots"
    ROT_1 = "the same, and copy 1 of the journal rots"
    LINK = "the connection breaks: the message and all in flight are lost"
    LOSS = "one message is lost, nobody notices"
    TWICE = "one message comes twice"
    CORRUPT = "one bit of an offer or of a chunk flips on the way"
    GATEWAY = "the gateway is killed before it reads a message, or after it sent one"
    BEFORE_COMMIT = "the gateway is killed before its journal's commit is durable"
    AFTER_COMMIT = "the gateway is killed when the commit is durable and nothing was said yet"


RESUMABLE = frozenset({Kind.FLASH, Kind.POWER, Kind.ROT_0, Kind.ROT_1, Kind.LINK, Kind.TWICE, Kind.GATEWAY})
"""A single one of these must not even make a push fail."""
FLASH_KINDS = frozenset({Kind.FLASH})
COMMIT_KINDS = frozenset({Kind.BEFORE_COMMIT, Kind.AFTER_COMMIT})
MESSAGE_KINDS = frozenset(Kind) - FLASH_KINDS - COMMIT_KINDS


@dataclass(frozen=True, slots=True)
class Cut:
    """One misfortune: at the `index`-th (from 0) of what its kind counts, since the start or since the cut before."""

    kind: Kind
    index: int
    tear: Tear = Tear.HALF

    def __str__(self) -> str:
        torn = f" ({self.tear.value})" if self.kind is Kind.FLASH else ""
        return f"{self.kind.name.lower()}@{self.index}{torn}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there was to cut in a run."""

    flash: int
    messages: int
    commits: int

    def of(self, kind: Kind) -> int:
        """Return what `Cut.index` of that kind stays below."""
        if kind in FLASH_KINDS:
            return self.flash
        return self.commits if kind in COMMIT_KINDS else self.messages


def every_cut(counts: Counts) -> list[Cut]:
    """Return each single cut there is; a flash operation torn in each way."""
    torn = [Cut(Kind.FLASH, index, tear) for index in range(counts.flash) for tear in Tear]
    others = [Cut(kind, index) for kind in Kind if kind is not Kind.FLASH for index in range(counts.of(kind))]
    return torn + others
