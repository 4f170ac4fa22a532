import random
import tracemalloc
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.budget import Allowance
from gatewayd.core.ledger import MAX_PAIRS, RETRY_S, Ledger, LedgerRules, Missed, Order, Room
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.renting import PushPrice, RentTerms

DEVICE = DeviceId("d")
A, B, C = ModelName("a"), ModelName("b"), ModelName("c")
PRICE = PushPrice(100.0, air_s=10.0, energy_uj=1000.0)
EMPTY = Room(1, ())


def missed(
    model: ModelName = A, *, saving: float = 10.0, hope: float = 0.0, room: Room = EMPTY, since_s: float | None = None
) -> Missed:
    return Missed((DEVICE, model, 1), saving, 0.0, -hope, PRICE, room, since_s)


def requests_until_push(ledger: Ledger, one: Missed, *, every_s: float, from_s: float = 0.0, most: int = 500) -> int:
    for count in range(1, most + 1):
        if ledger.missed(one, now_s=from_s + count * every_s).is_push:
            return count
    return most + 1


def push(ledger: Ledger, model: ModelName, *, now_s: float) -> None:
    ledger.started((DEVICE, model, 1), PRICE, now_s=now_s)
    ledger.ended((DEVICE, model, 1), PRICE, is_there=True, now_s=now_s)


def test_a_high_rate_pushes_early_and_a_low_one_late() -> None:
    assert requests_until_push(Ledger(), missed(since_s=0.0), every_s=10.0) == 1
    assert requests_until_push(Ledger(), missed(since_s=0.0), every_s=86_400.0) == 12


def test_without_trust_it_is_plain_break_even() -> None:
    ledger = Ledger(LedgerRules(RentTerms(robustness=1.0)))
    assert requests_until_push(ledger, missed(since_s=0.0), every_s=10.0) == 10


def test_a_burst_after_a_long_silence_is_not_taken_for_a_rate() -> None:
    ledger = Ledger()
    one = missed(since_s=0.0)
    assert not any(ledger.missed(one, now_s=80_000.0 + turn).is_push for turn in range(8))
    fooled = Ledger()
    assert requests_until_push(fooled, missed(), every_s=1.0, from_s=80_000.0) <= 3


def test_others_rates_are_a_prior() -> None:
    ledger = Ledger()
    for turn in range(60):
        ledger.served((DeviceId("other"), A, 1), saving=10.0, now_s=10.0 * turn, devices=2)
    assert ledger.missed(replace(missed(), devices=2), now_s=600.0).is_push


def test_silent_siblings_put_a_push_off() -> None:
    """Asked after an hour, a device alone is pushed to; where fifty others were silent all the time, it is not yet."""
    assert Ledger().missed(missed(since_s=0.0), now_s=1500.0).is_push
    assert not Ledger().missed(replace(missed(since_s=0.0), devices=50), now_s=1500.0).is_push
    busy = Ledger()
    pushed = [
        busy.missed(replace(missed(since_s=0.0), devices=50), now_s=1500.0 * turn).is_push for turn in range(1, 5)
    ]
    assert any(pushed)  # its own gaps outvote them


def test_a_standing_order_says_nothing_of_the_others() -> None:
    ledger = Ledger()
    ledger.expect((DeviceId("other"), A, 1), per_s=1.0, until_s=inf, saving=1.0)
    for turn in range(60):
        ledger.served((DeviceId("other"), A, 1), saving=10.0, now_s=float(turn), devices=2)
    (_, fleet), *_ = ledger.kept().pool
    assert fleet.bursts == 0.0


def test_hope_buys_in_the_end() -> None:
    """The prior says that the device is dearer; only by its optimistic bound it is not."""
    ledger = Ledger()
    one = Missed((DEVICE, A, 1), 10.0, 12.0, 5.0, PRICE, EMPTY)
    assert requests_until_push(ledger, one, every_s=10.0) == 24


def test_a_push_that_failed_waits_and_costs_more() -> None:
    ledger = Ledger(LedgerRules(RentTerms(robustness=1.0)))
    assert requests_until_push(ledger, missed(), every_s=1.0) == 10
    ledger.started((DEVICE, A, 1), PRICE, now_s=10.0)
    ledger.ended((DEVICE, A, 1), PRICE, is_there=False, now_s=20.0)
    verdict = ledger.missed(missed(saving=1.0), now_s=21.0)
    assert not verdict.is_push  # 101 J of rent are short of the new price
    verdict = ledger.missed(missed(saving=50.0), now_s=22.0)
    assert verdict.reason == "its last push began less than a minute ago"
    assert ledger.missed(missed(), now_s=20.0 + RETRY_S).is_push


