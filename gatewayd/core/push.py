"""What the push state machine speaks: a push and its states, what can happen to it, and what the gateway then does.

Values only; what leads to what is the table in `gatewayd.core.update`.
"""

from enum import Enum

from gatewayd.core.device import PushReport, Slot
from gatewayd.core.module import Held, Manifest
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.record import record

_NO_DIGEST = Digest("")


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


@record
class Limits:
    """How long each state may last, in seconds; `stall_s` is re-armed by every chunk that brings the transfer forward.

    `absence_s` is how long a device that went away in mid-push may stay away before the push has failed. `resumes` bounds
    how often one push may be taken up again (protects the link from a device that restarts for ever), `chunk_bytes` what
    one request of a device may make the gateway send (protects the node's memory and the air). `transfer_s` is how long the
    transfer may last from its start, or from where it was taken up again, however steadily it goes on (protects the number of
    concurrent pushes from a device that asks for a byte at a time).
    """

    offer_s: float = 10.0
    stall_s: float = 15.0
    verify_s: float = 10.0
    self_test_s: float = 30.0
    trial_s: float = 30.0
    absence_s: float = 60.0
    resumes: int = 20
    chunk_bytes: int = 16_384
    transfer_s: float = 600.0


@record
class Push:
    """Getting one version onto one device.

    `size_bytes` go over the link, from the bytes named `stream` (the artifact, or what it was encoded to); `offset` of them are
    there; `deadline_s` and `transfer_until_s` (past which it is too slow) are on the monotonic clock. `signed` is the manifest
    as offered.

    `reason` says why it ended (or what it waits for); `present` whether the device is connected now; `resumed` how often it
    was taken up again; `confirmed` that the trial passed and the device was told to keep the model (it need not be stored: after
    a restart the device says that it has, or the trial runs again). `started_at` and `ended_at` are in seconds since 1970;
    `replaces` is the newer version that an operator allowed it to take over from (0: none), `instead_of` another model that the
    device lets go when it accepts this one. `joined`, which is not stored, is True in the answer to a wish that this push
    stood for already; the number 0 is that of no push: the model came onto the device in some other way.
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
    confirmed: bool = False
    stream: Digest = _NO_DIGEST
    signed: bytes = b""
    who: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    replaces: int = 0
    transfer_until_s: float = float("inf")
    instead_of: Held | None = None
    joined: bool = False


@record
class Offer:
    """What a device is told about a model before a byte of it is sent: `signed` is the manifest as it travels."""

    push: PushId
    manifest: Manifest
    signed: bytes


@record
class DeviceGone:
    """The device lost its connection."""

    reason: str


@record
class DeviceBack:
    """The device said what it holds: after a connect, or because something in it changed."""

    slots: tuple[Slot, ...]


@record
class TimePassed:
    """The clock moved on; only a deadline that is over matters."""


@record
class Cancelled:
    """Somebody wants the push to end."""

    reason: str


@record
class TrialPassed:
    """The new model answered the gateway's own inference."""


@record
class TrialFailed:
    """It did not, or wrongly."""

    reason: str


Event = PushReport | DeviceGone | DeviceBack | TimePassed | Cancelled | TrialPassed | TrialFailed


@record
class SendOffer:
    """Offer the model; to a device that knows the push already this asks where it stands."""


@record
class SendChunk:
    """Send these bytes of the artifact; always within it."""

    offset: int
    length: int


@record
class SendActivate:
    """Let the tested model take over, on trial."""


@record
class RunTrial:
    """Run one inference on the new model and tell its outcome as `TrialPassed` or `TrialFailed`."""


@record
class SendAccept:
    """End the trial: the new model stays."""


@record
class SendCancel:
    """Drop the push; the device keeps (or goes back to) its old model."""

    reason: str


Command = SendOffer | SendChunk | SendActivate | RunTrial | SendAccept | SendCancel


@record
class Step:
    """What an event led to: the push as it stands now, and what to do, in order. Journal the push before doing it."""

    push: Push
    commands: tuple[Command, ...] = ()
