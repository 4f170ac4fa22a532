import json
import struct
from dataclasses import replace

import pytest

from gatewayd.core.events import (
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    JoiningChanged,
    ModelAdded,
    OrderAnswered,
    OrderEnded,
    OrderFailed,
    PushMoved,
    RequestFailed,
    VersionRetired,
)
from gatewayd.core.names import Alias, RequestId, parse_model_ref
from gatewayd.core.request import InferenceRequest, InferenceResult, Measured, SensorRef, Target
from gatewayd.core.standing import Progress, StandingOrder
from gatewayd.core.tensor import DType, Tensor
from gatewayd.edges.mqtt_announcements import event_message, offline_message, online_message
from gatewayd.wire.topics import Topics
from tests.api_values import CAM, KWS, PUSH

TOPICS = Topics("gatewayd", "edge-1")
REQUEST = InferenceRequest(RequestId("r-1"), parse_model_ref("kws:canary"), deadline_s=1.0)


def test_the_status_is_retained_and_says_since_when() -> None:
    online, offline = online_message(TOPICS, version="0.1.0", since=1.7e9), offline_message(TOPICS)
    assert json.loads(online.payload) == {"state": "online", "node": "edge-1", "version": "0.1.0", "since": 1.7e9}
    assert json.loads(offline.payload) == {"state": "offline", "node": "edge-1"}
    for message in (online, offline):
        assert (message.topic, message.retain, message.qos) == ("gatewayd/edge-1/status", True, 1)


@pytest.mark.parametrize(
    ("event", "kind", "document"),
    [
        (
            JoiningChanged("closed", 0.0, 3, "time"),
            "joining",
            {"what": "closed", "seconds": 0.0, "admitted": 3, "who": "time"},
        ),
        (DeviceChanged(CAM, online=True, what="born"), "device", {"device": "cam-7", "online": True, "what": "born"}),
        (ModelAdded(KWS, 2), "model", {"what": "added", "model": "kws", "version": 2}),
        (VersionRetired(KWS, 2, retired=True), "model", {"what": "retired", "model": "kws", "version": 2}),
        (VersionRetired(KWS, 2, retired=False), "model", {"what": "brought back", "model": "kws", "version": 2}),
        (ArtifactsCollected(2, 300), "model", {"what": "artifacts collected", "count": 2, "size": 300}),
        (
            AliasMoved(KWS, Alias("stable"), None),
            "model",
            {"what": "alias removed", "model": "kws", "alias": "stable", "version": None},
        ),
        (
            AliasMoved(KWS, Alias("stable"), 2),
            "model",
            {"what": "alias moved", "model": "kws", "alias": "stable", "version": 2},
        ),
        (
            RequestFailed(REQUEST, "overloaded", "later", 0.5),
            "request",
            {
                "id": "r-1",
                "model": "kws:canary",
                "error": {"code": "overloaded", "message": "later"},
                "total_ms": 500.0,
            },
        ),
    ],
)
def test_an_event_becomes_a_message(event: GatewayEvent, kind: str, document: object) -> None:
    message = event_message(TOPICS, event)
    assert message is not None
    assert (message.topic, message.qos, message.retain) == (f"gatewayd/edge-1/event/{kind}", 0, False)
    assert json.loads(message.payload) == document


def test_a_push_tells_its_progress() -> None:
    message = event_message(TOPICS, PushMoved(PUSH))
    assert message is not None
    told = json.loads(message.payload)
    assert (told["push"], told["device"], told["state"], told["offset"], told["size"]) == (
        7,
        "cam-7",
        "transferring",
        9216,
        18432,
    )


def test_refused_input_is_not_announced() -> None:
    assert event_message(TOPICS, InputRefused("mqtt", "bad_request", "x")) is None


ORDER = StandingOrder(
    "watch",
    parse_model_ref("kws"),
    SensorRef(CAM, "mic"),
    period_s=1.0,
    deadline_s=1.0,
    until=None,
    who="ann",
    started_at=1.7e9,
)


def test_what_a_standing_order_brings_goes_to_its_topic() -> None:
    output = Tensor("scores", DType.FP32, (1, 2), struct.pack("<2f", 0.25, 0.75))
    result = InferenceResult(
        RequestId("r-9"), "kws", 1, "int8", (output,), Target(CAM), "cheapest", None, Measured(0.01), label="yes"
    )
    message = event_message(TOPICS, OrderAnswered(ORDER, result))
    assert message is not None
    assert (message.topic, message.qos, message.retain) == ("gatewayd/edge-1/stream/watch", 0, False)
    document = json.loads(message.payload)
    assert (document["order"], document["id"], document["outputs"][0]["data"]) == ("watch", "r-9", [0.25, 0.75])
    assert document["parameters"]["ran_on"] == "device:cam-7"


def test_a_standing_order_names_its_own_topic_and_quality_of_service() -> None:
    order = replace(ORDER, topic="reply/watch", qos=1)
    failed = event_message(TOPICS, OrderFailed(order, "device_unreachable", "cam-7 is offline", 4))
    ended = event_message(TOPICS, OrderEnded(order, Progress(answered=3, failed=4, missed=5), "stopped (ann)"))
    for message in (failed, ended):
        assert message is not None
        assert (message.topic, message.qos) == ("reply/watch", 1)
    assert failed is not None
    assert ended is not None
    assert json.loads(failed.payload)["error"] == {"code": "device_unreachable", "message": "cam-7 is offline"}
    counts = {"answered": 3, "failed": 4, "missed": 5}
    known = {"order": "watch", "model": "kws", "device": "cam-7", "ended": "stopped (ann)"}
    assert json.loads(ended.payload) == known | counts
