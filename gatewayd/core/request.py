"""One inference request and its answer."""

from dataclasses import field
from enum import Enum

from gatewayd.core.cost import Costs
from gatewayd.core.names import DeviceId, ModelRef, RequestId
from gatewayd.core.record import record
from gatewayd.core.tensor import Tensor


class Privacy(Enum):
    """Where the input may go."""

    ANY = "any"
    STAY_ON_DEVICE = "stay_on_device"


@record
class SensorRef:
    """Data that is still at a sensor: `{"device": "cam-7", "input": "frame"}`."""

    device: DeviceId
    sensor: str


@record
class Target:
    """Where an inference runs: the node (device None) or a device."""

    device: DeviceId | None = None

    def __str__(self) -> str:
        return "node" if self.device is None else f"device:{self.device}"


NODE = Target()


@record
class Repeats:
    """What is known of the requests to come: so many a second, for `left_s` more seconds (inf: no end in sight)."""

    per_s: float
    left_s: float


@record
class InferenceRequest:
    """Exactly one of `inputs`, `raw` (both inline) and `source` (by reference) is given. `deadline_s` is on the monotonic clock.

    `raw` is the content of the model's only input, as the signature stores it. `pin` forces a target, `prefer`
    takes one whatever it costs as long as it can serve; None leaves the choice to placement. `stream` names the state
    that a model with one keeps between requests ("": the one all share), `is_reset` makes it anew first. `outputs` names
    those wanted, in this order (empty: all). `repeats` is there when it is one of a standing order's.
    """

    id: RequestId
    model: ModelRef
    deadline_s: float
    inputs: tuple[Tensor, ...] = ()
    raw: bytes | None = None
    source: SensorRef | None = None
    pin: Target | None = None
    prefer: Target | None = None
    privacy: Privacy = Privacy.ANY
    request_class: str = "default"
    stream: str = ""
    is_reset: bool = False
    outputs: tuple[str, ...] = ()
    repeats: Repeats | None = None


@record
class Measured:
    """What one request cost. Seconds; µJ on the device (0 on the node); bytes over the device's link."""

    total_s: float
    queue_s: float = 0.0
    transfer_s: float = 0.0
    compute_s: float = 0.0
    energy_uj: float = 0.0
    link_bytes: int = 0

    def in_all(self, total_s: float) -> "Measured":
        """Return the same with another total (a tenth of the cost of `replace`, on every request)."""
        return Measured(total_s, self.queue_s, self.transfer_s, self.compute_s, self.energy_uj, self.link_bytes)


@record
class InferenceResult:
    """The answer. `sample` numbers the sensor sample used, if any.

    `outputs` are real-valued (FP32) as the signature says, or stored values where the inputs were.
    `label` and `score` are the likeliest label and its value where the signature has labels.
    """

    id: RequestId
    model: str
    version: int
    variant: str
    outputs: tuple[Tensor, ...]
    ran_on: Target
    reason: str
    predicted: Costs | None
    measured: Measured
    label: str | None = None
    score: float | None = None
    sample: int | None = None
    attempts: tuple[str, ...] = field(default=())
