"""Hand-written fakes of the services that the API calls, and the small world they live in."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gatewayd.api.doors import Doors
from gatewayd.api.services import Node, Requests, Services, Streams
from gatewayd.api.table import Api
from gatewayd.core.command import Note
from gatewayd.core.decision import Decision
from gatewayd.core.device import DeviceView
from gatewayd.core.errors import Conflict, GatewayError, NotFound, UnknownDevice, UnknownModel
from gatewayd.core.fit import findings, fit
from gatewayd.core.model import NOTHING_SAID, About, Seat, Version
from gatewayd.core.module import Held
from gatewayd.core.names import Alias, DeviceId, Digest, ModelName, ModelRef, PushId, RequestId
from gatewayd.core.registry import AliasMove, Retirement, place_at, place_before
from gatewayd.core.request import NODE, InferenceRequest, InferenceResult, Measured
from gatewayd.core.retry import Desire, Terms
from gatewayd.core.tensor import DType, Tensor
from gatewayd.core.update import Push, PushState
from gatewayd.services.collecting import Collected
from gatewayd.services.desires import Wishes
from gatewayd.services.preflight import Check
from gatewayd.services.uploads import Uploads
from tests.api_values import COSTS, DECISION, DEVICE, KWS, PUSH, VERSION
from tests.fake_keys import FakeKeys
from tests.fake_notes import noted
from tests.fake_orders import FakeOrders, refuse_plus
from tests.fakes_dropping import FakeDropping
from tests.fakes_joining import FakeJoining
from tests.fakes_opinions import FakeOpinions
from tests.fakes_sources import FakeBuilding, FakeFetching


@dataclass
class FakeInference:
    """Answers every request with the same scores, or raises `error`."""

    error: Exception | None = None
    seen: list[InferenceRequest] = field(default_factory=list)

    def settle(self) -> None:
        """Nothing waits."""

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        self.seen.append(request)
        if self.error is not None:
            raise self.error
        return InferenceResult(
            id=request.id,
            model=str(request.model.name),
            version=1,
            variant="tflite-int8",
            outputs=(Tensor("scores", DType.FP32, (1, 2), struct.pack("<2f", 0.25, 0.75)),),
            ran_on=request.pin or NODE,
            reason="cheapest",
            predicted=COSTS,
            measured=Measured(total_s=0.005, compute_s=0.003),
            label="yes",
            score=0.75,
            sample=3 if request.source else None,
        )


@dataclass
class FakeCatalog:
    """One model in a list; admission gives the next number and reads nothing."""

    kept: list[Version] = field(default_factory=lambda: [VERSION])
    moves: list[AliasMove] = field(
        default_factory=lambda: [AliasMove(KWS, Alias("stable"), 1, 1_700_000_000.0, "ann", "first version")]
    )
    files: list[bytes] = field(default_factory=list)
    error: GatewayError | None = None
    retired: dict[int, Retirement] = field(default_factory=dict)

    async def add(
        self,
        *,
        model: ModelName,
        files: Sequence[bytes],
        labels: Sequence[str],
        preprocessing: str,
        note: str,
        who: str,
        about: About = NOTHING_SAID,
        samples: bytes = b"",
        note_of: Note[Version] | None = None,
    ) -> Version:
        if self.error is not None:
            raise self.error
        self.files.extend(files)
        number = 1 + max((v.number for v in self.kept if v.model == model), default=0)
        signature = replace(VERSION.signature, labels=tuple(labels), preprocessing=preprocessing)
        version = replace(VERSION, model=model, number=number, signature=signature, note=f"{note} ({who})", about=about)
        assert len(samples) % 16 == 0
        self.kept.append(version)
        noted(note_of, version)
        return version

    def versions(self) -> tuple[Version, ...]:
        return tuple(self.kept)

    def aliases(self, model: ModelName) -> Mapping[Alias, int]:
        return {m.alias: m.version for m in self.moves if m.model == model and m.version is not None}

    async def move_alias(
        self,
        model: ModelName,
        alias: Alias,
        version: int | None,
        *,
        who: str,
        why: str,
        expect: int | None = None,
        note_of: Note[AliasMove] | None = None,
    ) -> AliasMove:
        if version is not None:
            self.resolve(ModelRef(model, version=version))
        now = self.aliases(model).get(alias, 0)
        if expect not in {None, now}:
            raise Conflict(f"{model}:{alias} points at {now} now")
        move = AliasMove(model, alias, version, 1_700_000_001.0, who, why)
        self.moves.append(move)
        noted(note_of, move)
        return move

    async def move_back(
        self, model: ModelName, alias: Alias, *, who: str, why: str, note_of: Note[AliasMove] | None = None
    ) -> AliasMove:
        before = place_before(self.moves, alias)
        if before is None:
            raise Conflict(f"{model}:{alias} has been nowhere else")
        return await self.move_alias(model, alias, before, who=who, why=why, note_of=note_of)

    async def meaning_at(self, model: ModelName, alias: Alias, at: float) -> AliasMove | None:
        return place_at([move for move in self.moves if move.model == model], alias, at)

    async def retire(
        self, model: ModelName, number: int, *, who: str, why: str, note_of: Note[Retirement] | None = None
    ) -> Version:
        version = self.resolve(ModelRef(model, version=number))
        self.retired[number] = Retirement(model, number, 1_700_000_002.0, who, why)
        noted(note_of, self.retired[number])
        return version

    async def bring_back(self, model: ModelName, number: int, *, note_of: Note[Version] | None = None) -> Version:
        del self.retired[number]
        version = self.resolve(ModelRef(model, version=number))
        noted(note_of, version)
        return version

    def retirement(self, version: Version) -> Retirement | None:
        return self.retired.get(version.number)

    def resolve(self, ref: ModelRef) -> Version:
        for version in self.kept:
            if version.model == ref.name and ref.version in {None, version.number}:
                return version
        raise UnknownModel(f"no model {ref}")

    async def alias_history(self, model: ModelName) -> Sequence[AliasMove]:
        return [move for move in self.moves if move.model == model]


@dataclass
class FakeLoading:
    """Remembers what was loaded."""

    names: set[str] = field(default_factory=set)

    def is_loaded(self, version: Version) -> bool:
        return str(version) in self.names

    async def load(self, ref: ModelRef) -> Version:
        version = FakeCatalog().resolve(ref)
        self.names.add(str(version))
        return version

    async def unload(self, model: ModelName) -> int:
        FakeCatalog().resolve(ModelRef(model))
        gone = {name for name in self.names if name.startswith(f"{model}@")}
        self.names -= gone
        return len(gone)


@dataclass
class FakeTracking:
    """A list of devices."""

    views: list[DeviceView] = field(default_factory=lambda: [DEVICE])

    def devices(self) -> tuple[DeviceView, ...]:
        return tuple(self.views)

    def device(self, device: DeviceId) -> DeviceView:
        for view in self.views:
            if view.id == device:
                return view
        raise UnknownDevice(f"no device {device!r}")

    async def approve(self, device: DeviceId, *, who: str, note_of: Note[DeviceView] | None = None) -> DeviceView:
        for index, view in enumerate(self.views):
            if view.id == device:
                self.views[index] = replace(view, approved=True, note=f"approved by {who}")
                noted(note_of, self.views[index])
                return self.views[index]
        raise UnknownDevice(f"no device {device!r}")


@dataclass
class FakePreflight:
    """The one version against the devices of `tracking`."""

    tracking: FakeTracking

    def check(self, ref: ModelRef, device: DeviceId | None) -> tuple[Version, tuple[Check, ...]]:
        if ref.name != KWS:
            raise UnknownModel(f"no model {ref.name!r}")
        if device is not None and device not in {view.id for view in self.tracking.views}:
            raise UnknownDevice(f"no device {device!r}")
        views = [view for view in self.tracking.views if device in {None, view.id}]
        return VERSION, tuple(_check(view) for view in views)


def _check(view: DeviceView) -> Check:
    if view.report is None:
        return Check(view.id, view.approved, view.online, (), None, "", "has not reported yet")
    told = view.report.capabilities
    found = findings(VERSION, told)
    return Check(view.id, view.approved, view.online, found, fit(VERSION, told).variant, "", "")


@dataclass
class FakePushes:
    """Each look at the live pushes moves them on through `states`. With `forgets`, none is ever shown."""

    states: list[PushState] = field(default_factory=list)
    current: list[Push] = field(default_factory=list)
    ended: list[Push] = field(default_factory=list)
    started: list[tuple[DeviceId, ModelRef, str]] = field(default_factory=list)
    forgets: bool = False
    kept_terms: dict[DeviceId, Terms] = field(default_factory=dict)

    async def start(
        self, device: DeviceId, ref: ModelRef, *, who: str, downgrade: bool = False,
        instead_of: ModelName | None = None, note_of: Note[Push] | None = None,
    ) -> Push:  # fmt: skip
        self.started.append((device, ref, who))
        there = [each for each in (*self.current, *self.ended) if (each.device, each.model) == (device, ref.name)]
        if there and there[0].state in {PushState.ACCEPTED, PushState.TRANSFERRING}:
            return replace(there[0], joined=True)
        leaving, newer = Held(instead_of, 1) if instead_of else None, 9 if downgrade else 0
        push = replace(PUSH, device=device, model=ref.name, state=PushState.OFFERED, offset=0, who=who, replaces=newer)
        push = replace(push, instead_of=leaving)
        self.current = [] if self.forgets else [push]
        noted(note_of, push)
        return push

    async def cancel(self, push: PushId, *, why: str, note_of: Note[Push] | None = None) -> Push:
        running = next((each for each in self.current if each.id == push), None)
        if running is None:
            raise NotFound(f"no push {push}")
        ended = replace(running, state=PushState.CANCELLED, reason=why, ended_at=1_700_000_060.0)
        self.current, self.ended = [], [ended, *self.ended]
        noted(note_of, ended)
        return ended

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Push]:
        return [push for push in (*self.current, *self.ended) if device in {None, push.device}][:limit]

    def terms(self, device: DeviceId) -> Terms:
        return self.kept_terms.get(device, Terms(device))

    def desired(self, device: DeviceId) -> tuple[Desire, ...]:
        return (Desire(device, KWS, 1, "ann", 1_700_000_000.0),)

    async def release(self, device: DeviceId, *, note_of: Note[Wishes] | None = None) -> Terms:
        return self._set(replace(self.terms(device), quarantine=""), note_of)

    async def allow_one_slot(self, device: DeviceId, *, allowed: bool, note_of: Note[Wishes] | None = None) -> Terms:
        return self._set(replace(self.terms(device), one_slot=allowed), note_of)

    def _set(self, terms: Terms, note_of: Note[Wishes] | None) -> Terms:
        self.kept_terms[terms.device] = terms
        noted(note_of, (terms, self.desired(terms.device)))
        return terms

    def live(self) -> tuple[Push, ...]:
        if self.current and self.states:
            push = replace(self.current[0], state=self.states.pop(0), offset=9216)
            self.current, self.ended = ([], [push, *self.ended]) if push.state.is_end else ([push], self.ended)
        return tuple(self.current)


class FakeCollecting:
    """Finds one artifact that nothing needs and one that a device holds."""

    async def collect(self, *, dry_run: bool = False) -> Collected:
        assert isinstance(dry_run, bool)
        return Collected({Digest("b" * 64): 100}, {Digest("c" * 64): "device cam-7 holds it"}, 2, 300)


class FakeDecisions:
    """Knows one decision."""

    def why(self, request: RequestId) -> Decision:
        if request != DECISION.request:
            raise NotFound(f"no decision about request {request!r} is kept")
        return DECISION


@dataclass(slots=True)
class FakeNodeRuntime:
    """Nothing is loaded, one variant is in quarantine."""

    held: dict[Digest, str] = field(default_factory=lambda: {Digest("a" * 64): "SIGSEGV"})

    def seats(self) -> tuple[Seat, ...]:
        return ()

    def quarantined(self) -> Mapping[Digest, str]:
        return dict(self.held)

    def release(self, digest: Digest) -> None:
        del self.held[digest]


@dataclass
class World:
    """All fakes, and the API on top of them. Monotonic time stands at 100 s; ids are r-1, r-2 …"""

    inference: FakeInference = field(default_factory=FakeInference)
    catalog: FakeCatalog = field(default_factory=FakeCatalog)
    loading: FakeLoading = field(default_factory=FakeLoading)
    tracking: FakeTracking = field(default_factory=FakeTracking)
    pushes: FakePushes = field(default_factory=FakePushes)
    decisions: FakeDecisions = field(default_factory=FakeDecisions)
    keys: FakeKeys = field(default_factory=FakeKeys)
    runtime: FakeNodeRuntime | None = None
    collecting: FakeCollecting = field(default_factory=FakeCollecting)
    fetching: FakeFetching = field(default_factory=FakeFetching)
    building: FakeBuilding = field(default_factory=FakeBuilding)
    joining: FakeJoining = field(default_factory=FakeJoining)
    orders: FakeOrders = field(default_factory=FakeOrders)
    opinions: FakeOpinions = field(default_factory=FakeOpinions)
    dropping: FakeDropping = field(default_factory=FakeDropping)
    doors: Doors = field(default_factory=Doors)
    connected: bool = True
    ids: int = 0

    def __post_init__(self) -> None:
        self.uploads = Uploads(clock=lambda: 100.0, new_id=self.new_id, max_bytes=2**20)

    def new_id(self) -> str:
        self.ids += 1
        return f"r-{self.ids}"

    def services(self) -> Services:
        return Services(
            inference=self.inference,
            catalog=self.catalog,
            loading=self.loading,
            tracking=self.tracking,
            pushes=self.pushes,
            decisions=self.decisions,
            requests=Requests(clock=lambda: 100.0, new_id=self.new_id, default_deadline_s=5.0, max_deadline_s=60.0),
            preflight=FakePreflight(self.tracking),
            node=Node("edge-1", "0.1.0", 40.0, lambda: 100.0, lambda: self.connected, self.runtime),
            keys=self.keys,
            collecting=self.collecting,
            uploads=self.uploads,
            fetching=self.fetching,
            building=self.building,
            joining=self.joining,
            opinions=self.opinions,
            doors=self.doors,
            dropping=self.dropping,
            streams=Streams(
                self.orders, lambda: 1_700_000_000.0, refuse_plus, lambda order: f"gatewayd/edge-1/stream/{order}"
            ),
        )

    def api(self) -> Api:
        return Api(self.services())
