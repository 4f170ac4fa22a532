from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.budget import Allowance, Budget, can_spend, left_of, spent, wait_s

HOURLY = Allowance(per_s=0.01, most=36.0)


def test_a_full_bucket_lets_through_even_what_is_larger() -> None:
    assert can_spend(None, 100.0, HOURLY, now_s=0.0)
    after = spent(None, 100.0, HOURLY, now_s=0.0)
    assert after == Budget(-64.0, 0.0)
    assert not can_spend(after, 1.0, HOURLY, now_s=6400.0)
    assert can_spend(after, 1.0, HOURLY, now_s=6501.0)


def test_it_tells_how_long_to_wait() -> None:
    after = spent(None, 36.0, HOURLY, now_s=0.0)
    assert wait_s(after, 1.0, HOURLY, now_s=0.0) == 100.0
    assert wait_s(after, 1.0, HOURLY, now_s=100.0) == 0.0
    assert wait_s(after, 1.0, Allowance(0.0, 36.0), now_s=0.0) == inf


def test_without_a_limit_anything_goes() -> None:
    budget = spent(None, 1e9, Allowance(), now_s=0.0)
    assert can_spend(budget, 1e9, Allowance(), now_s=1.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 50)), max_size=50))
def test_over_time_no_more_is_spent_than_flows_in(steps: list[tuple[float, float]]) -> None:
    budget: Budget | None = None
    now_s = total = 0.0
    for pause_s, amount in steps:
        now_s += pause_s
        if can_spend(budget, amount, HOURLY, now_s=now_s):
            budget, total = spent(budget, amount, HOURLY, now_s=now_s), total + amount
    # The bucket, what flowed in, and one spending larger than the bucket.
    assert total <= HOURLY.most + HOURLY.per_s * now_s + 50.0
    assert left_of(budget, HOURLY, now_s=now_s) <= HOURLY.most
