from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.budget import Allowance
from gatewayd.core.damping import STEADY, DampingRules
from gatewayd.core.kept import Kept
from gatewayd.core.learned import Learned, kept_now
from gatewayd.core.ledger import Ledger, LedgerRules, Missed, Order, Room, Verdict
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.renting import Pair, PushPrice, RentTerms

DEVICES = [DeviceId("d1"), DeviceId("d2")]
MODELS = [ModelName("a"), ModelName("b"), ModelName("c")]
PRICE = PushPrice(50.0, air_s=8.0, energy_uj=100.0)
RULES = LedgerRules(RentTerms(horizon_s=4096.0), air=Allowance(0.125, 16.0))

happenings = st.tuples(
    st.sampled_from(["missed", "missed", "missed", "served", "ordered", "ended"]),
    st.sampled_from(DEVICES), st.sampled_from(MODELS), st.integers(1, 512), st.integers(0, 40),
)  # fmt: skip


class Play:
    """A ledger, what is on the devices, and every verdict so far."""

    def __init__(self) -> None:
        self.ledger = Ledger(RULES)
        self.held: dict[DeviceId, set[ModelName]] = {device: set() for device in DEVICES}
        self.verdicts: list[Verdict] = []

    def happens(self, what: tuple[str, DeviceId, ModelName, int, int], *, now_s: float) -> None:
        kind, device, model, _, saving = what
        pair: Pair = (device, model, 1)
        room = Room(2, tuple(sorted(self.held[device])))
        if model in self.held[device]:
            self.ledger.served(pair, saving=float(saving), now_s=now_s)
            return
        match kind:
            case "ordered":
                order = Order(pair, 0.125, now_s + 1024.0, float(saving), PRICE, room, is_measured=True)
                verdict = self.ledger.ordered(order, now_s=now_s)
            case _:
                missed = Missed(pair, float(saving), 0.0, -1.0, PRICE, room, since_s=now_s - 64.0, devices=3)
                verdict = self.ledger.missed(missed, now_s=now_s)
        self.verdicts.append(verdict)
        if verdict.is_push:
            self.ledger.started(pair, PRICE, now_s=now_s)
            self.ledger.ended(pair, PRICE, is_there=kind != "ended", now_s=now_s)
            if kind != "ended":
                self.held[device] -= {verdict.evict}
                self.held[device].add(model)


def restarted(ledger: Ledger, by_s: float) -> Ledger:
    fresh = Ledger(RULES)
    fresh.restore(ledger.kept().moved(by_s))
    return fresh


@settings(deadline=None)
@given(st.lists(happenings, max_size=40), st.integers(0, 39), st.integers(-(2**20), 2**20))
def test_a_ledger_that_was_restarted_decides_as_if_it_had_not_been(
    events: list[tuple[str, DeviceId, ModelName, int, int]], cut: int, by_s: int
) -> None:
    """No balance, budget, credit, rate or order is lost, whatever the new clock shows."""
    unbroken, broken, shift, now_s = Play(), Play(), 0.0, 1000.0
    for turn, event in enumerate(events):
        now_s += event[3]
        if turn == cut:
            broken.ledger, shift = restarted(broken.ledger, by_s), float(by_s)
        unbroken.happens(event, now_s=now_s)
        broken.happens(event, now_s=now_s + shift)
    assert broken.verdicts == unbroken.verdicts
    found, expected = broken.ledger.kept().moved(-shift), unbroken.ledger.kept()
    assert (found.pairs, found.not_before, found.pool) == (expected.pairs, expected.not_before, expected.pool)
    for mine, theirs in zip(found.devices, expected.devices, strict=True):
        assert (mine.air, mine.energy) == (theirs.air, theirs.energy)
        assert [(each.model, each.credit) for each in mine.residents] == [
            (each.model, each.credit) for each in theirs.residents
        ]


def test_rent_that_was_saved_up_before_the_model_came_pays_for_no_second_push() -> None:
    """The checkpoint is older than the push: the balance comes back, and the model is there already."""
    ledger, pair = Ledger(LedgerRules(RentTerms(robustness=1.0))), (DEVICES[0], MODELS[0], 1)
    missed = Missed(pair, 10.0, 0.0, 0.0, PRICE, Room(1, ()))
    assert not any(ledger.missed(missed, now_s=float(turn)).is_push for turn in range(4))
    ledger.served(pair, saving=10.0, now_s=5.0)
    assert not any(ledger.missed(missed, now_s=10.0 + turn).is_push for turn in range(4))
    assert ledger.missed(missed, now_s=20.0).is_push


def test_what_is_held_off_stays_so_over_a_restart() -> None:
    rules, damping = DampingRules(comings=2, within_s=10, first_s=60, most_s=200, calm_s=1000), STEADY
    for now_s in (5001.0, 5002.0):
        damping = damping.came(now_s, rules)
    learned = Learned(kept=Kept(dampings=((DEVICES[0], damping),)), at_s=5010.0, at=1e9)
    ((_, after),) = kept_now(learned, now_s=7.0, now=1e9 + 20.0).dampings
    assert after.holds(7.0)
    assert after.until_s == 7.0 + 52.0 - 20.0
    assert after.strikes == 1


def test_a_wall_clock_that_was_set_back_makes_no_time_pass() -> None:
    ledger, pair = Ledger(), (DEVICES[0], MODELS[0], 1)
    ledger.expect(pair, per_s=1.0, until_s=160.0, saving=1.0)
    learned = Learned(kept=ledger.kept(), at_s=100.0, at=1e9)
    ((_, one),) = kept_now(learned, now_s=7.0, now=0.0).pairs
    assert one.ordered_until_s == 67.0
    ((_, late),) = kept_now(replace(learned, at=0.0), now_s=7.0, now=1e10).pairs
    assert late.ordered_until_s == 67.0 - 366 * 86_400
