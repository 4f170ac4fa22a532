import random
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.cascade import BINS, Cascade, Level, Prices, level_of

PRICES = Prices(wrong=100.0, asking=20.0)


def taught(times: int, *, confidence: float, wrong_every: int = 0) -> Cascade:
    cascade = Cascade()
    for turn in range(times):
        was_wrong = bool(wrong_every) and turn % wrong_every == 0
        cascade = cascade.answered().learned(confidence, was_wrong=was_wrong)
    return cascade


def test_at_first_it_asks() -> None:
    assert Cascade().wants_second(0.99, PRICES)
    assert Cascade().threshold(PRICES) == 1.0


def test_answers_that_were_always_right_are_accepted_soon() -> None:
    assert not taught(30, confidence=0.9).wants_second(0.9, PRICES)
    assert taught(5, confidence=0.9).wants_second(0.9, PRICES)


def test_answers_that_are_often_wrong_are_asked_about_for_ever() -> None:
    assert taught(10_000, confidence=0.9, wrong_every=3).wants_second(0.9, PRICES)


def test_what_is_surer_is_trusted_with_it_and_what_is_less_sure_is_not() -> None:
    cascade = taught(100, confidence=0.5)
    assert not cascade.wants_second(0.9, PRICES)
    assert cascade.wants_second(0.4, PRICES)
    assert cascade.threshold(PRICES) == 0.5


def test_the_operators_price_decides() -> None:
    cascade = taught(200, confidence=0.9, wrong_every=10)
    assert cascade.wants_second(0.9, Prices(wrong=1000.0, asking=20.0))
    assert not cascade.wants_second(0.9, Prices(wrong=50.0, asking=20.0))
    assert not Cascade().wants_second(0.1, Prices(wrong=0.0, asking=20.0))
    assert not Cascade().wants_second(0.1, Prices(wrong=10.0, asking=20.0))
    assert taught(200, confidence=0.9).wants_second(0.9, Prices(wrong=1.0, asking=0.0))


def test_a_long_time_without_asking_makes_it_ask_again() -> None:
    cascade = taught(30, confidence=0.9)
    for _ in range(5000):
        cascade = cascade.answered()
    assert cascade.wants_second(0.9, PRICES)


@pytest.mark.parametrize(
    ("confidence", "level"), [(nan, 0), (-1.0, 0), (0.0, 0), (1.0, BINS - 1), (7.0, BINS - 1), (inf, 0)]
)
def test_any_number_has_a_level(confidence: float, level: int) -> None:
    assert level_of(confidence) == level


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.floats(0, 1e6), st.floats(0, 1e6))
def test_who_is_surer_is_never_asked_where_who_is_less_sure_is_not(
    seen: list[tuple[float, bool]], wrong: float, asking: float
) -> None:
    cascade = Cascade()
    for confidence, was_wrong in seen:
        cascade = cascade.answered().learned(confidence, was_wrong=was_wrong)
    wants = [cascade.wants_second((level + 0.5) / BINS, Prices(wrong, asking)) for level in range(BINS)]
    assert wants == sorted(wants, reverse=True)
    assert all(isinstance(each, Level) and each.wrong <= each.asked for each in cascade.levels)


def test_regret_grows_with_the_logarithm() -> None:
    """Errors fall with confidence; asking too often and trusting too early are both regretted."""
    chance, cascade, regret, marks = random.Random(1), Cascade(), 0.0, {}  # noqa: S311 - repeatable
    for turn in range(1, 40_001):
        confidence = chance.random()
        wrong_share = 0.6 * (1.0 - confidence)
        accepting = PRICES.wrong * wrong_share
        wants = cascade.wants_second(confidence, PRICES)
        regret += (PRICES.asking if wants else accepting) - min(PRICES.asking, accepting)
        cascade = cascade.answered()
        if wants:
            cascade = cascade.learned(confidence, was_wrong=chance.random() < wrong_share)
        marks[turn] = regret
    # Ten times the requests, but far from ten times the regret.
    assert marks[40_000] < 3.0 * marks[4000]
