from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.damping import STEADY, Damping, DampingRules

RULES = DampingRules(comings=3, within_s=10, first_s=60, most_s=200, calm_s=1000)


def after(damping: Damping, *times_s: float) -> Damping:
    for now_s in times_s:
        damping = damping.came(now_s, RULES)
    return damping


def test_a_device_that_comes_now_and_then_is_let_be() -> None:
    assert not after(STEADY, 0, 11, 22, 33, 44).holds(44)


def test_one_that_flaps_is_held_off_for_a_growing_while() -> None:
    once = after(STEADY, 0, 1, 2)
    assert once.holds(61.9)
    assert not once.holds(62)
    assert once.words(RULES) == "came and went 3 times within 10 s: held off for 60 s"
    twice = after(once, 100, 101, 102)
    assert twice.until_s == 102 + 120
    thrice = after(twice, 300, 301, 302)
    assert thrice.until_s == 302 + 200  # never for longer than that


def test_after_a_calm_while_it_begins_anew() -> None:
    again = after(after(STEADY, 0, 1, 2), 5000, 5001, 5002)
    assert again.until_s == 5002 + 60


@given(st.lists(st.floats(0, 1e6), max_size=40))
def test_what_is_remembered_is_bounded_and_a_hold_is_never_cut_short(times_s: list[float]) -> None:
    damping = STEADY
    for before_s, now_s in pairwise(sorted(times_s)):
        assert now_s >= before_s
        later = damping.came(now_s, RULES)
        assert later.until_s >= damping.until_s
        assert len(later.comings) < RULES.comings
        assert later.until_s <= now_s + RULES.most_s or later.until_s == damping.until_s
        damping = later
