"""One decision with everything that led to it and came of it: what `why` tells and the decision log keeps."""

from gatewayd.core.names import DeviceId, RequestId
from gatewayd.core.placement import Placement
from gatewayd.core.record import record
from gatewayd.core.request import Measured, Target


@record
class Rent:
    """Rent or buy for the pair that a request was about: J saved up after it (`saved`), over how many requests.

    `price` is what a push would cost, in J (None: it was not worked out). `state` says in a few words where the pair stands.
    """

    device: DeviceId
    saved: float
    requests: int
    price: float | None
    state: str


@record
class Decision:
    """What `why` tells of one request: the placement, what was tried in turn, and how it ended.

    `decided_at` is wall time in seconds since 1970. `opinion` tells what became of a second opinion ("": none was named).
    """

    request: RequestId
    model: str
    version: int
    placement: Placement
    attempts: tuple[str, ...]
    outcome: str
    served_by: Target | None
    measured: Measured | None
    request_class: str = "default"
    decided_at: float = 0.0
    rent: Rent | None = None
    opinion: str = ""
