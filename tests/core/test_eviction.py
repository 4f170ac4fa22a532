from dataclasses import replace
from itertools import combinations
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.eviction import Earning, Newcomer, Resident, admit
from gatewayd.core.names import ModelName
from gatewayd.core.renting import Balance, after_node_request, should_push

A, B, C = ModelName("a"), ModelName("b"), ModelName("c")


def resident(model: ModelName, credit: float, *, price: float = 10.0, is_kept: bool = False) -> Resident:
    return Resident(model, price, credit, is_kept=is_kept)


def test_with_a_free_slot_nobody_leaves() -> None:
    there = (resident(A, 5.0),)
    admission = admit(Newcomer(B, 10.0), there, slots=2, now_s=0.0)
    assert (admission.is_admitted, admission.evict, admission.residents) == (True, None, there)


def test_the_one_with_the_least_credit_leaves() -> None:
    admission = admit(Newcomer(C, 10.0), (resident(A, 8.0), resident(B, 3.0)), slots=2, now_s=0.0)
    assert admission.is_admitted
    assert admission.evict == B
    assert admission.residents == (resident(A, 5.0),)


def test_a_newcomer_worth_less_stays_out_and_drains() -> None:
    admission = admit(Newcomer(C, 2.0), (resident(A, 8.0), resident(B, 3.0)), slots=2, now_s=0.0)
    assert not admission.is_admitted
    assert admission.residents == (resident(A, 6.0), resident(B, 1.0))
    assert admission.reason == "b is worth more there so far"
    assert admit(Newcomer(C, 2.0), admission.residents, slots=2, now_s=0.0).evict == B


def test_what_an_operator_pinned_stays() -> None:
    there = (resident(A, 0.0, is_kept=True), resident(B, 9.0))
    assert admit(Newcomer(C, 10.0), there, slots=2, now_s=0.0).evict == B
    kept = (resident(A, 0.0, is_kept=True),)
    assert admit(Newcomer(C, 10.0), kept, slots=1, now_s=0.0).reason.startswith("every model there is kept (a): ")


def test_hits_fill_the_credit_up_to_the_price() -> None:
    assert resident(A, 1.0).after_hit(4.0, now_s=3.0) == replace(resident(A, 5.0), used_s=3.0)
    assert resident(A, 9.0).after_hit(4.0, now_s=3.0).credit == 10.0
    assert resident(A, 1.0).after_hit(-4.0, now_s=3.0).credit == 1.0


RECENT = Resident(A, 10.0, 0.0, paid_at_s=100.0, expected=Earning(2.0, 4.0), earns=Earning(2.5, 3.5))


def test_a_push_is_not_undone_before_it_has_paid() -> None:
    admission = admit(Newcomer(B, 10.0, Earning(1.0, 9.0)), (RECENT,), slots=1, now_s=40.0)
    assert not admission.is_admitted
    assert admission.reason == "a was pushed 60 s too recently to have paid for itself"
    assert admit(Newcomer(B, 10.0), (RECENT,), slots=1, now_s=100.0).is_admitted


@pytest.mark.parametrize(
    ("earns", "newcomer"),
    [(Earning(0.5, 1.9), Earning(1.0, 2.0)), (Earning(2.5, 3.5), Earning(4.1, 9.0))],
    ids=["it earns less than was expected", "the newcomer is sure to earn more"],
)
def test_it_is_undone_when_conditions_have_moved(earns: Earning, newcomer: Earning) -> None:
    admission = admit(Newcomer(B, 10.0, newcomer), (replace(RECENT, earns=earns),), slots=1, now_s=40.0)
    assert admission.evict == A


def test_one_that_has_paid_leaves_where_another_is_protected() -> None:
    paid = Resident(C, 10.0, 10.0, earns=Earning(0.5, 1.0))
    newcomer = Newcomer(B, 10.0, Earning(3.9, 9.0), paid=5.0, left_s=100.0)
    assert admit(newcomer, (replace(RECENT, earns=Earning(0.1, 2.0)), paid), slots=2, now_s=40.0).evict == C