def test_after_a_push_it_starts_anew() -> None:
    ledger = Ledger()
    requests_until_push(ledger, missed(since_s=0.0), every_s=10.0)
    push(ledger, A, now_s=20.0)
    assert ledger.balance((DEVICE, A, 1)).saved_missed == 0.0
    assert ledger.residents(DEVICE)[A].credit == 100.0
    ledger.left(DEVICE, A)
    assert not ledger.residents(DEVICE)


def test_a_standing_order_needs_no_rent() -> None:
    ledger = Ledger()
    order = Order((DEVICE, A, 1), 0.01, inf, 10.0, PRICE, EMPTY, is_measured=True)
    assert ledger.ordered(order, now_s=0.0).is_push
    small = Order((DEVICE, B, 1), 0.01, 900.0, 10.0, PRICE, EMPTY, is_measured=True)
    assert not ledger.ordered(small, now_s=0.0).is_push


def test_a_standing_order_over_an_unknown_link_waits_for_one_answer() -> None:
    ledger = Ledger()
    order = Order((DEVICE, A, 1), 0.01, inf, 10.0, PRICE, EMPTY, is_measured=False)
    assert not ledger.ordered(order, now_s=0.0).is_push
    assert ledger.missed(missed(), now_s=100.0).is_push
    ledger.order_ended((DEVICE, A, 1))
    assert ledger.balance((DEVICE, A, 1)).ordered_until_s is None


def test_an_order_that_is_over_is_no_longer_counted_on() -> None:
    ledger = Ledger()
    ledger.expect((DEVICE, A, 1), per_s=0.01, until_s=50.0, saving=1.0)
    assert not ledger.missed(missed(saving=1.0), now_s=40.0).is_push
    ledger.missed(missed(saving=1.0), now_s=60.0)
    assert ledger.balance((DEVICE, A, 1)).ordered_until_s is None


def full(ledger: Ledger, *, kept: frozenset[ModelName] = frozenset()) -> Room:
    push(ledger, A, now_s=0.0)
    return Room(1, (A,), kept)


def test_a_full_device_gives_way_to_a_model_that_earns_more() -> None:
    ledger = Ledger(LedgerRules(RentTerms(robustness=1.0, horizon_s=1000.0)))
    room = full(ledger)
    count = requests_until_push(ledger, missed(B, room=room), every_s=1.0, from_s=2000.0)
    # The first price it missed drained the credit of A, which nobody asked for; the second one gets it in.
    assert count == 20


def test_a_prediction_gets_it_in_earlier() -> None:
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=1000.0)))
    assert requests_until_push(ledger, missed(B, room=full(ledger)), every_s=1.0, from_s=2000.0) < 10


def test_an_early_push_drives_nobody_out_that_saves_as_much() -> None:
    """A prediction buys at a hundredth of the price; where that costs another model its slot it has to be better than it."""
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=10_000.0)))
    room = full(ledger)
    for turn in range(400):
        now_s = 2000.0 + 10.0 * turn
        ledger.served((DEVICE, A, 1), saving=1.0, now_s=now_s)
        assert not ledger.missed(missed(B, saving=1.0, room=room), now_s=now_s + 5.0).is_push


def test_rent_is_kept_until_it_is_the_price() -> None:
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=10_000.0)))
    room = full(ledger)
    for turn in range(9):
        ledger.served((DEVICE, A, 1), saving=2.0, now_s=2000.0 + 10.0 * turn)
        verdict = ledger.missed(missed(B, saving=1.0, room=room), now_s=2005.0 + 10.0 * turn)
    assert verdict.reason == "nobody there is sure to save less, and b has paid 9 of 300 of rent so far"
    assert ledger.balance((DEVICE, B, 1)).saved_missed == 9.0


def test_an_order_gives_way_to_a_better_one_only() -> None:
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=10_000.0)))
    first = Order((DEVICE, A, 1), 0.1, inf, 1.0, PRICE, EMPTY, is_measured=True)
    assert ledger.ordered(first, now_s=0.0).is_push
    ledger.ended(first.pair, PRICE, is_there=True, now_s=0.0)
    room = Room(1, (A,), ordered=frozenset({A}))
    as_good = Order((DEVICE, B, 1), 0.1, inf, 1.0, PRICE, room, is_measured=True)
    verdict = ledger.ordered(as_good, now_s=200.0)
    assert (verdict.is_push, verdict.reason) == (
        False,
        "every model there is kept or ordered, and none is sure to save less",
    )
    better = Order((DEVICE, C, 1), 0.3, inf, 1.0, PRICE, room, is_measured=True)
    assert ledger.ordered(better, now_s=200.0).evict == A


