"""What the tables of `slots` speak: a push on its way into one instance, what is heard of it, what is to be done next.

Values only. The update engine speaks of phases (`core.device.PushPhase`), a device of resources; these are the words between.
"""

from dataclasses import field, replace
from enum import Enum
from math import inf

from gatewayd.core.device import PushPhase
from gatewayd.core.names import Digest, ModelName, PushId
from gatewayd.core.record import record
from gatewayd.links.lwm2m.patience import Patience
from gatewayd.wire.lwm2m.states import Firmware, ModelSlot, Software

Code = tuple[int, int]
"""A CoAP response code: class and detail, (4, 5) for 4.05."""


class Way(Enum):
    """How a package gets to the device: written block by block, or fetched by the device from an address it is given."""

    PUSH = "push"
    PULL = "pull"


class Stage(Enum):
    """Where the push stands in the table. OFFERED waits to see the instance (or for its answer); ENDED is the end."""

    NEW = "new"
    CLEARING = "clearing"
    OFFERED = "offered"
    TRANSFERRING = "transferring"
    WRITTEN = "written"
    INSTALLING = "installing"
    INSTALLED = "installed"
    ACTIVATING = "activating"
    TRIAL = "trial"
    ENDED = "ended"


@record
class Goal:
    """What is to be in the instance at the end.

    `ways` in the order in which they are tried. `tells_version`: the client reads name and version out of the package, so that
    none told means another package; where it is not set, only another name or version does. `old`: the instance that runs what
    this push replaces (None: none); it runs until the new one is accepted. `is_held`: the gateway remembers that the instance was
    given this very package (its digest is not to be read from /9). `may_clear`: what is in the instance may be taken away.
    """

    push: PushId
    model: ModelName
    version: int
    digest: Digest
    instance: int
    ways: tuple[Way, ...] = (Way.PUSH, Way.PULL)
    tells_version: bool = True
    old: int | None = None
    is_held: bool = False
    may_clear: bool = True


# What is heard.


@record
class Seen:
    """What the instance holds now: read or notified, always the whole of it (states are skipped, results come late)."""

    values: Software | Firmware | ModelSlot


@record
class Answered:
    """The device answered an action. `code` None: no answer came; nothing is known of what it did."""

    action: "Action"
    code: Code | None


@record
class TransferEnded:
    """The package's last block was answered (2.04) or fetched, or the transfer broke: `code` of the refusal, None for silence."""

    code: Code | None


@record
class Progressed:
    """The transfer came forward."""


@record
class BegunAnew:
    """The device fetches from the first byte again: it lost what it had."""


@record
class Offered:
    """The engine offers, or asks where the device stands."""


@record
class ActivateWanted:
    """The engine wants the trial to begin."""


@record
class AcceptWanted:
    """The engine wants the new model to stay."""


@record
class CancelWanted:
    """The engine wants the push to end, out of its trial too."""


@record
class TimePassed:
    """The clock moved on; only a deadline that is over matters."""


Heard = (
    Seen | Answered | TransferEnded | Progressed | BegunAnew | Offered
    | ActivateWanted | AcceptWanted | CancelWanted | TimePassed
)  # fmt: skip


# What is to be done.


@record
class WritePackage:
    """Write the package (Block1) from byte `offset`, after a pause. The first bytes are asked of the engine with WANT."""

    instance: int
    offset: int = 0
    after_s: float = 0.0


@record
class WriteUri:
    """Write the package's address; the device fetches (Block2), from byte `offset` if it keeps what it has."""

    instance: int
    offset: int = 0
    after_s: float = 0.0


@record
class AskAgain:
    """The transfer under way asks the engine again for the bytes it needs next."""


@record
class StopTransfer:
    """Send no more blocks, serve no more."""


@record
class Look:
    """Read the whole instance now, and tell it as Seen."""

    instance: int


@record
class Reset:
    """Write an empty package address: clients drop what they began to download."""

    instance: int


@record
class Uninstall:
    """Execute Uninstall. Only ever of an instance that was seen inactive."""

    instance: int


@record
class Install:
    """Execute Install (/9), Update (/5)."""

    instance: int


@record
class Activate:
    """Execute Activate."""

    instance: int


@record
class Deactivate:
    """Execute Deactivate."""

    instance: int


@record
class WriteOffer:
    """Write the push's id (/26242/i/13), then the signed manifest (/18)."""

    instance: int


@record
class Accept:
    """Execute Accept (/26242/i/16)."""

    instance: int