def test_two_that_save_about_the_same_do_not_take_turns() -> None:
    there = Resident(A, 10.0, 0.0, earns=Earning(0.9, 1.0))
    better, hasty = Newcomer(B, 10.0, Earning(1.3, 1.4), 5.0, 1000.0), Newcomer(B, 10.0, Earning(1.3, 1.4), 0.5, 1000.0)
    assert admit(better, (there,), slots=1, now_s=0.0).evict == A
    assert not admit(replace(better, earns=Earning(1.2, 1.4)), (there,), slots=1, now_s=0.0).is_admitted
    assert not admit(hasty, (there,), slots=1, now_s=0.0).is_admitted  # it has hardly missed anything
    assert admit(replace(hasty, is_ordered=True), (there,), slots=1, now_s=0.0).evict == A


EARNINGS = st.tuples(st.floats(0, 10), st.floats(0, 10)).map(lambda pair: Earning(min(pair), max(pair)))
RESIDENTS = st.lists(
    st.builds(
        Resident, model=st.sampled_from([A, B, C]), price=st.just(10.0), credit=st.floats(0, 10), is_kept=st.booleans(),
        paid_at_s=st.floats(0, 100), expected=EARNINGS, earns=EARNINGS, used_s=st.floats(0, 100), is_ordered=st.booleans(),
    ),
    min_size=1, max_size=3, unique_by=lambda each: each.model,
)  # fmt: skip


@settings(deadline=None)
@given(
    RESIDENTS, st.floats(0.1, 20), EARNINGS, st.floats(0, 30), st.floats(0, 100), st.integers(1, 4), st.floats(0, 120)
)
def test_a_push_is_undone_within_its_break_even_time_only_when_conditions_moved(
    there: list[Resident], price: float, earns: Earning, paid: float, left_s: float, slots: int, now_s: float
) -> None:
    newcomer = Newcomer(ModelName("new"), price, earns, paid, left_s)
    admission = admit(newcomer, there, slots=slots, now_s=now_s)
    assert all(0.0 <= each.credit <= each.price for each in admission.residents)
    if admission.evict is None:
        assert len(admission.residents) == len(there)
        assert admission.is_admitted == (len(there) < slots)
        return
    (gone,) = (each for each in there if each.model == admission.evict)
    moved = gone.earns.high < gone.expected.low or earns.low > gone.expected.high
    assert admission.is_admitted
    assert not gone.is_kept
    assert now_s >= gone.paid_at_s or moved
    is_better = (earns.low - gone.earns.high) * left_s >= price and earns.low >= 1.25 * gone.earns.high
    assert is_better or (paid >= price and not gone.is_ordered)


def states(models: int, slots: int) -> list[frozenset[int]]:
    return [frozenset(chosen) for size in range(slots + 1) for chosen in combinations(range(models), size)]


def clairvoyant(asked: list[int], prices: list[float], rents: list[float], *, slots: int) -> float:
    """What the best sequence of pushes pays: dynamic programming over what the slots hold."""
    costs = dict.fromkeys(states(len(prices), slots), inf)
    costs[frozenset()] = 0.0
    for model in asked:
        moved = {
            after: min(cost + sum(prices[new] for new in after - before) for before, cost in costs.items())
            for after in costs
        }
        costs = {held: cost + (0.0 if model in held else rents[model]) for held, cost in moved.items()}
    return min(costs.values())


def name(model: int) -> ModelName:
    return ModelName(f"m{model}")


