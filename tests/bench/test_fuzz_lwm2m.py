from collections import Counter

from bench.fuzz_lwm2m import fuzz
from bench.insane_lwm2m import case


def test_malformed_messages_are_read_or_refused() -> None:
    found = fuzz(range(600), seed=1)
    assert sum(found.outcomes.values()) == 600
    assert any("BadRequest" in each for each in found.outcomes)
    assert any("TooLarge" in each for each in found.outcomes)


def test_a_number_and_a_seed_are_always_the_same_message() -> None:
    assert [case(number, 7) for number in range(50)] == [case(number, 7) for number in range(50)]
    assert case(0, 7) != case(0, 8)


def test_there_are_ten_families() -> None:
    assert set(Counter(case(number, 1).family for number in range(100)).values()) == {10}
