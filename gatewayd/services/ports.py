"""What the services need from the world, as Protocols. Links and adapters satisfy them without importing this file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gatewayd.core.building import Build, Compiled, Recipe
from gatewayd.core.command import CommandId, Record
from gatewayd.core.credentials import Credentials
from gatewayd.core.device import Departure, KnownDevice, RunResult, SampleResult
from gatewayd.core.dropping import Drop
from gatewayd.core.events import GatewayEvent
from gatewayd.core.learned import Learned
from gatewayd.core.model import NodeRun, Structure, Trial, Variant, Version
from gatewayd.core.module import Manifest
from gatewayd.core.names import Alias, DeviceId, Digest, ModelName, PushId
from gatewayd.core.opinion import SecondOpinion
from gatewayd.core.push import Offer, Push
from gatewayd.core.registry import AliasMove, Retirement
from gatewayd.core.retry import Desire, Terms
from gatewayd.core.source import FolderModel
from gatewayd.core.standing import StandingOrder
from gatewayd.core.tensor import Tensor

Clock = Callable[[], float]
"""Monotonic seconds for every timer; a second one of the same shape gives wall seconds for records."""


class NodeRuntime(Protocol):
    """Runs variants in worker processes."""

    async def run(
        self, variant: Variant, inputs: Sequence[Tensor], *, timeout_s: float, stream: str = "", is_reset: bool = False
    ) -> NodeRun:
        """Run one inference; `inputs` are already in the variant's dtypes and order.

        `stream` names the state of a model that keeps one ("": the one all share); `is_reset` makes it anew first.

        Raises: EngineMissing, WorkerDied, Overloaded, DeadlineExceeded.
        """

    async def preload(self, variant: Variant, *, timeout_s: float) -> None:
        """Load now what is about to be asked for. Raises: as `run`, and ModelRefused."""

    def retire(self, digest: Digest) -> None:
        """Let go what nothing points to any more, once its last request is answered."""

    def expected_wait_s(self, variant: Variant) -> float:
        """Return how long a request would queue now."""


class NodeLoader(Protocol):
    """Loads variants ahead of requests; the runtime satisfies it too."""

    async def preload(self, variant: Variant, *, timeout_s: float) -> None:
        """Start and load now. Raises: as `NodeRuntime.run`."""

    def loaded(self) -> Sequence[Digest]:
        """Return what has a worker."""

    def unload(self, digest: Digest) -> bool:
        """Let an idle worker go; False when it is busy. A variant without a worker is no error."""


class ModelTrial(Protocol):
    """Loads and runs a stored artifact in child processes, on every engine present."""

    async def try_model(self, digest: Digest, structure: Structure) -> Trial:
        """Never raises for a bad model: each engine's refusal or death is a verdict."""

    async def describe(self, digest: Digest) -> Structure:
        """Return what an engine says of a file that no reader here knows (ONNX). Raises: ModelRefused, EngineMissing."""


class ModelReader(Protocol):
    """Reads a model file without running it (pure, bounded)."""

    def __call__(self, content: bytes) -> Structure:
        """Raises: ModelRefused naming the first thing wrong."""