def test_equal_orders_do_not_take_turns() -> None:
    """What either saves is an estimate: one is always a little ahead."""
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=86_400.0)))
    chance = random.Random(1)  # noqa: S311 - repeatable luck
    room = Room(1, (A,), ordered=frozenset({A}))
    assert ledger.ordered(Order((DEVICE, A, 1), 1.0, inf, 1.0, PRICE, EMPTY, is_measured=True), now_s=0.0).is_push
    ledger.ended((DEVICE, A, 1), PRICE, is_there=True, now_s=0.0)
    assert not ledger.ordered(Order((DEVICE, B, 1), 1.0, inf, 1.0, PRICE, room, is_measured=True), now_s=1.0).is_push
    for turn in range(2, 3000):
        ledger.served((DEVICE, A, 1), saving=chance.gauss(1.0, 0.2), now_s=float(turn))
        assert not ledger.missed(missed(B, saving=chance.gauss(1.0, 0.2), room=room), now_s=turn + 0.5).is_push


def test_what_comes_beside_an_order_counts() -> None:
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=86_400.0)))
    ledger.expect((DEVICE, A, 1), per_s=0.001, until_s=inf, saving=1.0)
    ledger.ended((DEVICE, A, 1), PRICE, is_there=True, now_s=0.0)
    room = Room(1, (A,), ordered=frozenset({A}))
    for turn in range(1, 300):
        ledger.served((DEVICE, A, 1), saving=1.0, now_s=10.0 * turn)
        if turn % 5 == 0:
            assert not ledger.missed(missed(B, saving=1.0, room=room), now_s=10.0 * turn + 5.0).is_push


def test_an_order_that_is_over_keeps_no_slot() -> None:
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=86_400.0)))
    ledger.expect((DEVICE, A, 1), per_s=0.1, until_s=1000.0, saving=1.0)
    ledger.ended((DEVICE, A, 1), PRICE, is_there=True, now_s=0.0)
    for turn in range(100):
        ledger.served((DEVICE, A, 1), saving=1.0, now_s=10.0 * turn)
    assert ledger.is_ordered((DEVICE, A, 1), now_s=1000.0)
    assert not ledger.is_ordered((DEVICE, A, 1), now_s=1001.0)
    count = requests_until_push(ledger, missed(B, saving=5.0, room=Room(1, (A,))), every_s=10.0, from_s=3000.0)
    assert count < 20  # it is silent since: its price once, and no more


def test_who_was_to_leave_is_known_still_when_the_push_failed() -> None:
    ledger = Ledger(LedgerRules(RentTerms(horizon_s=10_000.0)))
    room = full(ledger)
    ledger.served((DEVICE, A, 1), saving=1.0, now_s=1.0)
    before = ledger.residents(DEVICE)[A]
    requests_until_push(ledger, missed(B, room=room), every_s=1.0, from_s=2000.0)
    ledger.started((DEVICE, B, 1), PRICE, now_s=3000.0)
    ledger.ended((DEVICE, B, 1), PRICE, is_there=False, now_s=3010.0)
    ledger.missed(missed(B, room=room), now_s=4000.0)
    after = ledger.residents(DEVICE)[A]
    assert (after.version, after.expected, after.credit <= before.credit) == (1, before.expected, True)


def test_a_saving_that_is_no_number_is_none() -> None:
    ledger = Ledger()
    full(ledger)
    ledger.served((DEVICE, A, 1), saving=inf, now_s=1.0)
    ledger.served((DEVICE, A, 1), saving=nan, now_s=2.0)
    assert ledger.balance((DEVICE, A, 1)).saving == 0.0


def test_what_is_used_stays() -> None:
    ledger = Ledger(LedgerRules(RentTerms(robustness=1.0, horizon_s=1000.0)))
    room = full(ledger)
    for turn in range(300):
        ledger.served((DEVICE, A, 1), saving=20.0, now_s=2000.0 + turn)
        assert not ledger.missed(missed(B, saving=1.0, room=room), now_s=2000.5 + turn).is_push


def test_a_pinned_model_stays_and_a_model_nobody_pushed_here_is_known() -> None:
    ledger = Ledger(LedgerRules(RentTerms(robustness=1.0)))
    room = Room(1, (C,), frozenset({C}))
    assert requests_until_push(ledger, missed(B, room=room), every_s=1.0, most=100) == 101
    assert ledger.residents(DEVICE)[C].is_kept


