import json

import pytest

from gatewayd.core.events import (
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    JoiningChanged,
    ModelAdded,
    PushMoved,
    RequestFailed,
    VersionRetired,
)
from gatewayd.core.names import Alias, RequestId, parse_model_ref
from gatewayd.core.request import InferenceRequest
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
