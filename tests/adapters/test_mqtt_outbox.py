import pytest

from gatewayd.adapters.mqtt_outbox import Outbox
from gatewayd.core.errors import Overloaded
from gatewayd.wire.mqtt import Message


class Wire:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def __call__(self, message: Message) -> int:
        self.sent.append(message.topic)
        return len(self.sent)


def message(topic: str, size: int = 1) -> Message:
    return Message(topic, bytes(size), qos=1)


def test_the_window_moves_with_the_acknowledgements() -> None:
    outbox, wire = Outbox(), Wire()
    for topic in "abc":
        outbox.put(message(topic))
    outbox.send(wire, window=2)
    assert wire.sent == ["a", "b"]
    assert outbox.acknowledge(1) == message("a")
    assert outbox.acknowledge(1) is None
    outbox.send(wire, window=2)
    assert wire.sent == ["a", "b", "c"]
    assert len(outbox) == 2


def test_what_was_not_acknowledged_goes_first_after_a_break() -> None:
    outbox, wire = Outbox(), Wire()
    for topic in "abc":
        outbox.put(message(topic))
    outbox.send(wire, window=2)
    assert outbox.rewind() == []
    outbox.send(wire, window=9)
    assert wire.sent == ["a", "b", "a", "b", "c"]


def test_a_message_that_breaks_every_connection_is_given_up() -> None:
    outbox, wire = Outbox(max_bytes=10), Wire()
    outbox.put(message("poison", 10))
    given_up: list[Message] = []
    while not given_up:
        outbox.send(wire, window=1)
        given_up = outbox.rewind()
    assert given_up == [message("poison", 10)]
    assert len(wire.sent) == 5
    outbox.put(message("next", 10))
    assert len(outbox) == 1


def test_it_is_bounded_in_messages_and_in_bytes() -> None:
    outbox = Outbox(max_messages=2, max_bytes=10)
    outbox.put(message("a", 6))
    with pytest.raises(Overloaded, match="1 messages \\(6 bytes\\)"):
        outbox.put(message("b", 5))
    outbox.put(message("b", 4))
    with pytest.raises(Overloaded):
        outbox.put(message("c", 0))


def test_one_message_over_the_bytes_is_taken_by_an_empty_queue() -> None:
    outbox, wire = Outbox(max_bytes=10), Wire()
    outbox.put(message("a", 11))
    outbox.send(wire, window=1)
    outbox.acknowledge(1)
    outbox.put(message("b", 10))
    assert len(outbox) == 1
