import pytest

from gatewayd.links.lwm2m.freshness import Freshness, runs_after


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ([(1, 0.0), (2, 0.1), (3, 0.2)], [True, True, True]),
        ([(5, 0.0), (4, 0.1), (6, 0.2)], [True, False, True]),
        ([(5, 0.0), (5, 0.1)], [True, False]),
        ([(2**24 - 1, 0.0), (0, 0.1), (2**24 - 2, 0.2)], [True, True, False]),
        ([(0, 0.0), (2**23, 0.1), (2**23 - 1, 0.2)], [True, False, True]),
        ([(9, 0.0), (3, 129.0), (9, 130.0)], [True, True, True]),
        ([(9, 0.0), (3, 128.0)], [True, False]),
        ([(None, 0.0), (7, 0.1), (None, 0.2), (6, 0.3)], [True, True, True, False]),
    ],
)
def test_what_is_news(told: list[tuple[int | None, float]], taken: list[bool]) -> None:
    order = Freshness()
    assert [order.takes(number, now_s) for number, now_s in told] == taken


@pytest.mark.parametrize(
    ("before", "now", "ahead"),
    [(3, 4, 1), (3, 3, 0), (4, 3, -1), (2**32 - 1, 0, 1), (0, 2**32 - 1, -1), (0, 2**31, -(2**31))],
)
def test_how_many_runs_lie_between(before: int, now: int, ahead: int) -> None:
    assert runs_after(before, now) == ahead
