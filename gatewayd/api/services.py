"""Everything a verb's handler may touch: one small Protocol per service, the node's own facts and the maker of requests.

The real services satisfy the Protocols without knowing them; so do the fakes of the tests.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from gatewayd.api.doors import Doors
from gatewayd.api.dropping_service import DroppingService
from gatewayd.api.loading_service import LoadingService
from gatewayd.api.opinions_service import OpinionsService
from gatewayd.core.accelerator import Found
from gatewayd.core.command import Note
from gatewayd.core.credentials import CredentialKind, Credentials
from gatewayd.core.decision import Decision
from gatewayd.core.device import DeviceView
from gatewayd.core.keys import Key
from gatewayd.core.model import NOTHING_SAID, About, Seat, Version
from gatewayd.core.names import Alias, DeviceId, Digest, ModelName, ModelRef, PushId, RequestId, parse_model_ref
from gatewayd.core.record import record
from gatewayd.core.registry import AliasMove, Retirement
from gatewayd.core.request import InferenceRequest, InferenceResult
from gatewayd.core.retry import Desire, Terms
from gatewayd.core.standing import Progress, StandingOrder
from gatewayd.core.update import Push
from gatewayd.services.building import Built
from gatewayd.services.collecting import Collected
from gatewayd.services.desires import Wishes
from gatewayd.services.join_window import WindowState
from gatewayd.services.joining import Issued, Removed
from gatewayd.services.ports import Clock
from gatewayd.services.preflight import Check
from gatewayd.services.uploads import UploadState
from gatewayd.wire.tensors import InferenceBody


class InferenceService(Protocol):
    """Serves requests."""

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Serve one request. Raises: any GatewayError."""

    def settle(self) -> None:
        """Enter what the answers so far have taught."""


class CatalogService(Protocol):
    """The model registry."""

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
        """Admit the next version. Raises: BadRequest, ModelRefused, TooLarge."""

    def versions(self) -> tuple[Version, ...]:
        """Return every version, by model and number."""

    def aliases(self, model: ModelName) -> Mapping[Alias, int]:
        """Return where the model's aliases point."""

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
        """Point `alias` at `version` (None: remove it). Raises: UnknownModel, Conflict."""

    async def move_back(
        self, model: ModelName, alias: Alias, *, who: str, why: str, note_of: Note[AliasMove] | None = None
    ) -> AliasMove:
        """Point `alias` where it was before its last move. Raises: UnknownModel, Conflict."""

    async def meaning_at(self, model: ModelName, alias: Alias, at: float) -> AliasMove | None:
        """Return the move that decided what the alias meant at wall time `at`."""

    async def retire(
        self, model: ModelName, number: int, *, who: str, why: str, note_of: Note[Retirement] | None = None
    ) -> Version:
        """Take a version out of use. Raises: UnknownModel, Conflict."""

    async def bring_back(self, model: ModelName, number: int, *, note_of: Note[Version] | None = None) -> Version:
        """Take it into use again. Raises: UnknownModel, Conflict."""

    def retirement(self, version: Version) -> Retirement | None:
        """Return when, by whom and why the version was retired."""

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that `ref` names now. Raises: UnknownModel."""

    async def alias_history(self, model: ModelName) -> Sequence[AliasMove]:
        """Return every recorded move, oldest first."""


class CollectingService(Protocol):
    """Garbage collection of artifacts."""

    async def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nothing needs."""


class UploadsService(Protocol):
    """Files that arrive in parts."""

    def begin(self, *, size_bytes: int, digest: Digest) -> UploadState:
        """Announce a file. Raises: TooLarge, Conflict."""

    def part(self, upload: str, *, offset: int, content: bytes) -> UploadState:
        """Take the next bytes. Raises: NotFound, Conflict, TooLarge."""

    async def end(self, upload: str) -> UploadState:
        """Check size and digest. Raises: NotFound, Conflict, BadRequest."""

    def cancel(self, upload: str) -> None:
        """Forget it."""

    def content(self, upload: str) -> bytes:
        """Return the bytes of an ended upload. Raises: NotFound, Conflict."""


