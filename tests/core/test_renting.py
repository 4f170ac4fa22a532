from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.cost import Weights
from gatewayd.core.device import LinkKind
from gatewayd.core.estimate import Estimate, LinkEstimate, default_link
from gatewayd.core.renting import Balance, after_node_request, push_cost, should_push

LINK = LinkEstimate(Estimate.prior(0.1), Estimate.prior(1000.0), Estimate.prior(0.0))
WEIGHTS = Weights(latency_per_s=1000.0, energy_per_uj=0.5, bandwidth_per_byte=0.1, risk_per_failure=200.0)


def test_the_saving_missed_adds_up() -> None:
    balance = after_node_request(Balance(), node_total=50.0, device_total=20.0)
    assert after_node_request(balance, node_total=45.0, device_total=20.0) == Balance(55.0, 2)


def test_a_dearer_device_neither_adds_nor_takes() -> None:
    assert after_node_request(Balance(7.0, 1), node_total=10.0, device_total=90.0) == Balance(7.0, 2)


@pytest.mark.parametrize("total", [inf, -inf, nan])
def test_a_total_that_is_no_number_changes_nothing(total: float) -> None:
    assert after_node_request(Balance(7.0, 1), node_total=total, device_total=1.0) == Balance(7.0, 2)


def cost(
    size_bytes: int,
    *,
    energy_uj_per_byte: float = 0.0,
    failure: float = 0.0,
    flash_wear: float = 0.0,
    chunk_bytes: int = 1024,
) -> float:
    return push_cost(
        size_bytes=size_bytes,
        link=LINK,
        weights=WEIGHTS,
        energy_uj_per_byte=energy_uj_per_byte,
        failure=failure,
        flash_wear=flash_wear,
        chunk_bytes=chunk_bytes,
    )


def test_what_a_push_costs() -> None:
    # Two chunks: two round trips of 0.1 s, 2 s for the bytes.
    plain = 1000.0 * (0.2 + 2.0) + 0.1 * 2000
    assert cost(2000) == pytest.approx(plain)
    assert cost(2000, energy_uj_per_byte=3.0) == pytest.approx(plain + 0.5 * 6000)
    assert cost(2000, failure=0.25) == pytest.approx(plain + 50.0)
    assert cost(2000, flash_wear=5.0) == pytest.approx(plain + 5.0)


def test_every_chunk_costs_a_round_trip() -> None:
    assert cost(1024, chunk_bytes=64) - cost(1024) == pytest.approx(1000.0 * 0.1 * 15)


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_a_larger_model_never_costs_less(size_bytes: int, more: int) -> None:
    link = default_link(LinkKind.LWM2M)
    small, large = (
        push_cost(size_bytes=size, link=link, weights=Weights(), energy_uj_per_byte=1.0, failure=0.1, flash_wear=1.0)
        for size in (size_bytes, size_bytes + more)
    )
    assert small <= large


def test_it_pushes_when_the_balance_reaches_the_price() -> None:
    assert not should_push(Balance(99.9, 3), 100.0)
    assert should_push(Balance(100.0, 4), 100.0)
    assert not should_push(Balance(1e9, 9), nan)


def paid_online(requests: list[tuple[float, float]], price: float) -> float:
    """Play the policy: node until the push, the cheaper of the two after it."""
    balance, paid, has_model = Balance(), 0.0, False
    for node_total, device_total in requests:
        if has_model:
            paid += min(node_total, device_total)
            continue
        paid += node_total
        balance = after_node_request(balance, node_total=node_total, device_total=device_total)
        if should_push(balance, price):
            paid, has_model = paid + price, True
    return paid


def paid_by_a_clairvoyant(requests: list[tuple[float, float]], price: float) -> float:
    """Try every moment to push, and never."""
    never = sum(node_total for node_total, _ in requests)
    at = (
        sum(node_total for node_total, _ in requests[:turn]) + price + sum(min(pair) for pair in requests[turn:])
        for turn in range(len(requests))
    )
    return min([never, *at])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=40), st.integers(1, 500))
def test_at_most_twice_the_optimum_and_one_requests_saving(requests: list[tuple[float, float]], price: int) -> None:
    """Against any sequence, also one in which node and device take turns in being cheaper."""
    unavoidable = sum(min(pair) for pair in requests)
    last_saving = max((node_total - device_total for node_total, device_total in requests), default=0)
    optimum = paid_by_a_clairvoyant(requests, price)
    paid = paid_online(requests, price)
    assert paid >= optimum
    # The strong form: even of what could be avoided at all, at most twice as much is paid.
    assert paid - unavoidable <= 2 * (optimum - unavoidable) + max(0, last_saving)


def test_the_bound_is_nearly_reached_by_the_worst_sequence() -> None:
    """The requests stop right after the push: the price was paid twice."""
    requests = [(1.0, 0.0)] * 100
    assert paid_online(requests, 100.0) == 200.0
    assert paid_by_a_clairvoyant(requests, 100.0) == 100.0
