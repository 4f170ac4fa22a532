"""A small version of `make bench-agreement`: the simulator and a real daemon with real boards place the same requests alike."""

from pathlib import Path

import pytest

from gatewayd.simulate.carriage import Overheads
from tests.broker import Broker
from tests.engine_environments import require_engine

agreement = pytest.importorskip("bench.agreement")
agreement_cases = pytest.importorskip("bench.agreement_cases")

CASE = agreement_cases.Case(
    "a small one",
    (
        agreement_cases.Board("lamp", "nucleo-h7a3zi-q", ("wifi", 0.01, 60_000.0), "frame", seed=1),
        agreement_cases.Board("fuse", "nucleo-h7a3zi-q", ("wifi", 0.01, 60_000.0), "frame", "lwm2m", seed=2),
    ),
    tuple({"devices": name, "model": "frame", "per_s": 5.0, "deadline_s": 10.0} for name in ("lamp", "fuse")),
    duration_s=3.0,
    seed=3,
)


def test_both_place_requests_alike(tmp_path: Path, broker: Broker) -> None:
    require_engine("litert")
    # What a machine adds matters to seconds, which are not held against each other here.
    found = agreement.one(CASE, 0, tmp_path, broker.port, agreement_cases.Machine(Overheads()), repeats=0)
    assert found.undecided == 0
    assert found.unserved == (0, 0)
    for pushes in (found.real_pushes, found.simulated_pushes):
        assert sorted(device for device, _, _ in pushes) == ["fuse-1", "lamp-1"]
    assert 0 < min(found.on_device) <= max(found.on_device) < found.requests
    assert found.share >= 0.75
