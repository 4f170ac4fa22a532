import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, Forbidden, GatewayError
from gatewayd.core.names import DeviceId
from gatewayd.wire.topics import CommandTopic, DeviceUp, InferTopic, Topics, check_topic

TOPICS = Topics("plant/a", "edge-1")


def test_the_topics_of_a_node() -> None:
    assert TOPICS.status == "plant/a/edge-1/status"
    assert TOPICS.infer("kws:canary") == "plant/a/edge-1/infer/kws:canary"
    assert TOPICS.infer_filter == "plant/a/edge-1/infer/+"
    assert TOPICS.command("models.list") == "plant/a/edge-1/cmd/models.list"
    assert TOPICS.command_filter == "plant/a/edge-1/cmd/+"
    assert TOPICS.event("push") == "plant/a/edge-1/event/push"
    assert TOPICS.device_up_filter == "plant/a/edge-1/device/+/up/+"
    assert TOPICS.device_down(DeviceId("cam-7"), "run") == "plant/a/edge-1/device/cam-7/down/run"
    assert TOPICS.reply_default(InferTopic("kws@3")) == "plant/a/edge-1/reply/infer/kws@3"
    assert TOPICS.reply_default(CommandTopic("status")) == "plant/a/edge-1/reply/status"


@pytest.mark.parametrize(
    ("topic", "parsed"),
    [
        ("infer/kws@3", InferTopic("kws@3")),
        ("cmd/push", CommandTopic("push")),
        ("device/cam-7/up/status", DeviceUp("cam-7", "status")),
        ("infer/", None),
        ("infer/a/b", None),
        ("cmd", None),
        ("device//up/status", None),
        ("device/cam-7/down/run", None),
        ("device/cam-7/up/a/b", None),
        ("status", None),
    ],
)
def test_what_a_topic_is_to_the_node(topic: str, parsed: object) -> None:
    assert TOPICS.parse(f"plant/a/edge-1/{topic}") == parsed


@pytest.mark.parametrize("topic", ["", "plant/a/edge-1", "plant/a/edge-10/infer/kws", "x/plant/a/edge-1/infer/kws"])
def test_topics_of_others_are_nothing(topic: str) -> None:
    assert TOPICS.parse(topic) is None


@pytest.mark.parametrize(("prefix", "node"), [("", "n"), ("p", ""), ("/p", "n"), ("p/", "n"), ("p", "a/b"), ("p", "+")])
def test_a_prefix_or_node_that_fits_no_topic_is_refused(prefix: str, node: str) -> None:
    with pytest.raises(BadRequest):
        Topics(prefix, node)


@pytest.mark.parametrize("topic", ["clients/7", "clients/7/answers", "plant/a/edge-1/reply/7", "plant/a/clients/x"])
def test_replies_go_under_the_allowed_prefixes(topic: str) -> None:
    TOPICS.check_reply(topic, allowed=("clients", "plant/a/edge-1/reply/", "plant/a/clients"))


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        ("clients", Forbidden),
        ("clientsX/7", Forbidden),
        ("other/7", Forbidden),
        ("plant/a/edge-1/cmd/push", Forbidden),
        ("plant/a/edge-1/infer/kws", Forbidden),
        ("plant/a/edge-1/device/cam-7/down/run", Forbidden),
        ("plant/a/edge-1/status", Forbidden),
        ("plant/a/edge-2/cmd/push", Forbidden),
        ("$SYS/broker", BadRequest),
        ("$share/g/clients/7", BadRequest),
        ("clients/#", BadRequest),
        ("clients/+/x", BadRequest),
        ("clients/\x00", BadRequest),
        ("clients/\ud800", BadRequest),
        ("clients/\ufffe", BadRequest),
        ("clients/" + "a" * 1024, BadRequest),
        ("clients" + "/a" * 32, BadRequest),
        ("", BadRequest),
    ],
)
def test_and_nowhere_else(topic: str, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        TOPICS.check_reply(topic, allowed=("clients", "plant/a"))


@given(st.text())
def test_any_text_is_a_topic_a_broker_takes_or_the_one_error(text: str) -> None:
    try:
        check_topic(text)
    except BadRequest:
        return
    assert text.encode().decode() == text
    assert not re.search(r"[\x00-\x1f\x7f-\x9f+#]", text)


@given(st.text())
def test_any_text_parses(text: str) -> None:
    parsed = TOPICS.parse(f"{TOPICS.base}/infer/{text}")
    assert parsed == (InferTopic(text) if text and "/" not in text else None)
