import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.airtime import AirRules, Airtime, spend

RULES = AirRules(share=0.5, quiet_s=5.0, burst_s=0.2, most_s=1.5)


def test_without_inference_the_air_is_free() -> None:
    budget, wait_s = spend(None, 10.0, now_s=100.0, inference_at_s=None, rules=RULES)
    assert (budget, wait_s) == (Airtime(0.2, 100.0), 0.0)
    assert spend(budget, 10.0, now_s=100.0, inference_at_s=94.0, rules=RULES)[1] == 0.0


def test_beside_inference_a_chunk_waits_until_its_share_has_come() -> None:
    budget, first_s = spend(None, 0.2, now_s=100.0, inference_at_s=100.0, rules=RULES)
    budget, second_s = spend(budget, 0.2, now_s=100.0, inference_at_s=100.0, rules=RULES)
    assert first_s == 0.0
    assert second_s == pytest.approx(0.4)
    _, third_s = spend(budget, 0.2, now_s=100.4, inference_at_s=100.0, rules=RULES)
    assert third_s == pytest.approx(0.4)


def test_quiet_forgives_the_debt() -> None:
    budget, _ = spend(None, 9.0, now_s=100.0, inference_at_s=100.0, rules=RULES)
    assert spend(budget, 0.1, now_s=106.0, inference_at_s=100.0, rules=RULES) == (Airtime(0.2, 106.0), 0.0)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), min_size=1, max_size=50),
    st.floats(0.05, 1),
    st.floats(0, 1),
)
def test_over_any_time_pushes_take_no_more_than_their_share_or_the_longest_wait(
    chunks: list[tuple[float, float]], share: float, burst_s: float
) -> None:
    rules = AirRules(share=share, burst_s=burst_s)
    budget, now_s, start_s, taken_s = None, 50.0, 50.0, 0.0
    for air_s, idle_s in chunks:
        now_s += idle_s
        budget, wait_s = spend(budget, air_s, now_s=now_s, inference_at_s=now_s, rules=rules)
        assert 0.0 <= wait_s <= rules.most_s
        now_s += wait_s
        taken_s += air_s if wait_s < rules.most_s - 1e-9 else 0.0
    assert taken_s <= burst_s + share * (now_s - start_s) + 1e-6
