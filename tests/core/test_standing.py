from dataclasses import replace
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.names import DeviceId, parse_model_ref
from gatewayd.core.request import NODE, SensorRef
from gatewayd.core.standing import Due, Progress, StandingOrder

ORDER = StandingOrder(
    "watch", parse_model_ref("kws"), SensorRef(DeviceId("cam-7"), "mic"),
    period_s=0.5, deadline_s=0.5, until=None, who="ann", started_at=1.7e9,
)  # fmt: skip


def test_the_same_wish_does_not_depend_on_who_and_when() -> None:
    assert ORDER.is_same_wish(replace(ORDER, who="bob", started_at=0.0))
    assert not ORDER.is_same_wish(replace(ORDER, period_s=1.0))
    assert not ORDER.is_same_wish(replace(ORDER, topic="reply/x"))


def test_how_long_it_goes_on() -> None:
    assert ORDER.left_s(1.8e9) == inf
    assert replace(ORDER, until=1.8e9).left_s(1.8e9 - 5) == 5
    assert replace(ORDER, until=1.8e9).left_s(1.9e9) == 0.0
    assert ORDER.per_s == 2.0


def test_what_is_late_does_not_push_back_what_follows() -> None:
    due, missed = Due(10.0).after(10.3, 1.0)
    assert (due.at_s(1.0), missed) == (11.0, 0)
    due, missed = due.after(14.2, 1.0)
    assert (due.at_s(1.0), missed) == (15.0, 3)


@given(st.floats(0.02, 1000.0), st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=20), st.floats(0.0, 1e6))
def test_every_period_is_asked_or_missed_once(period_s: float, waits_s: list[float], first_s: float) -> None:
    due, asked, missed_in_all = Due(first_s), 0, 0
    for wait_s in waits_s:
        now_s = due.at_s(period_s) + wait_s
        due, missed = due.after(now_s, period_s)
        asked, missed_in_all = asked + 1, missed_in_all + missed
        assert missed >= 0
        assert due.at_s(period_s) > now_s - 1e-6 * max(1.0, now_s)
    assert due.number == asked + missed_in_all


def test_progress() -> None:
    failing = Progress().after_answer(NODE, 0.1).after_failure("away").after_failure("still away")
    assert (failing.answered, failing.failed, failing.failing, failing.failure) == (1, 2, 2, "still away")
    again = failing.after_missing(3).after_answer(NODE, 0.2)
    assert (again.answered, again.failed, again.missed, again.failing, again.failure) == (2, 2, 3, 0, "")
