import shutil
import subprocess
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.adapters.metrics import LabelCap, Metrics
from gatewayd.core.cost import Costs
from gatewayd.core.events import (
    AcceleratorChanged,
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    JoiningChanged,
    ModelAdded,
    PushMoved,
    RequestFailed,
    RequestServed,
    VariantQuarantined,
    VersionRetired,
    WorkerEnded,
)
from gatewayd.core.names import DeviceId, Digest, ModelName, ModelRef, PushId, RequestId
from gatewayd.core.request import NODE, InferenceRequest, InferenceResult, Measured, Target
from gatewayd.core.update import Push, PushState

KWS = ModelName("kws")
CAM = DeviceId("cam-7")
REQUEST = InferenceRequest(RequestId("r-1"), ModelRef(KWS), deadline_s=5.0, raw=b"x")
RESULT = InferenceResult(
    id=RequestId("r-1"),
    model="kws",
    version=1,
    variant="tflite-int8",
    outputs=(),
    ran_on=Target(CAM),
    reason="cheapest",
    predicted=Costs(latency_s=0.02, energy_uj=10.0, link_bytes=8.0, failure=0.0),
    measured=Measured(total_s=0.025, energy_uj=12.5, link_bytes=44),
)
PUSH = Push(
    id=PushId(7),
    device=CAM,
    model=KWS,
    version=1,
    variant="tflite-int8",
    digest=Digest("a" * 64),
    size_bytes=4096,
    state=PushState.OFFERED,
    deadline_s=50.0,
)
EVENTS: tuple[GatewayEvent, ...] = (
    RequestServed(REQUEST, RESULT),
    RequestServed(REQUEST, replace(RESULT, ran_on=NODE, predicted=None, measured=Measured(total_s=0.002))),
    RequestFailed(REQUEST, "no_placement", "x", 0.001),
    PushMoved(PUSH),
    PushMoved(replace(PUSH, state=PushState.TRANSFERRING, offset=1024)),
    PushMoved(replace(PUSH, state=PushState.TRANSFERRING, offset=4096)),
    PushMoved(replace(PUSH, state=PushState.ACCEPTED, offset=4096)),
    PushMoved(replace(PUSH, state=PushState.ACCEPTED, offset=4096)),
    DeviceChanged(CAM, online=True, what="born"),
    JoiningChanged("open", 120.0, 0, "ann"),
    ModelAdded(KWS, 1),
    AliasMoved(KWS, "stable", 1),
    VersionRetired(KWS, 1, retired=True),
    ArtifactsCollected(2, 300),
    InputRefused("http", "bad_request", "x"),
    WorkerEnded("tflite-int8", Digest("a" * 64), "litert", "SIGSEGV"),
    VariantQuarantined("tflite-int8", Digest("a" * 64), "SIGSEGV"),
    AcceleratorChanged("edgetpu", present=False, detail="unplugged", engines=("tpu",)),
)


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("gatewayd_") and not sample.name.endswith("_bucket")
    }


def fed(*events: GatewayEvent, max_models: int = 50) -> Metrics:
    metrics = Metrics(version="0.1.0", devices_online=lambda: 3, max_models=max_models)
    for event in events:
        metrics.observe(event)
    return metrics


def test_every_kind_of_event_is_counted() -> None:
    assert samples(fed(*EVENTS)) == pytest.approx(
        {
            "gatewayd_requests_total model=kws outcome=ok target=device": 1,
            "gatewayd_requests_total model=kws outcome=ok target=node": 1,
            "gatewayd_requests_total model=kws outcome=no_placement target=none": 1,
            "gatewayd_request_duration_seconds_count model=kws target=device": 1,
            "gatewayd_request_duration_seconds_sum model=kws target=device": 0.025,
            "gatewayd_request_duration_seconds_count model=kws target=node": 1,
            "gatewayd_request_duration_seconds_sum model=kws target=node": 0.002,
            "gatewayd_request_duration_seconds_count model=kws target=none": 1,
            "gatewayd_request_duration_seconds_sum model=kws target=none": 0.001,
            "gatewayd_prediction_latency_ratio_count target=device": 1,
            "gatewayd_prediction_latency_ratio_sum target=device": 0.8,
            "gatewayd_prediction_energy_ratio_count target=device": 1,
            "gatewayd_prediction_energy_ratio_sum target=device": 0.8,
            "gatewayd_device_energy_joules_total model=kws": 0.0000125,
            "gatewayd_device_link_bytes_total model=kws": 44,
            "gatewayd_pushes_total state=accepted": 1,
            "gatewayd_push_bytes_total": 4096,
            "gatewayd_inputs_refused_total code=bad_request where=http": 1,
            "gatewayd_models_added_total": 1,
            "gatewayd_alias_moves_total": 1,
            "gatewayd_retirements_total": 1,
            "gatewayd_artifacts_collected_bytes_total": 300,
            "gatewayd_device_changes_total": 1,
            "gatewayd_worker_deaths_total engine=litert": 1,
            "gatewayd_variants_quarantined_total": 1,
            "gatewayd_accelerator_changes_total change=went kind=edgetpu": 1,
            "gatewayd_join_window_seconds": 120,
            "gatewayd_devices_online": 3,
            "gatewayd_build_info version=0.1.0": 1,
        }
    )


def test_a_push_refused_at_once_is_counted() -> None:
    found = samples(fed(PushMoved(replace(PUSH, state=PushState.REJECTED, reason="too small"))))
    assert (found["gatewayd_pushes_total state=rejected"], found["gatewayd_push_bytes_total"]) == (1, 0)


def test_a_push_that_starts_again_counts_its_bytes_again() -> None:
    offsets = (0, 2048, 0, 4096)
    events = [PushMoved(replace(PUSH, state=PushState.TRANSFERRING, offset=offset)) for offset in offsets]
    assert samples(fed(*events))["gatewayd_push_bytes_total"] == 2048 + 4096


def test_models_beyond_the_cap_are_other() -> None:
    served = [RequestServed(REQUEST, replace(RESULT, model=f"m{number}")) for number in range(5)]
    found = samples(fed(*served, max_models=2))
    assert found["gatewayd_requests_total model=m1 outcome=ok target=device"] == 1
    assert found["gatewayd_requests_total model=other outcome=ok target=device"] == 3


def test_names_that_callers_make_up_take_no_label() -> None:
    made_up = [replace(REQUEST, model=ModelRef(ModelName(f"m{number}"))) for number in range(100)]
    found = samples(fed(*(RequestFailed(request, "unknown_model", "x", 0.0) for request in made_up)))
    assert found["gatewayd_requests_total model=other outcome=unknown_model target=none"] == 100


def test_the_cap_keeps_the_first() -> None:
    cap = LabelCap(2)
    assert [cap.admit(name) for name in "abcab"] == ["a", "b", "other", "a", "b"]


def test_gauges_are_read_at_each_scrape() -> None:
    depth = [4.0]
    metrics = fed()
    metrics.track("gatewayd_queue_requests", "Requests that wait.", lambda: depth[0])
    before = samples(metrics)["gatewayd_queue_requests"]
    depth[0] = 9.0
    assert (before, samples(metrics)["gatewayd_queue_requests"]) == (4.0, 9.0)


def test_two_of_them_do_not_meet() -> None:
    fed(*EVENTS)
    assert "gatewayd_models_added_total" in samples(fed())
    assert samples(fed())["gatewayd_models_added_total"] == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say() -> None:
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=fed(*EVENTS).text(), capture_output=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")
