"""An option finder over given trackers, with one class of requests."""

from gatewayd.core.cost import Weights
from gatewayd.services.candidates import Candidates
from gatewayd.services.estimates import Estimates
from gatewayd.services.options import OptionFinder
from gatewayd.services.ports import NodeRuntime
from gatewayd.services.tracking import Tracking


def finder_of(tracking: Tracking, estimates: Estimates, runtime: NodeRuntime) -> OptionFinder:
    """Wire a finder and the candidate index behind it."""
    return OptionFinder(
        tracking=tracking,
        estimates=estimates,
        runtime=runtime,
        classes={"default": Weights()},
        candidates=Candidates(tracking=tracking, estimates=estimates),
    )
