"""The decision where one request runs: hard constraints with their reasons, then the cheapest of what is left."""

from dataclasses import dataclass

from gatewayd.core.cost import Costs
from gatewayd.core.names import RequestId
from gatewayd.core.request import Measured, Target


@dataclass(frozen=True, slots=True)
class Option:
    """One place a request could run. Either `refusal` says why not, or `costs` and `total` (J, see `Weights`) are predicted."""

    target: Target
    variant: str = ""
    costs: Costs | None = None
    total: float = float("inf")
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The outcome: feasible options cheapest first, then the refused ones; `reason` in words for people."""

    options: tuple[Option, ...]
    reason: str

    @property
    def feasible(self) -> tuple[Option, ...]:
        """Options that no constraint refuses, the cheapest first."""
        return tuple(option for option in self.options if not option.refusal)


@dataclass(frozen=True, slots=True)
class Decision:
    """What `why` tells of one request: the placement, what was tried in turn, and how it ended."""

    request: RequestId
    model: str
    version: int
    placement: Placement
    attempts: tuple[str, ...]
    outcome: str
    served_by: Target | None
    measured: Measured | None