def paid_by_landlord(asked: list[int], prices: list[float], rents: list[float], *, slots: int) -> float:
    """Each miss pays its rent; when the rent has reached the price, Landlord decides whether the model comes in."""
    there: tuple[Resident, ...] = ()
    balances, paid = [Balance() for _ in prices], 0.0
    for model in asked:
        hit = next((each for each in there if each.model == name(model)), None)
        if hit is not None:
            there = tuple(each.after_hit(rents[model], now_s=0.0) if each is hit else each for each in there)
            continue
        paid += rents[model]
        balances[model] = after_node_request(balances[model], node_total=rents[model], device_total=0.0)
        if not should_push(balances[model], prices[model]):
            continue
        balances[model] = Balance()
        admission = admit(Newcomer(name(model), prices[model]), there, slots=slots, now_s=0.0)
        there = admission.residents
        if admission.is_admitted:
            paid += prices[model] if rents[model] < prices[model] else 0.0  # a miss that costs a fetch is the fetch
            there = (*there, Resident(name(model), prices[model], prices[model]))
    return paid


ASKED = st.lists(st.integers(0, 3), max_size=60)


@settings(deadline=None)
@given(ASKED, st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(1, 3))
def test_with_k_slots_at_most_k_plus_one_times_the_optimum(asked: list[int], prices: list[int], slots: int) -> None:
    """File caching with bypassing: a miss costs what a fetch costs, kept or not (Young 2002)."""
    costs = [float(each) for each in prices]
    optimum = min(clairvoyant(asked, costs, costs, slots=slots), sum(costs[model] for model in asked))
    assert paid_by_landlord(asked, costs, costs, slots=slots) <= (slots + 1) * optimum + 1e-9


def test_the_bound_of_k_plus_one_is_reached() -> None:
    """Whoever was just thrown out is asked next: with one slot two models take turns, each until it is let in."""
    asked = [0, *[1, 1, 0, 0] * 10]
    online = paid_by_landlord(asked, [1.0, 1.0], [1.0, 1.0], slots=1)
    assert online / clairvoyant(asked, [1.0, 1.0], [1.0, 1.0], slots=1) > 1.9


@settings(deadline=None)
@given(ASKED, st.lists(st.integers(4, 12), min_size=4, max_size=4), st.integers(1, 2))
def test_with_rents_below_the_price_the_bound_is_wider(asked: list[int], prices: list[int], slots: int) -> None:
    """Rent 1, price 4 to 12: at most 4 (k + 1) times the optimum, beside rent not yet settled; see docs/placement.md."""
    costs, rents = [float(each) for each in prices], [1.0] * 4
    optimum = clairvoyant(asked, costs, rents, slots=slots)
    assert paid_by_landlord(asked, costs, rents, slots=slots) <= 4 * (slots + 1) * optimum + sum(costs)


def asked_by_an_adversary(prices: list[float], rents: list[float], *, count: int) -> list[int]:
    """Always ask for the model that is not there: two models, one slot."""
    asked: list[int] = []
    for _ in range(count):
        costs = [paid_by_landlord([*asked, model], prices, rents, slots=1) for model in (0, 1)]
        asked.append(0 if costs[0] >= costs[1] else 1)
    return asked


def test_below_the_price_nobody_has_k_plus_one() -> None:
    """One slot, rent 1, price 4: the assumption that fails is that a miss costs what a fetch costs.

    A clairvoyant may rent for a while, then stay with the one that is asked for more: the two are states of a metrical task
    system, where 2·2 - 1 = 3 is the least for any deterministic policy, and k + 1 = 2 is out of reach.
    """
    prices, rents = [4.0, 4.0], [1.0, 1.0]
    asked = asked_by_an_adversary(prices, rents, count=160)
    ratio = paid_by_landlord(asked, prices, rents, slots=1) / clairvoyant(asked, prices, rents, slots=1)
    assert 2.0 < ratio <= 8.0
    # The same requests where a miss costs a fetch: within the bound again.
    optimum = min(clairvoyant(asked, prices, prices, slots=1), 4.0 * len(asked))
    assert paid_by_landlord(asked, prices, prices, slots=1) <= 2.0 * optimum
