"""The update engine, the tables of `links.lwm2m.slots` and a /9 client, with a clock of its own."""

from dataclasses import dataclass, field, replace

from gatewayd.core.device import PushPhase, PushReport
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.update import (
    Limits,
    Push,
    PushState,
    RunTrial,
    SendAccept,
    SendActivate,
    SendCancel,
    SendChunk,
    SendOffer,
    Step,
    new_push,
)
from gatewayd.core.update import TimePassed as EngineTime
from gatewayd.core.update import step as engine_step
from gatewayd.links.lwm2m import slot_terms as terms
from gatewayd.links.lwm2m.slots import Kind, step
from gatewayd.wire.lwm2m.states import Software, SoftwareState

DOOR, KWS, SIZE = DeviceId("door-1"), ModelName("kws"), 54_000
DIGEST, OTHER_DIGEST = Digest("ab" * 32), Digest("cd" * 32)
GOAL = terms.Goal(PushId(7), KWS, 3, DIGEST, instance=0)
CHANGED, NOT_FOUND, NOT_ALLOWED, INCOMPLETE, BUSY, ERROR = (2, 4), (4, 4), (4, 5), (4, 8), (5, 3), (5, 0)
BAD_REQUEST = (4, 0)


@dataclass
class Client:
    """A well-behaved /9 client; its kin below behave as the facts say."""

    held: dict[int, Software] = field(default_factory=lambda: {0: Software(0, SoftwareState.INITIAL)})
    name: str = "kws"
    version: str = "3"
    fetches: bool = True
    did: list[str] = field(default_factory=list)
    sent: int = 0

    def now(self, instance: int, **changes: object) -> terms.Code:
        self.held[instance] = replace(self.held[instance], **changes)  # type: ignore[arg-type]  # fields by their names
        return CHANGED

    def write(self, instance: int) -> terms.Code | None:
        """Take all blocks of a package; return the answer to the last one."""
        if self.held[instance].state is not SoftwareState.INITIAL:
            return NOT_ALLOWED
        return self.deliver(instance)

    def fetch(self, instance: int) -> terms.Code | None:
        """Take an address, fetch from there."""
        if self.held[instance].state is not SoftwareState.INITIAL:
            return NOT_ALLOWED
        if self.fetches:
            self.deliver(instance)
        return CHANGED

    def deliver(self, instance: int) -> terms.Code:
        self.sent += 1
        return self.now(instance, state=SoftwareState.DELIVERED, result=3, name=self.name, version=self.version)

    def install(self, instance: int) -> terms.Code | None:
        if self.held[instance].state is not SoftwareState.DELIVERED:
            return NOT_ALLOWED
        return self.now(instance, state=SoftwareState.INSTALLED, result=2)

    def uninstall(self, instance: int) -> terms.Code:
        assert not self.held[instance].is_active, "the active slot was uninstalled"
        if self.held[instance].state < SoftwareState.DELIVERED:
            return NOT_ALLOWED
        return self.now(instance, state=SoftwareState.INITIAL, result=0, name="", version="")

    def reset(self, instance: int) -> terms.Code:
        if self.held[instance].state in {SoftwareState.DELIVERED, SoftwareState.INSTALLED}:
            return NOT_ALLOWED
        return self.now(instance, state=SoftwareState.INITIAL, result=0)

    def activate(self, instance: int) -> terms.Code | None:
        if self.held[instance].state is not SoftwareState.INSTALLED or self.held[instance].is_active:
            return NOT_ALLOWED
        return self.now(instance, is_active=True)

    def deactivate(self, instance: int) -> terms.Code:
        return self.now(instance, is_active=False)


class Bench:
    """The engine, the table and a client, with a clock of its own. Everything that follows at once does; then time passes."""

    def __init__(self, client: Client, goal: terms.Goal = GOAL, *, limits: Limits | None = None) -> None:
        self.client = client
        self.clock_s = 0.0
        self.limits = limits or Limits(offer_s=200, stall_s=400, verify_s=400, self_test_s=400, trial_s=400)
        self.course = terms.Course(goal)
        self.events: list[str] = []
        self.push = self._engine(
            new_push(
                id=goal.push,
                device=DOOR,
                model=KWS,
                version=3,
                variant="x",
                digest=DIGEST,
                size_bytes=SIZE,
                now_s=0.0,
                limits=self.limits,
            )
        )

    def run(self, until_s: float = 1000.0) -> PushState:
        while not self.push.state.is_end and self.clock_s < until_s:
            self.look()
            self.clock_s += 1.0
            self.hear(terms.TimePassed())
            self.push = self._engine(engine_step(self.push, EngineTime(), now_s=self.clock_s, limits=self.limits))
        return self.push.state

    def look(self, instance: int | None = None) -> None:
        if instance is None:
            instance = self.course.goal.instance
        self.hear(terms.Seen(self.client.held[instance]))

    def hear(self, heard: terms.Heard) -> None:
        turn = step(Kind.SOFTWARE, self.course, heard, terms.Now(self.clock_s))
        assert turn.course.is_over or turn.course.stage is terms.Stage.NEW or turn.course.deadline_s < 1e9
        self.course = turn.course
        for said in turn.events:
            self.events.append(said.phase.value)
            self.tell(said.phase, reason=said.reason)
        for action in turn.actions:
            self.act(action)

    def tell(self, phase: PushPhase, *, offset: int = 0, length: int = 0, reason: str = "") -> None:
        report = PushReport(DOOR, self.course.goal.push, phase, offset=offset, length=length, reason=reason)
        self.push = self._engine(engine_step(self.push, report, now_s=self.clock_s, limits=self.limits))

    def act(self, action: terms.Action) -> None:
        client = self.client
        client.did.append(type(action).__name__)
        match action:
            case terms.Look(instance):
                self.look(instance)
            case terms.WritePackage(instance):
                self.tell(PushPhase.WANT, length=1024)
                self.hear(terms.TransferEnded(client.write(instance)))
            case terms.WriteUri(instance):
                code = client.fetch(instance)
                self.tell(PushPhase.WANT, length=1024)
                self.hear(terms.Answered(action, code))
            case terms.Uninstall(instance):
                self.hear(terms.Answered(action, client.uninstall(instance)))
            case terms.Reset(instance):
                self.hear(terms.Answered(action, client.reset(instance)))
            case terms.Install(instance):
                self.hear(terms.Answered(action, client.install(instance)))
            case terms.Activate(instance):
                self.hear(terms.Answered(action, client.activate(instance)))
            case terms.Deactivate(instance):
                self.hear(terms.Answered(action, client.deactivate(instance)))

    def _engine(self, found: Step) -> Push:
        self.push = found.push
        for command in found.commands:
            match command:
                case SendOffer():
                    self.look()
                    self.hear(terms.Offered())
                case SendActivate():
                    self.hear(terms.ActivateWanted())
                case SendAccept():
                    self.hear(terms.AcceptWanted())
                case SendCancel():
                    self.hear(terms.CancelWanted())
                case SendChunk() | RunTrial():
                    pass
        return self.push
