"""The push state machine: one pure transition table from what a device reports to what the gateway does next.

Vocabulary after PSA Firmware Update. Every live state has a deadline; silence is failure; an event that has no place in a
state is ignored when it repeats the past (a redelivered report) and fails the push when it contradicts it.
"""

from dataclasses import dataclass
from enum import Enum

from gatewayd.core.names import DeviceId, Digest, ModelName, PushId


class PushState(Enum):
    """Where a push stands. The last five are ends."""

    OFFERED = "offered"
    TRANSFERRING = "transferring"
    WRITTEN = "written"
    VERIFIED = "verified"
    SELF_TESTED = "self-tested"
    TRIAL = "trial"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether nothing more will happen."""
        return self in _ENDS


_ENDS = frozenset(
    {PushState.ACCEPTED, PushState.REJECTED, PushState.ROLLED_BACK, PushState.FAILED, PushState.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each state may last, in seconds; `stall_s` is re-armed by every chunk the device asks for.

    `absence_s` is how long a device that went away in mid-push may stay away before the push has failed.
    """

    offer_s: float = 10.0
    stall_s: float = 15.0
    verify_s: float = 10.0
    self_test_s: float = 30.0
    trial_s: float = 30.0
    absence_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Push:
    """Getting one version onto one device. `offset` is the progress in bytes; `deadline_s` on the monotonic clock.

    `reason` says why it ended (or what it waits for); `present` whether the device is connected now.
    """

    id: PushId
    device: DeviceId
    model: ModelName
    version: int
    variant: str
    digest: Digest
    size_bytes: int
    state: PushState
    deadline_s: float
    offset: int = 0
    reason: str = ""
    present: bool = True
    resumed: int = 0
