import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.oscore import StoredNumbers
from gatewayd.wire.oscore.context import LAST_NUMBER
from gatewayd.wire.oscore.numbers import RECIPIENT_STEP, SENDER_STEP, WINDOW, Numbers, Verdict, Window


def store(numbers: Numbers, wanted: StoredNumbers | None) -> None:
    if wanted is not None:
        numbers.has_stored(wanted)


def test_no_number_is_used_before_the_disk_has_a_larger_one() -> None:
    numbers = Numbers()
    with pytest.raises(RuntimeError):
        numbers.use()
    store(numbers, numbers.wants())
    assert [numbers.use() for _ in range(SENDER_STEP)] == list(range(SENDER_STEP))
    assert numbers.wants() == StoredNumbers(2 * SENDER_STEP, 0)


@given(st.lists(st.sampled_from(["use", "crash", "stop"]), max_size=60))
def test_a_number_of_ours_is_never_used_twice(steps: list[str]) -> None:
    numbers, used = Numbers(), []
    for step in steps:
        if step == "use":
            store(numbers, numbers.wants())
            used.append(numbers.use())
        else:
            numbers = Numbers(numbers.exact() if step == "stop" else numbers.stored)
    assert len(set(used)) == len(used)
    if "crash" not in steps:
        assert used == list(range(len(used)))


@given(st.lists(st.integers(0, 90) | st.sampled_from(["crash", "stop"]), max_size=80))
def test_a_number_of_a_peer_is_never_new_twice(steps: list[int | str]) -> None:
    numbers, taken = Numbers(), set()
    for step in steps:
        if isinstance(step, int):
            if numbers.judge(step) is Verdict.NEW:
                assert step not in taken
                taken.add(step)
                store(numbers, numbers.take(step))
            elif step in taken:
                assert numbers.judge(step) in {Verdict.COPY, Verdict.UNPROVED}
        else:
            numbers = Numbers(numbers.exact() if step == "stop" else numbers.stored)


def test_after_a_crash_a_large_number_is_new_and_a_small_one_has_to_be_proved() -> None:
    numbers = Numbers()
    store(numbers, numbers.take(5))
    again = Numbers(numbers.stored)
    assert again.judge(6) is Verdict.UNPROVED
    assert again.judge(5 + RECIPIENT_STEP) is Verdict.NEW
    store(again, again.take(6))  # it was proved with an Echo
    assert [again.judge(each) for each in (5, 6, 7)] == [Verdict.COPY, Verdict.COPY, Verdict.NEW]


def test_after_an_orderly_end_nothing_has_to_be_proved_but_the_first_message_is_written() -> None:
    numbers = Numbers()
    for each in (0, 1, 3):
        store(numbers, numbers.take(each))
    again = Numbers(numbers.exact())
    assert [again.judge(each) for each in (1, 2, 3, 4)] == [Verdict.COPY, Verdict.NEW, Verdict.COPY, Verdict.NEW]
    wanted = again.take(2)
    assert wanted is not None
    assert wanted.window is None, "a crash from here on must not find the window of the end before"


def test_one_write_serves_many_messages() -> None:
    numbers, writes = Numbers(), 0
    for each in range(10 * RECIPIENT_STEP):
        wanted = numbers.take(each)
        writes += wanted is not None
        store(numbers, wanted)
    assert writes <= 10


def test_the_last_number() -> None:
    numbers = Numbers(StoredNumbers(LAST_NUMBER, 0))
    store(numbers, numbers.wants())
    assert numbers.use() == LAST_NUMBER
    with pytest.raises(OverflowError, match="new credentials"):
        numbers.use()


def test_messages_may_overtake_each_other_a_little() -> None:
    window = Window()
    window.take(100)
    assert [window.has(each) for each in (100, 99, 100 - WINDOW + 1, 100 - WINDOW, 101)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    window.take(99)
    assert window.has(99)
    window.take(10_000)
    assert [window.has(each) for each in (10_000, 9_999, 100)] == [True, False, True]
