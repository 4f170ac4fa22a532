import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.adapters.coap_recent import ANSWERS_S, EXCHANGE_LIFETIME_S, Recent


def test_a_repeated_message_is_known_and_has_its_answer() -> None:
    recent = Recent()
    assert not recent.is_repeated(-5, 0.0)
    assert recent.is_repeated(-5, 1.0)
    assert recent.answer(-5) is None
    recent.keep(-5, b"answer")
    assert (recent.is_repeated(-5, 47.0), recent.answer(-5)) == (True, b"answer")


@pytest.mark.parametrize(
    ("after_s", "is_known", "answer"),
    [
        (0.0, True, b"a"),
        (ANSWERS_S, True, b"a"),
        (100.0, True, None),
        (EXCHANGE_LIFETIME_S, True, None),
        (400.0, False, None),
    ],
)
def test_it_is_answered_for_a_while_and_known_for_longer(
    after_s: float,
    is_known: bool,  # noqa: FBT001 - a column of the table
    answer: bytes | None,
) -> None:
    recent = Recent()
    recent.is_repeated(7, 0.0)
    recent.keep(7, b"a")
    for second in range(int(after_s)):
        recent.is_repeated(1000 + second, float(second))
    assert (recent.is_repeated(7, after_s), recent.answer(7)) == (is_known, answer)


def test_a_thousand_a_second_are_known_for_247_s() -> None:
    recent = Recent()
    messages = per_second(260, 100)  # a tenth of it: the bounds are a tenth as well
    recent.max_answers, recent.max_messages = 6_553, 30_000
    for at_s, key in messages:
        assert not recent.is_repeated(key, at_s)
        recent.keep(key, b"8 bytes.")
        if at_s < EXCHANGE_LIFETIME_S - 1:
            assert recent.is_repeated(messages[0][1], at_s)
    assert len(recent) <= 30_000


def per_second(seconds: int, count: int) -> list[tuple[float, int]]:
    return [(second + number / count, hash((second, number))) for second in range(seconds) for number in range(count)]


def test_a_flood_is_forgotten_from_its_beginning() -> None:
    recent = Recent(max_answers=100, max_messages=100)
    for key in range(10_000):
        recent.is_repeated(key, 0.0)
        recent.keep(key, b"x" * 8)
        assert len(recent) <= 100
    assert recent.is_repeated(9_999, 0.0)
    assert not recent.is_repeated(0, 0.0)


def test_long_answers_have_a_bound_of_their_own() -> None:
    recent = Recent(max_answer_bytes=10_000)
    for key in range(100):
        recent.is_repeated(key, float(key))
        recent.keep(key, bytes(1000))
    assert sum(recent.answer(key) is not None for key in range(100)) <= 10
    assert recent.answer(99) is not None
    recent.keep(99, b"")
    recent.drop(99)
    assert not recent.is_repeated(99, 99.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.floats(0.0, 40.0), st.sampled_from(["come", "keep", "drop"])), max_size=80
    )
)
def test_it_counts_what_it_holds(done: list[tuple[int, float, str]]) -> None:
    recent, now_s, known = Recent(max_answers=20, max_messages=30, max_answer_bytes=100), 0.0, set[int]()
    for key, passes_s, what in done:
        now_s += passes_s
        match what:
            case "come":
                assert recent.is_repeated(key, now_s) <= (key in known)  # nothing is known that never came
                known.add(key)
            case "keep":
                recent.keep(key, bytes(key))
            case _:
                recent.drop(key)
        held = [each.answers for each in recent._slices]  # noqa: SLF001 - its own books
        assert len(recent) == sum(map(len, held)) + sum(len(each.keys) for each in recent._old)  # noqa: SLF001 - as above
        assert sum(len(each or b"") for kept in held for each in kept.values()) == recent._answer_bytes <= 100  # noqa: SLF001 - as above
        assert len(recent) <= 30