class Artifacts(Protocol):
    """Content-addressed bytes on disk."""

    async def put(self, content: bytes) -> Digest:
        """Store durably (file, fsync, rename, fsync directory) before returning; the same bytes are stored once."""

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset`. Raises: NotFound."""

    async def has(self, digest: Digest) -> bool:
        """Tell whether the artifact is stored."""

    async def digests(self) -> Mapping[Digest, int]:
        """Return every artifact with its size in bytes."""

    async def remove(self, digest: Digest) -> None:
        """Remove the artifact; none is no error."""


class ReferenceRuns(Protocol):
    """Runs a stored artifact on the engine whose answers count as right: the device's where it is present, else the node's."""

    async def outputs(self, digest: Digest, structure: Structure, inputs: Sequence[bytes]) -> Sequence[bytes]:
        """Return the raw first output for each raw (only) input. Raises: GatewayError when no engine here runs it."""


class Compilers(Protocol):
    """Compiler plugins: programs that turn a variant into one for a target."""

    async def version(self, plugin: str) -> str:
        """Return the version of the plugin and its tool. Raises: EngineMissing saying what to install."""

    async def compile(self, recipe: Recipe, samples: Digest | None) -> Compiled:
        """Run the plugin on stored artifacts.

        Raises: EngineMissing; ModelRefused with the tool's words when it fails; DeadlineExceeded.
        """


class ModelCheck(Protocol):
    """Judges what a compiler plugin made by reading it (pure, bounded)."""

    def __call__(self, plugin: str, content: bytes) -> str:
        """Return one line on what was found. Raises: ModelRefused when the plugin did not do its work."""


class Fetcher(Protocol):
    """Fetches files from elsewhere."""

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        """Raises: BadRequest (no such scheme, no allowed address), NotFound, TooLarge, DeadlineExceeded, NodeError."""


class ModelFolder(Protocol):
    """A folder into which people and programs put models."""

    async def scan(self) -> Sequence[FolderModel]:
        """Return what is complete and has no result yet; at most a few at a time."""

    async def finish(self, found: FolderModel, result: Mapping[str, object]) -> None:
        """Write the result beside it. Raises: NodeError."""


class CommandStore(Protocol):
    """What is remembered of commands."""

    async def find_command(self, key: bytes) -> Record | None:
        """Return what is known of a command."""

    async def save_command(self, record: Record) -> Record:
        """Remember a command; return what is remembered now: an answer that stands is not replaced."""

    async def begin_command(self, command: CommandId, *, at: float) -> Record:
        """Note that a command is about to be carried out, once more; return what is remembered now."""

    async def forget_command(self, key: bytes) -> None:
        """Forget a command that was begun and came to nothing."""


class RegistryStore(Protocol):
    """Durable registry rows."""

    def noting(self, record: Record | None) -> "RegistryStore":
        """Return this store for one write, whose transaction holds the command's `record` too. None: the store itself."""

    async def load_versions(self) -> Sequence[Version]:
        """Return all versions, oldest first."""

    async def load_aliases(self) -> Mapping[tuple[ModelName, Alias], int]:
        """Return where every alias points now."""

    async def add_version(self, version: Version, *, moves: Sequence[AliasMove]) -> None:
        """Store a version and the alias moves that come with it in one transaction. Raises: Conflict on an existing number."""

    async def move_alias(self, move: AliasMove) -> None:
        """Record a move and the alias's new place in one transaction."""

    async def alias_history(self, model: ModelName) -> Sequence[AliasMove]:
        """Return all moves of the model's aliases, oldest first."""

    async def load_retirements(self) -> Sequence[Retirement]:
        """Return which versions are retired, oldest first."""

    async def retire(self, retirement: Retirement) -> None:
        """Record that a version is out of use."""

    async def bring_back(self, model: ModelName, number: int) -> None:
        """Record that a version is in use again."""


class HoldingStore(Protocol):
    """Durable rows of what devices hold."""

    async def load_holdings(self) -> Mapping[DeviceId, frozenset[Digest]]:
        """Return what each device held when it last said so."""

    async def save_holdings(self, device: DeviceId, digests: frozenset[Digest]) -> None:
        """Replace what the device holds."""


class BuildStore(Protocol):
    """Durable rows of what compiler plugins made."""

    async def find_build(self, key: Digest) -> Build | None:
        """Return the result of the same things before; its artifact may be gone."""

    async def save_build(self, build: Build, *, built_at: float) -> None:
        """Insert or replace."""


class CheckpointStore(Protocol):
    """Where what was learned outlives the process."""

    async def load_learned(self) -> Learned | None:
        """Return the last checkpoint; None when there is none that can be read."""

    async def save_learned(self, learned: Learned) -> int:
        """Replace it; return how many bytes it takes. Raises: NotStored."""


class OpinionStore(Protocol):
    """Which models have a second opinion."""

    async def load_opinions(self) -> Sequence[SecondOpinion]:
        """Return all. Raises: NodeError when what is there cannot be read."""

    async def save_opinions(self, opinions: Sequence[SecondOpinion]) -> None:
        """Replace all; durable before returning. Raises: NotStored."""


class DeviceStore(Protocol):
    """Durable device rows."""

    def noting(self, record: Record | None) -> "DeviceStore":
        """As `RegistryStore.noting`."""

    async def load_devices(self) -> Sequence[KnownDevice]:
        """Return every device ever seen."""

    async def save_device(self, device: KnownDevice) -> None:
        """Insert or replace."""

    async def depart(self, departure: Departure) -> None:
        """Take a device out: it keeps one row, or no row about it stays that is no history; durable before returning."""


class CredentialStore(Protocol):
    """The devices' credentials."""

    def known(self) -> Credentials:
        """Return all there are."""

    async def change(self, change: Callable[[Credentials], Credentials]) -> Credentials:
        """Replace what is known by what `change` makes of it; durable before returning.

        Raises: what `change` raises, NotStored.
        """


class PushStore(Protocol):
    """The journal of pushes."""

    def noting(self, record: Record | None) -> "PushStore":
        """As `RegistryStore.noting`."""

    async def load_live(self) -> Sequence[Push]:
        """Return pushes that had not ended."""

    async def save_push(self, push: Push) -> None:
        """Insert or replace; durable before returning."""

    async def save_pushes(
        self, pushes: Sequence[Push], *, unwanted: Desire | None = None, departure: Departure | None = None
    ) -> None:
        """Insert or replace several, drop a desire and take a device out, all or nothing; durable before returning."""

    async def depart(self, departure: Departure) -> None:
        """As `DeviceStore.depart`."""

    async def next_push_id(self) -> PushId:
        """Return an id never used before (ids fit 31 bits)."""

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Push]:
        """Return the latest pushes (of one device), newest first."""

    async def load_last_failed(self) -> Sequence[Push]:
        """Return the newest push of each device where that ended otherwise than accepted."""


class DesireStore(Protocol):
    """What is wanted on devices, and on which terms they are pushed to."""

    def noting(self, record: Record | None) -> "DesireStore":
        """As `RegistryStore.noting`."""

    async def load_desires(self) -> Sequence[Desire]:
        """Return all, the oldest wish first."""

    async def save_desire(self, desire: Desire) -> None:
        """Insert or replace."""

    async def drop_desire(self, device: DeviceId, model: ModelName) -> None:
        """Want nothing of that model there any more."""

    async def load_terms(self) -> Sequence[Terms]:
        """Return the terms that are not the usual ones."""

    async def save_terms(self, terms: Terms) -> None:
        """Insert or replace."""


class StandingStore(Protocol):
    """Durable rows of standing orders."""

    def noting(self, record: Record | None) -> "StandingStore":
        """As `RegistryStore.noting`."""

    async def load_orders(self) -> Sequence[StandingOrder]:
        """Return all, the oldest first."""

    async def save_order(self, order: StandingOrder) -> None:
        """Insert or replace."""

    async def drop_order(self, order_id: str) -> None:
        """Remove; none is no error."""


class Signer(Protocol):
    """Signs manifests with the gateway's key."""

    def sign(self, manifest: Manifest) -> bytes:
        """Return the signed manifest as it travels. Raises: TooLarge."""

    def read(self, signed: bytes) -> Manifest:
        """Read what a key signed that is trusted still. Raises: BadRequest."""


class Pinger(Protocol):
    """Asks devices whether they are there."""

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        """Return the round trip in seconds. Raises: DeviceTimeout, DeviceUnreachable."""


class DeviceLink(Protocol):
    """How devices of one kind are reached. Sends are fire-and-forget: what comes back arrives as `DeviceEvent`s."""

    async def run_model(
        self,
        device: DeviceId,
        *,
        slot: int,
        version: int,
        content: bytes | None,
        sensor: int,
        timeout_s: float,
        below: bytes | None = None,
        is_trial: bool = False,
    ) -> RunResult:
        """Run the model in `slot`, on `content` (raw input) or, when that is None, on the sensor of that index.

        `below`: have the sample sent with the answer when no element of the first output reaches this, as stored (4 bytes, an
        i32, or an f32 where that is FP32; None: never). A device may send none all the same. `is_trial`: it goes before others.

        Raises: DeviceTimeout, DeviceUnreachable, DeviceRefused.
        """

    async def read_sensor(self, device: DeviceId, *, sensor: int, timeout_s: float) -> SampleResult:
        """Fetch one raw sample. Raises: DeviceTimeout, DeviceUnreachable, DeviceRefused."""

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        """Return the round trip in seconds. Raises: DeviceTimeout, DeviceUnreachable."""

    async def drop_model(self, drop: Drop, *, timeout_s: float) -> None:
        """Have the device let go a model that runs; one that is gone already is no error.

        Raises: DeviceTimeout (it may be gone: the device's next report tells), DeviceUnreachable, DeviceRefused.
        """

    def send_offer(self, device: DeviceId, offer: Offer) -> None:
        """Offer a push, or ask where the device stands with it: an offer may be repeated."""

    def send_chunk(self, device: DeviceId, push: PushId, *, offset: int, content: bytes) -> None:
        """Send the bytes a device asked for."""

    def send_activate(self, device: DeviceId, push: PushId) -> None:
        """Let the tested model take over, on trial."""

    def send_accept(self, device: DeviceId, push: PushId) -> None:
        """End the trial: the new model stays."""

    def send_cancel(self, device: DeviceId, push: PushId, reason: str) -> None:
        """Drop the push; the device keeps (or goes back to) its old model."""

    def forget(self, device: DeviceId, *, wholly: bool) -> None:
        """Let go what the link, or a broker behind it, keeps of a device; `wholly`: and what it was given. Raises: Overloaded."""


Notify = Callable[[GatewayEvent], None]
"""Where the services announce what happened. Must return at once and never raise."""
