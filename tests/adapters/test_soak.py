"""The soak of `make soak-node`, short: the real runtime and registry, real workers, versions swapped under load."""

from pathlib import Path

from tests.engine_environments import require_engine
from tests.soak import soak

_MAX_GROWTH = 0.05  # the long run's bound is 1 %; a short one has little to average over


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_versions_swapped_under_load_fail_no_request_and_leave_nothing_behind() -> None:
    require_engine("litert")
    descriptors = _descriptors()
    run = await soak(20_000, 20)
    assert run.failures == []
    assert run.served >= 20_000
    assert run.growth < _MAX_GROWTH
    assert _descriptors() <= descriptors
