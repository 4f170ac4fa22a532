from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gatewayd.wire.mqtt import Message
from gatewayd.wire.mqtt_publish import MalformedPacket, decode_puback, decode_publish, encode_publish

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
OPTIONAL = st.none() | TEXTS
MESSAGES = st.builds(
    Message,
    topic=TEXTS,
    payload=st.binary(max_size=300),
    qos=st.integers(0, 1),
    retain=st.booleans(),
    content_type=OPTIONAL,
    response_topic=OPTIONAL,
    correlation=st.none() | st.binary(max_size=20),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
)


def body_of(packet: bytes) -> bytes:
    start = next(at for at in range(1, 5) if packet[at] < 0x80) + 1
    return packet[start:]


@given(MESSAGES, st.integers(1, 65535))
def test_what_is_written_is_read_again(message: Message, mid: int) -> None:
    packet = encode_publish(message, mid, is_v5=True)
    assert decode_publish(packet[0], body_of(packet), is_v5=True) == (message, mid if message.qos else 0)
    older = Message(message.topic, message.payload, message.qos, message.retain)
    packet = encode_publish(message, mid, is_v5=False)
    assert decode_publish(packet[0], body_of(packet), is_v5=False) == (older, mid if message.qos else 0)


def test_properties_are_those_that_paho_writes_and_what_is_nothing_to_us_is_passed_over() -> None:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho left it so
    properties.ContentType = "a/b"
    properties.ResponseTopic = "r"
    properties.CorrelationData = b"\0\xff"
    properties.MessageExpiryInterval = 60
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = ("a", "bcd")
    properties.SubscriptionIdentifier = 300
    body = b"\x00\x01t" + properties.pack() + b"payload"  # type: ignore[no-untyped-call]  # as above
    message, mid = decode_publish(0x38, body, is_v5=True)
    expected = Message("t", b"payload", 0, False, "a/b", "r", b"\0\xff", 60, is_redelivered=True)  # noqa: FBT003 - retain
    assert (message, mid) == (expected, 0)


@given(flags=st.integers(0, 15), body=st.binary(max_size=60), is_v5=st.booleans())
def test_any_bytes_give_a_message_or_the_one_error(*, flags: int, body: bytes, is_v5: bool) -> None:
    with suppress(MalformedPacket):
        decode_publish(flags, body, is_v5=is_v5)


def test_a_topic_that_is_not_utf_8_leaves_the_identifier_to_acknowledge() -> None:
    assert decode_publish(0x32, b"\x00\x01\xff\x00\x07payload", is_v5=False) == (None, 7)


@pytest.mark.parametrize(
    "body", [b"\x00\x09t", b"\x00\x01t\x05\x03", b"\x00\x01t\x02\x99\x00", b"\x00\x01t\xff\xff\xff\xff"]
)
def test_what_ends_too_early_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPacket):
        decode_publish(0x30, body, is_v5=True)


def test_an_acknowledgement_tells_its_reason() -> None:
    assert decode_puback(b"\x01\x02") == (258, 0)
    assert decode_puback(b"\x01\x02\x97\x00") == (258, 0x97)
    with pytest.raises(MalformedPacket):
        decode_puback(b"\x01")
