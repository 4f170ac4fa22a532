from gatewayd.links.lwm2m.coap import Timing
from gatewayd.links.lwm2m.rtt import RoundTrips


def trips() -> RoundTrips:
    return RoundTrips(least_s=0.06, first_s=2.0, most_s=10.0)


def span_s(timing: Timing) -> float:
    waits_s = (min(timing.longest_s, timing.ack_timeout_s * float(2**each)) for each in range(timing.retransmits + 1))
    return float(sum(waits_s))


def test_nothing_is_known_at_first() -> None:
    assert trips().timing() == Timing(2.0, 4)


def test_the_timer_follows_the_link() -> None:
    found = trips()
    for _ in range(20):
        found.took(0.030, found.timing())
    assert 0.06 <= found.timing().ack_timeout_s < 0.1
    for _ in range(40):
        found.took(0.8, found.timing())
    assert 0.8 < found.timing().ack_timeout_s < 3


def test_repetitions_go_on_as_long_as_on_a_slow_link() -> None:
    found = trips()
    for _ in range(30):
        found.took(0.030, found.timing())
    assert span_s(found.timing()) > 25


def test_a_slow_link_is_asked_often_enough_and_without_endless_pauses() -> None:
    """At a tenth lost each way five repetitions leave one question in 20,000 without an answer."""
    found = trips()
    for _ in range(40):
        found.took(1.85, found.timing())
    timing = found.timing()
    assert timing.retransmits >= 5
    assert timing.longest_s == max(8.0, 4 * timing.ack_timeout_s)
    assert span_s(timing) < 60
    assert span_s(trips().timing()) > 45, "a link of which nothing is known"


def test_an_answer_after_a_repetition_counts_less() -> None:
    weak, strong = trips(), trips()
    for each in (weak, strong):
        for _ in range(10):
            each.took(0.05, each.timing())
    before = weak.timing()
    weak.took(5.0, before)
    strong.took(5.0, Timing(6.0, 2))
    assert before.ack_timeout_s < weak.timing().ack_timeout_s < strong.timing().ack_timeout_s


def test_silence_makes_it_wait_longer_and_an_answer_forgives_it() -> None:
    found = trips()
    found.took(0.05, found.timing())
    before = found.timing().ack_timeout_s
    for _ in range(12):
        found.lost()
    assert found.timing().ack_timeout_s == 10.0
    found.took(0.05, found.timing())
    assert found.timing().ack_timeout_s <= before
