"""What the services announce: edges publish it, metrics count it, logs write it. Values only."""

from gatewayd.core.dropping import Drop
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.record import record
from gatewayd.core.request import InferenceRequest, InferenceResult
from gatewayd.core.standing import Progress, StandingOrder
from gatewayd.core.update import Push


@record
class RequestServed:
    """A request was answered."""

    request: InferenceRequest
    result: InferenceResult


@record
class RequestFailed:
    """A request ended in an error; `code` is the error's stable name, `total_s` what it took."""

    request: InferenceRequest
    code: str
    message: str
    total_s: float


@record
class PushMoved:
    """A push changed state or made progress."""

    push: Push


@record
class ModelDropped:
    """What became of a model that a device was told to let go."""

    drop: Drop


@record
class DeviceChanged:
    """A device came, went, was approved or changed what it holds; `what` says which in a word or two."""

    device: DeviceId
    online: bool
    what: str


@record
class JoiningChanged:
    """The door for newcomers opened for `seconds`, or closed; `admitted` came in, `who` did it ("time": it was over)."""

    what: str
    seconds: float
    admitted: int
    who: str


@record
class ModelAdded:
    """A version was admitted."""

    model: ModelName
    version: int


@record
class AliasMoved:
    """An alias points elsewhere now; `version` None: it was removed."""

    model: ModelName
    alias: str
    version: int | None


@record
class VersionRetired:
    """A version was taken out of use, or (`retired` false) brought back."""

    model: ModelName
    version: int
    retired: bool


@record
class ArtifactsCollected:
    """Artifacts that nothing needs were removed."""

    count: int
    size_bytes: int


@record
class InputRefused:
    """Something from outside was malformed or over a limit; `where` is the edge or link it came by."""

    where: str
    code: str
    message: str


@record
class WorkerEnded:
    """A model took its worker process down (crash, hang, memory); `reason` is what the process died of."""

    variant: str
    digest: Digest
    engine: str
    reason: str


@record
class VariantQuarantined:
    """A variant killed its worker twice in a row and is not run on the node until it is released."""

    variant: str
    digest: Digest
    reason: str


@record
class AcceleratorChanged:
    """An accelerator came or went; `engines` are the labels of those that use it."""

    kind: str
    present: bool
    detail: str
    engines: tuple[str, ...]


@record
class OrderAnswered:
    """A request of a standing order was answered."""

    order: StandingOrder
    result: InferenceResult


@record
class OrderFailed:
    """Requests of a standing order fail: `failing` in a row by now. Told less and less often while it lasts."""

    order: StandingOrder
    code: str
    message: str
    failing: int


@record
class OrderEnded:
    """A standing order was stopped, or its time is over."""

    order: StandingOrder
    progress: Progress
    why: str


OrderEvent = OrderAnswered | OrderFailed | OrderEnded
NodeEvent = WorkerEnded | VariantQuarantined | AcceleratorChanged
RegistryEvent = ModelAdded | AliasMoved | VersionRetired | ArtifactsCollected
GatewayEvent = (
    RequestServed
    | RequestFailed
    | PushMoved
    | ModelDropped
    | DeviceChanged
    | JoiningChanged
    | RegistryEvent
    | InputRefused
    | NodeEvent
    | OrderEvent
)
