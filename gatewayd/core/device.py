"""What is known of a device: its profile (prior), its capabilities (reported), its slots (truth) and its link (measured)."""

from dataclasses import replace
from enum import Enum

from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.record import record
from gatewayd.core.tensor import TensorSpec


class LinkKind(Enum):
    """How a device is reached."""

    MQTT = "mqtt"
    LWM2M = "lwm2m"


class EnergySource(Enum):
    """What the device runs on; energy costs count only on a battery."""

    BATTERY = "battery"
    MAINS = "mains"


class SlotState(Enum):
    """What a model slot holds."""

    EMPTY = "empty"
    STAGING = "staging"
    TRIAL = "trial"
    ACTIVE = "active"


RUNNING = (SlotState.ACTIVE, SlotState.TRIAL)
"""The states in which a slot's model answers."""


class Packaging(Enum):
    """What a device without our objects takes as a package: the artifact's bytes, or with the signed manifest before them."""

    ARTIFACT = "artifact"
    MODULE = "module"


@record
class Lwm2mTraits:
    """How a kind of board that has only standard objects is recognised over LwM2M, and how it takes a model.

    `endpoint`, `manufacturer` and `model_number` are patterns with `*` and `?`; all must fit. `carrier` is the object that takes
    packages: 9 (software management) or 5 (firmware update, where that object carries a model). `instances` of /9 that are for
    models (None: empty ones, and those that the gateway wrote). `transfers`: "push" (Block1) and "pull" (the device fetches),
    in the order in which they are tried.
    `tells_version`: the device reads name and version out of the package, so that none told is a wrong package.
    """

    endpoint: str = "*"
    manufacturer: str = "*"
    model_number: str = "*"
    carrier: int = 9
    packaging: Packaging = Packaging.ARTIFACT
    transfers: tuple[str, ...] = ("push", "pull")
    instances: tuple[int, ...] | None = None
    slot_bytes: int = 65_536
    arena_bytes: int = 32_768
    block_bytes: int = 512
    tells_version: bool = False
    energy_source: EnergySource = EnergySource.MAINS


@record
class Profile:
    """Prior knowledge of a kind of board. `source` says where the figures come from.

    `macs_per_s` and `energy_nj_per_mac` hold for int8 models on the named runtime; `invoke_s` is the fixed cost of one call.
    `lwm2m` None: boards of this kind attach with our objects, or over MQTT.
    """

    board: str
    cpu: str
    clock_mhz: int
    ram_bytes: int
    flash_bytes: int
    runtime: str
    macs_per_s: float
    energy_nj_per_mac: float
    invoke_s: float
    source: str
    lwm2m: Lwm2mTraits | None = None


@record
class Sensor:
    """A source of samples on the device. `spec` is how raw samples are stored; `preprocessing` what was done to them."""

    name: str
    spec: TensorSpec
    preprocessing: str = ""


@record
class Slot:
    """A place in flash for one model. Model, version and digest are None in an empty slot."""

    index: int
    state: SlotState
    model: ModelName | None = None
    version: int | None = None
    digest: Digest | None = None


@record
class Capabilities:
    """What one device says of itself. `operators` None: it did not say (then any operator is assumed to be supported).

    `arena_bytes` is the RAM it gives to the tensor arena, `slot_bytes` the largest artifact a slot takes,
    `chunk_bytes` the largest chunk its receive buffer takes, `deflate_bits` says that it decodes DEFLATE with a window of so
    many bits (9..15). `page_bytes` says that it keeps what it receives encoded in the slot beside what it decodes to, each in
    whole pages of so many bytes (None: it decodes as it receives). `accelerator` is its NPU, such as `ethos-u55-128` ("": none).
    `returns_bytes` is the largest raw sample that it sends with an answer that is not sure (0: it sends none).
    `drops_models`: it drops a model that it is told to, and lets one give way to another model that is accepted.
    `runs_on_request` False: it takes models and uses them by itself; nobody can ask it for an inference.
    """

    board: str
    cpu: str
    clock_mhz: int
    ram_bytes: int
    flash_bytes: int
    runtime: str
    runtime_version: str
    runtime_abi: int
    arena_bytes: int
    slot_bytes: int
    chunk_bytes: int
    energy_source: EnergySource
    operators: frozenset[str] | None
    sensors: tuple[Sensor, ...]
    deflate_bits: int | None = None
    accelerator: str = ""
    page_bytes: int | None = None
    runs_on_request: bool = True
    drops_models: bool = False
    returns_bytes: int = 0

    def sensor(self, name: str) -> Sensor | None:
        """Return the sensor of that name."""
        return next((each for each in self.sensors if each.name == name), None)