class FetchingService(Protocol):
    """Files from addresses."""

    async def files(self, urls: Sequence[str], digests: Sequence[Digest]) -> list[bytes]:
        """Return the files' bytes. Raises: BadRequest, and what the fetcher raises."""


class BuildingService(Protocol):
    """Compiler plugins."""

    async def build(self, ref: ModelRef, wanted: str, *, who: str, note_of: Note[Built] | None = None) -> Built:
        """Build the variant that a device or target calls for."""


class TrackingService(Protocol):
    """The devices."""

    def devices(self) -> tuple[DeviceView, ...]:
        """Return a snapshot of every device."""

    def device(self, device: DeviceId) -> DeviceView:
        """Return one snapshot. Raises: UnknownDevice."""

    async def approve(self, device: DeviceId, *, who: str, note_of: Note[DeviceView] | None = None) -> DeviceView:
        """Let the device in. Raises: UnknownDevice."""


class JoiningService(Protocol):
    """How devices join and leave."""

    def permit(self, seconds: float, *, who: str) -> WindowState:
        """Let newcomers in for so long, 0: no longer. Raises: BadRequest."""

    def window(self) -> WindowState:
        """Return how long newcomers are let in still, and who was."""

    def credentials(self) -> Credentials:
        """Return all credentials."""

    async def issue(
        self,
        device: DeviceId,
        *,
        kinds: Collection[CredentialKind],
        speaks_for: Collection[DeviceId] = (),
        may_replace: bool = False,
        who: str,
    ) -> Issued:
        """Make credentials. Raises: BadRequest, Conflict, TooLarge, NotStored."""

    async def revoke(self, device: DeviceId, *, who: str, note_of: Note[Removed] | None = None) -> Removed:
        """Take a device out. Raises: UnknownDevice, NotStored."""

    async def forget(
        self,
        device: DeviceId,
        *,
        force: bool,
        keep_credentials: bool,
        who: str,
        note_of: Note[Removed] | None = None,
    ) -> Removed:
        """Remove what is known of a device. Raises: UnknownDevice, Conflict, NotStored."""


class PushesService(Protocol):
    """Pushes of models to devices."""

    async def start(
        self,
        device: DeviceId,
        ref: ModelRef,
        *,
        who: str,
        downgrade: bool = False,
        instead_of: ModelName | None = None,
        note_of: Note[Push] | None = None,
    ) -> Push:
        """Start a push. Raises: UnknownDevice, UnknownModel, Conflict, Forbidden, Overloaded."""

    async def cancel(self, push: PushId, *, why: str, note_of: Note[Push] | None = None) -> Push:
        """End a push. Raises: NotFound, Conflict (too late)."""

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Push]:
        """Return the latest pushes (of one device), newest first."""

    def terms(self, device: DeviceId) -> Terms:
        """Return on which terms the device is pushed to."""

    def desired(self, device: DeviceId) -> tuple[Desire, ...]:
        """Return what is wanted on the device."""

    async def release(self, device: DeviceId, *, note_of: Note[Wishes] | None = None) -> Terms:
        """End a quarantine. Raises: UnknownDevice."""

    async def allow_one_slot(self, device: DeviceId, *, allowed: bool, note_of: Note[Wishes] | None = None) -> Terms:
        """Allow pushes to a device with a single slot. Raises: UnknownDevice."""

    def live(self) -> tuple[Push, ...]:
        """Return the pushes that have not ended."""


class PreflightService(Protocol):
    """Whether versions run on devices."""

    def check(self, ref: ModelRef, device: DeviceId | None) -> tuple[Version, tuple[Check, ...]]:
        """Hold a version against one device, or all. Raises: UnknownModel, UnknownDevice."""


class DecisionsService(Protocol):
    """The latest placements."""

    def why(self, request: RequestId) -> Decision:
        """Return what was decided for the request. Raises: NotFound."""


class KeysService(Protocol):
    """The keys that sign modules."""

    def known(self) -> tuple[Key, ...]:
        """Return every key ever made, oldest first."""

    async def add(self) -> Key:
        """Make one that does not sign yet. Raises: Conflict, NodeError."""

    async def sign_with(self, key: str) -> Key:
        """Sign with it from now on. Raises: NotFound, Conflict, NodeError."""

    async def revoke(self, key: str) -> Key:
        """Trust it no more. Raises: NotFound, Conflict, NodeError."""


