from collections.abc import Callable

import pytest

from gatewayd.services.settling import Settling


class Moments:
    """Keeps what is to be called in a moment."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def __call__(self, settle: Callable[[], None]) -> None:
        self.asked.append(settle)


def test_work_is_done_in_order_when_there_is_a_moment() -> None:
    moments, done = Moments(), list[int]()
    settling = Settling(moments)
    for number in range(3):
        settling.enter(lambda number=number: done.append(number))  # type: ignore[misc]  # a lambda's default has no type
    assert (done, len(moments.asked)) == ([], 1)
    moments.asked.pop()()
    assert done == [0, 1, 2]


def test_who_shows_it_does_it_first() -> None:
    moments, done = Moments(), list[str]()
    settling = Settling(moments)
    settling.enter(lambda: done.append("work"))
    settling.settle()
    moments.asked.pop()()
    assert done == ["work"]
    settling.enter(lambda: done.append("more"))
    assert len(moments.asked) == 1, "asked for anew"


def test_without_a_moment_it_is_done_all_the_same() -> None:
    moments, done = Moments(), list[str]()
    settling = Settling(moments)
    for _ in range(1000):
        settling.enter(lambda: done.append("work"))
    assert len(done) > 800


def test_a_defect_is_told_and_the_others_are_done() -> None:
    moments, done = Moments(), list[str]()
    settling = Settling(moments)
    settling.enter(iter(()).__next__)
    settling.enter(lambda: done.append("work"))
    with pytest.raises(StopIteration):
        moments.asked.pop(0)()
    moments.asked.pop(0)()
    assert done == ["work"]


def test_by_itself_it_is_done_at_once() -> None:
    done: list[str] = []
    Settling().enter(lambda: done.append("work"))
    assert done == ["work"]