def test_budgets_hold_pushes_back() -> None:
    rules = LedgerRules(RentTerms(robustness=1.0), air=Allowance(0.01, 10.0), energy=Allowance(1e9, 1e9))
    ledger = Ledger(rules)
    ledger.started((DEVICE, B, 1), PRICE, now_s=0.0)
    for turn in range(9):
        ledger.missed(missed(), now_s=float(turn))
    assert ledger.missed(missed(), now_s=10.0).reason == "airtime budget spent: due in 990 s"
    assert ledger.missed(missed(), now_s=1001.0).is_push
    poor = Ledger(LedgerRules(RentTerms(robustness=1.0), energy=Allowance(1.0, 1000.0)))
    poor.started((DEVICE, B, 1), PRICE, now_s=0.0)
    verdict = poor.missed(missed(saving=100.0), now_s=1.0)
    assert verdict.reason == "battery budget spent: due in 999 s"


def test_a_device_that_is_gone_is_forgotten() -> None:
    ledger = Ledger()
    full(ledger)
    ledger.missed(missed(B), now_s=1.0)
    ledger.started((DEVICE, A, 9), PRICE, now_s=2.0)
    ledger.forget_device(DEVICE)
    assert ledger.balance((DEVICE, B, 1)).requests == 0
    assert not ledger.residents(DEVICE)
    assert ledger.kept().not_before == ()


@pytest.mark.parametrize("extra", [10])
def test_it_is_bounded(extra: int) -> None:
    ledger = Ledger()
    for number in range(MAX_PAIRS + extra):
        pair = (DeviceId(f"d{number}"), A, 1)
        ledger.missed(Missed(pair, 1.0, 0.0, 0.0, PRICE, EMPTY), now_s=float(number))
    assert ledger.balance((DeviceId("d0"), A, 1)).requests == 0
    assert ledger.balance((DeviceId(f"d{extra}"), A, 1)).requests == 1


def test_a_pair_takes_less_than_a_kilobyte() -> None:
    """Of the 2 KB per active pair that the ledger and the estimators have together."""
    ledger, count = Ledger(), 2000
    pairs = [(DeviceId(f"d{number}"), A, 1) for number in range(count)]
    tracemalloc.start()
    try:
        for turn in range(3):
            for number, pair in enumerate(pairs):
                one = Missed(pair, 1.5 + number, 0.7, 0.3, PRICE, EMPTY)
                ledger.missed(one, now_s=turn * 3600.0 + number)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / count < 1024


rooms = st.builds(
    lambda slots, held, kept: Room(slots, tuple(held), frozenset(kept)),
    st.integers(0, 3), st.lists(st.sampled_from([B, C]), max_size=2, unique=True), st.sets(st.sampled_from([B, C])),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(rooms, st.floats(0, 200), st.floats(0, 1e5)), max_size=30))
def test_a_push_is_only_asked_for_where_there_is_room_or_somebody_may_leave(
    asked: list[tuple[Room, float, float]],
) -> None:
    """Whatever was asked before, and whatever the device says it holds now."""
    ledger, now_s = Ledger(), 0.0
    for room, saving, gap_s in asked:
        now_s += gap_s
        verdict = ledger.missed(missed(saving=saving, room=room), now_s=now_s)
        if verdict.is_push and verdict.evict is None:
            assert len(room.held) < room.slots
        if verdict.evict is not None:
            assert verdict.is_push
            assert verdict.evict in room.held
            assert verdict.evict not in room.kept


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 1e5)), max_size=60), st.floats(0.01, 1.0), st.floats(0, 1e5))
def test_never_more_than_a_price_and_a_fifth_is_missed_before_a_push(
    asked: list[tuple[float, float]], robustness: float, born_s: float
) -> None:
    """Whatever rates and ends are predicted: they may bring a push forward, and put it off by a fifth of its price at most."""
    ledger, rent, now_s = Ledger(LedgerRules(RentTerms(robustness=robustness))), 0.0, born_s
    for saving, gap_s in asked:
        now_s += gap_s
        one = Missed((DEVICE, A, 1), saving, 0.0, 0.0, PRICE, EMPTY, born_s=born_s)
        verdict = ledger.missed(one, now_s=now_s)
        rent += saving
        assert verdict.is_push or rent < 1.2 * PRICE.cost * (1 + 1e-9)
        if verdict.is_push:
            assert rent >= robustness * PRICE.cost * (1 - 1e-9)
            return