class RuntimeService(Protocol):
    """The node's own inference."""

    def seats(self) -> tuple[Seat, ...]:
        """Return what is loaded, on which engine, and how it is."""

    def quarantined(self) -> Mapping[Digest, str]:
        """Return the variants that killed their worker twice in a row, with the last reason."""

    def release(self, digest: Digest) -> None:
        """Let a quarantined variant be tried again."""


@record
class Node:
    """The node's own facts. `clock` and `started_s` are monotonic seconds; `connected` tells whether the broker is there.

    `accelerators` returns what the last scan found.
    """

    name: str
    version: str
    started_s: float
    clock: Clock
    connected: Callable[[], bool]
    runtime: RuntimeService | None = None
    accelerators: Callable[[], tuple[Found, ...]] = tuple

    def uptime_s(self) -> float:
        """Return how long the daemon has been up."""
        return self.clock() - self.started_s


@record
class Broker:
    """What devices are told of the broker. `ca` is the authority's certificate in PEM ("": they come without TLS)."""

    prefix: str = "gatewayd"
    host: str = "localhost"
    port: int = 1883
    ca: str = ""


@record
class Requests:
    """Makes requests out of bodies. `new_id` names those whose caller gave no id; a deadline is cut to `max_deadline_s`."""

    clock: Clock
    new_id: Callable[[], str]
    default_deadline_s: float = 10.0
    max_deadline_s: float = 120.0

    def make(self, model: str, body: InferenceBody, *, arrived_s: float | None = None) -> InferenceRequest:
        """Combine what the address names (`kws`, `kws:stable`, `kws@3`) with the body.

        Its time runs from `arrived_s` (monotonic; None: now), so that waiting in an edge's queue counts. Raises: BadRequest.
        """
        asked_s = self.default_deadline_s if body.deadline_ms is None else body.deadline_ms / 1000
        from_s = self.clock() if arrived_s is None else arrived_s
        return InferenceRequest(
            id=RequestId(body.id or self.new_id()),
            model=parse_model_ref(model),
            deadline_s=from_s + min(asked_s, self.max_deadline_s),
            inputs=body.inputs,
            raw=body.raw,
            source=body.source,
            pin=body.pin,
            prefer=body.prefer,
            privacy=body.privacy,
            request_class=body.request_class,
            stream=body.stream,
            is_reset=body.is_reset,
            outputs=body.outputs,
        )


class OrdersService(Protocol):
    """Standing orders."""

    def orders(self) -> Sequence[tuple[StandingOrder, Progress]]:
        """Return every order, the oldest first, and how it goes."""

    async def start(self, order: StandingOrder, *, note_of: Note[StandingOrder] | None = None) -> StandingOrder:
        """Begin an order. Raises: UnknownModel, UnknownDevice, BadRequest, Conflict, Overloaded."""

    async def stop(
        self, order_id: str, *, why: str, note_of: Note[tuple[StandingOrder, Progress]] | None = None
    ) -> tuple[StandingOrder, Progress]:
        """End an order. Raises: NotFound."""


@record
class Streams:
    """Standing orders and where their answers may go. `wall_clock` in seconds since 1970.

    `check_topic` raises BadRequest or Forbidden for a topic that is not for answers; `default_topic` names an order's own.
    """

    orders: OrdersService
    wall_clock: Clock
    check_topic: Callable[[str], None]
    default_topic: Callable[[str], str]


@record
class Services:
    """What handlers are given."""

    inference: InferenceService
    catalog: CatalogService
    loading: LoadingService
    tracking: TrackingService
    pushes: PushesService
    decisions: DecisionsService
    requests: Requests
    node: Node
    keys: KeysService
    preflight: PreflightService
    collecting: CollectingService
    uploads: UploadsService
    fetching: FetchingService
    building: BuildingService
    streams: Streams
    joining: JoiningService
    opinions: OpinionsService
    dropping: DroppingService
    broker: Broker = Broker()
    doors: Doors = field(default_factory=Doors)
