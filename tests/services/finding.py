"""An option finder over given trackers, with one class of requests unless told."""

from collections.abc import Mapping

from gatewayd.core.presets import RequestClass
from gatewayd.services.candidates import Candidates
from gatewayd.services.estimates import Estimates
from gatewayd.services.options import OptionFinder
from gatewayd.services.ports import NodeRuntime
from gatewayd.services.tracking import Tracking


def finder_of(
    tracking: Tracking, estimates: Estimates, runtime: NodeRuntime, classes: Mapping[str, RequestClass] | None = None
) -> OptionFinder:
    """Wire a finder and the candidate index behind it."""
    return OptionFinder(
        estimates=estimates,
        runtime=runtime,
        classes=classes or {"default": RequestClass()},
        candidates=Candidates(tracking=tracking, estimates=estimates),
    )
