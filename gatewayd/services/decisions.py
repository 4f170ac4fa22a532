"""What was decided for the latest requests, kept for `why`."""

from collections import OrderedDict
from collections.abc import Callable

from gatewayd.core.decision import Decision
from gatewayd.core.errors import NotFound
from gatewayd.core.names import RequestId


class Decisions:
    """A ring in memory: when `capacity` is reached the oldest decision is forgotten. `log` is given each one, too."""

    def __init__(self, capacity: int, *, log: Callable[[Decision], None] | None = None) -> None:
        self._capacity = capacity
        self._log = log
        self._kept: OrderedDict[RequestId, Decision] = OrderedDict()

    def record(self, decision: Decision) -> None:
        """Keep `decision` as the newest; the same request id again replaces its entry."""
        self._kept[decision.request] = decision
        self._kept.move_to_end(decision.request)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        if self._log is not None:
            self._log(decision)

    def why(self, request: RequestId) -> Decision:
        """Return the decision. Raises: NotFound when it was never made here or is forgotten."""
        found = self._kept.get(request)
        if found is None:
            kept = f"the latest {self._capacity} since the start are"
            message = f"no decision about request {request!r} is kept ({kept}, and decisions.file keeps more on disk)"
            raise NotFound(message)
        return found