class Bearer(Enum):
    """What carries a device's messages on its last hop."""

    CELLULAR = "cellular"
    LTE = "lte"
    NB_IOT = "nb-iot"
    WLAN = "wlan"
    BLUETOOTH = "bluetooth"
    IEEE_802_15_4 = "802.15.4"
    WIRED = "wired"


@record
class Connectivity:
    """How a device says that it is connected; None and () where it does not say.

    `signal_dbm` and `link_quality` (as the bearer counts it) are of when it was read. `has_choice`: it has other bearers, too.
    """

    bearer: Bearer | None = None
    signal_dbm: int | None = None
    link_quality: int | None = None
    addresses: tuple[str, ...] = ()
    has_choice: bool = False


@record
class Report:
    """A device's birth message, checked: what it is and what it holds now. `battery` is 0..1, None when not reported."""

    capabilities: Capabilities
    slots: tuple[Slot, ...]
    battery: float | None = None
    connectivity: Connectivity | None = None

    @property
    def bearer(self) -> Bearer | None:
        """What carries its messages, None where it does not say."""
        return None if self.connectivity is None else self.connectivity.bearer

    def is_news_to(self, before: "Report | None") -> bool:
        """Return whether it says more than another reception: a signal changes all the time."""
        if before is None:
            return True
        mine, theirs = (replace(each, connectivity=None) for each in (self, before))
        return mine != theirs or self.bearer is not before.bearer


@record
class Born:
    """The device connected, or its report changed."""

    device: DeviceId
    link: LinkKind
    report: Report


@record
class Lost:
    """The device went away (last will, lifetime over)."""

    device: DeviceId
    reason: str


class PushPhase(Enum):
    """What a device reports of a push, in the order it happens; REJECTED and FAILED may come at any time."""

    WANT = "want"
    WRITTEN = "written"
    VERIFIED = "verified"
    TESTED = "tested"
    TRIAL = "trial"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"


@record
class PushReport:
    """One report of a device about a push. `offset` and `length` in bytes come with WANT; `reason` with REJECTED/FAILED."""

    device: DeviceId
    push: PushId
    phase: PushPhase
    offset: int = 0
    length: int = 0
    reason: str = ""


@record
class RunResult:
    """What came back from a device's run. `output` is raw, in the variant's dtype; `sample` numbers the sensor sample used.

    `has_sample`: that sample's raw bytes follow in `output`.
    """

    output: bytes
    compute_s: float
    energy_uj: float
    sample: int
    elapsed_s: float
    has_sample: bool = False


@record
class Inferred:
    """A device ran the model of a slot by itself, on its sensor of that index, and told the result. Nobody had asked."""

    device: DeviceId
    slot: int
    version: int
    sensor: int
    result: RunResult


DeviceEvent = Born | Lost | PushReport | Inferred


@record
class SampleResult:
    """A raw sensor sample. `content` is stored as the sensor's spec says; `energy_uj` what reading and sending it cost."""

    content: bytes
    sample: int
    energy_uj: float
    elapsed_s: float


@record
class LinkQuality:
    """What was measured of a link: seconds for a small message and its answer, bytes per second, lost share (0..1)."""

    rtt_s: float
    goodput_bytes_per_s: float
    loss: float


@record
class DeviceView:
    """One device as everybody sees it: an immutable snapshot. `report` None: never seen since it was stored.

    `running` is how many requests are on it now; `desired` what the gateway wants there, as (model, version) pairs. `held_off`
    says why nothing is placed there unasked ("": it may be).
    """

    id: DeviceId
    approved: bool
    online: bool
    link: LinkKind
    report: Report | None
    quality: LinkQuality
    profile: Profile | None
    desired: tuple[tuple[ModelName, int], ...] = ()
    running: int = 0
    note: str = ""
    held_off: str = ""
    revoked: bool = False


@record
class KnownDevice:
    """What survives a restart of a device: whether the operator let it in. `first_seen_at` in seconds since 1970.

    `revoked`: the operator took it out, and only the operator lets it in again.
    """

    device: DeviceId
    approved: bool
    first_seen_at: float
    revoked: bool = False


@record
class Departure:
    """What is written when a device is taken out: nothing is wanted there any more. `row` None: every row about it goes.

    `orders` are the standing orders that end with it.
    """

    device: DeviceId
    row: KnownDevice | None = None
    orders: tuple[str, ...] = ()
