"""Rates by name, and who a sender over MQTT is taken for."""

import pytest

from gatewayd.core.errors import RateLimited
from gatewayd.edges.mqtt_answers import Answers, sender_of
from gatewayd.edges.rates import MAX_NAMES, Rates
from gatewayd.wire.mqtt import Message
from gatewayd.wire.topics import CommandTopic, Topics
from tests.mqtt_client import Client, options


def test_each_name_has_its_own_bucket_that_fills_again() -> None:
    now = 0.0
    rates = Rates(2.0, lambda: now)
    assert [rates.take("a"), rates.take("a"), rates.take("a"), rates.take("b")] == [True, True, False, True]
    now = 0.5
    assert [rates.take("a"), rates.take("a")] == [True, False]


def test_names_without_end_take_no_memory() -> None:
    rates = Rates(1.0, lambda: 0.0)
    for number in range(2 * MAX_NAMES):
        rates.take(f"name-{number}")
    assert rates.take("name-0")


@pytest.mark.parametrize(
    ("topic", "sender"),
    [
        ("reply/ann/7/x", "reply/ann"),
        ("reply/ann", "reply/ann"),
        ("gatewayd/gw/reply/infer/kws", "gatewayd/gw"),
        ("x", "x/"),
    ],
)
def test_a_sender_is_who_owns_the_first_two_levels(topic: str, sender: str) -> None:
    assert sender_of(topic) == sender


def test_a_sender_that_asks_too_often_is_refused_and_others_are_not() -> None:
    answers = Answers(
        Client(options(1)),
        Topics("gatewayd", "gw"),
        reply_prefixes=("reply/",),
        on_refused=lambda *_: None,
        rates=Rates(1.0, lambda: 0.0),
    )

    def check(reply: str) -> None:
        message = Message("gatewayd/gw/cmd/status", b"{}", response_topic=reply)
        answers.check(answers.begin(CommandTopic("status"), message, arrived_s=0.0), max_payload_bytes=10)

    check("reply/ann/1")
    with pytest.raises(RateLimited, match=r"reply/ann.*slow down"):
        check("reply/ann/2")
    check("reply/bob/1")
