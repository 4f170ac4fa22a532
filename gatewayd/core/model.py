"""What a model is: versions, variants, signatures, and where each variant can run. Values only."""

from enum import Enum

from gatewayd.core.names import Digest, ModelName
from gatewayd.core.record import record
from gatewayd.core.tensor import Tensor, TensorSpec


@record
class Operator:
    """One kind of operator in a model, e.g. CONV_2D version 3, and how many nodes use it."""

    name: str
    version: int
    count: int


@record
class Forecast:
    """The arena a model was predicted to need, where no runtime was asked: bytes per build of TensorFlow Lite Micro.

    None: it cannot be predicted, for `reason`. `objections` say why that runtime would refuse the model, whatever the arena.
    Source: `gatewayd.core.arena` and `gatewayd.core.tflm`.
    """

    host_bytes: int | None
    cortex_m_bytes: int | None
    cmsis_nn_bytes: int | None
    reason: str = ""
    objections: tuple[str, ...] = ()


@record
class Structure:
    """What a static reading of a model file found, without running it.

    `macs` are multiply-accumulates of one inference; `weights_bytes` what the constant buffers hold. `forecast` None: not made
    (a file of another kind, or read before forecasts were). `accelerator` is what the file was compiled for ("": nothing).
    """

    operators: tuple[Operator, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: int
    weights_bytes: int
    forecast: Forecast | None = None
    accelerator: str = ""


@record
class Signature:
    """The tensor contract of a version, the same for all its variants.

    Inputs and outputs are in the real-valued domain (FP32). `labels` name the elements of the first output ((): none).
    `preprocessing` is the id of what turned sensor values into the input ("" when the input is the sensor's own values).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    preprocessing: str = ""


class Place(Enum):
    """The two kinds of place a variant can run."""

    NODE = "node"
    DEVICE = "device"


@record
class Verdict:
    """What admission found for one engine: `reason` says why not, or what was measured. `latency_s` None: not measured."""

    place: Place
    engine: str
    runs: bool
    reason: str
    latency_s: float | None = None


class RunsOn(Enum):
    """The summary of all verdicts on a variant."""

    ANYWHERE = "node and devices"
    NODE_ONLY = "node-only"
    DEVICE_ONLY = "device-only"
    NOWHERE = "refused"


@record
class SelfTest:
    """A test vector a device runs before it activates a model: input bytes come from a stated generator and `seed`.

    `expected` is the raw first output in the variant's dtype, or as much of its beginning as a manifest has room for; each
    element may differ by `tolerance` units. Source of the generator and of what a unit is: `gatewayd.core.selftest`.
    """

    seed: int
    expected: bytes
    tolerance: int


@record
class Vector:
    """What a variant answers to one of its version's samples: the first output in the variant's dtype, or its beginning.

    `sample` numbers the sample in the version's blob; each element may differ by `tolerance` units, as in a self-test.
    """

    sample: int
    expected: bytes
    tolerance: int


@record
class About:
    """What people say of a version: a licence (SPDX), a model card in Markdown, tags (key, value), and where it came from."""

    licence: str = ""
    card: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    source: str = ""


NOTHING_SAID = About()


@record
class Trial:
    """What trying a model file in child processes found. `arena_bytes` and `self_test` None: no TFLM here."""

    verdicts: tuple[Verdict, ...]
    arena_bytes: int | None
    self_test: SelfTest | None


@record
class NodeRun:
    """One inference on the node: outputs in the variant's own dtype, seconds waited and computed, and the engine that ran it."""

    outputs: tuple[Tensor, ...]
    queue_s: float
    compute_s: float
    engine: str = ""


@record
class Seat:
    """One loaded variant on the node: its engine, process (None: between two), requests here, recent mean of computing."""

    digest: Digest
    variant: str
    engine: str
    pid: int | None
    waiting: int
    compute_s: float


@record
class Variant:
    """One build of a version. `arena_bytes` is the smallest arena that loads and invokes on TFLM (None: not known)."""

    name: str
    digest: Digest
    size_bytes: int
    structure: Structure
    verdicts: tuple[Verdict, ...]
    arena_bytes: int | None = None
    self_test: SelfTest | None = None
    vectors: tuple[Vector, ...] = ()

    @property
    def runs_on(self) -> RunsOn:
        """Sum the verdicts up."""
        places = {each.place for each in self.verdicts if each.runs}
        if places == {Place.NODE, Place.DEVICE}:
            return RunsOn.ANYWHERE
        if not places:
            return RunsOn.NOWHERE
        return RunsOn.NODE_ONLY if Place.NODE in places else RunsOn.DEVICE_ONLY

    def verdict(self, place: Place) -> Verdict | None:
        """Return the best verdict for `place`: a running one with the lowest latency, else a refusal, else None."""
        found = [each for each in self.verdicts if each.place is place]
        running = [each for each in found if each.runs]
        if running:
            return min(running, key=lambda each: each.latency_s if each.latency_s is not None else float("inf"))
        return found[0] if found else None


@record
class Version:
    """An immutable release; `number` is also the anti-rollback sequence. `created_at` is wall time in seconds since 1970.

    `samples` names the artifact that holds the samples it was given, one after the other, as the signature's first input.
    """

    model: ModelName
    number: int
    signature: Signature
    variants: tuple[Variant, ...]
    created_at: float
    note: str = ""
    about: About = NOTHING_SAID
    samples: Digest | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"

    def digests(self) -> frozenset[Digest]:
        """Return every artifact the version names."""
        named = {variant.digest for variant in self.variants}
        return frozenset(named if self.samples is None else named | {self.samples})

    def runnable(self, place: Place) -> tuple[Variant, ...]:
        """Return the variants that run at `place`, the fastest first."""
        verdicts = [(variant, variant.verdict(place)) for variant in self.variants]
        running = [(v, d.latency_s or 0.0) for v, d in verdicts if d is not None and d.runs]
        return tuple(v for v, _ in sorted(running, key=lambda pair: pair[1]))