@record
class Cancel:
    """Execute Cancel (/26242/i/17)."""

    instance: int


Action = (
    WritePackage | WriteUri | AskAgain | StopTransfer | Look | Reset | Uninstall | Install | Activate | Deactivate
    | WriteOffer | Accept | Cancel
)  # fmt: skip


@record
class Said:
    """What the engine is told: becomes a `PushReport`. WANT is not among them: the transfer asks for its bytes itself."""

    phase: PushPhase
    reason: str = ""


@record
class Course:
    """One push on its way into one instance.

    `seen` is what the instance held when it was seen last, `baseline` the result it showed when the last action was asked for
    (a result that was there before says nothing of it), `peak` the furthest state since. `rung` counts the ways of emptying the
    instance that were tried, `way` and `restarts` those of the transfer. `refused` is the code with which the last action was
    refused; `said` what the engine was told last. `is_unheard`: no answer to that action came, so that it is asked for again
    when the device does not show that it obeyed; `is_repeated`: it was, and a refusal may be of the second only.
    """

    goal: Goal
    stage: Stage = Stage.NEW
    deadline_s: float = inf
    seen: Software | Firmware | ModelSlot | None = None
    baseline: int = 0
    peak: int = 0
    rung: int = 0
    way: int = 0
    restarts: int = 0
    refused: Code | None = None
    said: Said | None = None
    is_unheard: bool = False
    is_repeated: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.stage is Stage.ENDED


@record
class Turn:
    """What something heard led to: the course as it is now, what the engine is told, what to do, in order."""

    course: Course
    events: tuple[Said, ...] = ()
    actions: tuple[Action, ...] = ()


@record
class Now:
    """When it was heard, and how long things may take."""

    s: float
    patience: Patience = field(default_factory=Patience)


_WAITS: dict[Stage, str] = {
    Stage.CLEARING: "clear_s",
    Stage.OFFERED: "offer_s",
    Stage.TRANSFERRING: "transfer_s",
    Stage.WRITTEN: "deliver_s",
    Stage.INSTALLING: "install_s",
    Stage.INSTALLED: "engine_s",
    Stage.ACTIVATING: "activate_s",
    Stage.TRIAL: "engine_s",
}


def entered(course: Course, stage: Stage, now: Now, *, baseline: int | None = None) -> Course:
    """Return the course in a stage whose deadline starts now; NEW and ENDED have none."""
    wait_s: float = getattr(now.patience, _WAITS[stage]) if stage in _WAITS else inf
    kept = course.baseline if baseline is None else baseline
    begun = replace(course, stage=stage, deadline_s=now.s + wait_s, refused=None, baseline=kept)
    return replace(begun, is_unheard=False, is_repeated=False)


def unheard(course: Course) -> Turn:
    """Take it that an action was not answered: the next look shows whether it was obeyed. Nothing is repeated twice."""
    return Turn(replace(course, is_unheard=not course.is_repeated))


def asked_again(course: Course, action: Action) -> Turn:
    """Ask again for what was not answered, and, as was just seen, not done."""
    if not course.is_unheard:
        return Turn(course)
    return Turn(replace(course, is_unheard=False, is_repeated=True), actions=(action,))


def refused(course: Course, code: Code, now: Now) -> Turn:
    """Take it that an execute was refused: its first message may have been obeyed; the state has a little longer to show it."""
    until_s = course.deadline_s if course.is_repeated else min(course.deadline_s, now.s + now.patience.refusal_s)
    return Turn(replace(course, refused=code, deadline_s=until_s))


def told(course: Course, *phases: PushPhase, reason: str = "") -> Turn:
    """Return the turn that tells the engine these phases, those it was told last left out."""
    events = tuple(Said(each, reason) for each in phases)
    events = events[1:] if events and events[0] == course.said else events
    return Turn(replace(course, said=events[-1]) if events else course, events)


def failed(course: Course, reason: str, *actions: Action) -> Turn:
    """End badly."""
    said = Said(PushPhase.FAILED, reason)
    return Turn(replace(course, stage=Stage.ENDED, deadline_s=inf, said=said), (said,), actions)


def also(turn: Turn, *actions: Action) -> Turn:
    """Return the turn with more to do."""
    return replace(turn, actions=(*turn.actions, *actions))


def code_text(code: Code | None) -> str:
    """Return a code as people write it."""
    return "no answer" if code is None else f"{code[0]}.{code[1]:02d}"
