from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.ledger import LedgerRules
from gatewayd.core.renting import RentTerms
from gatewayd.simulate.baselines import BASELINES, Baseline, BreakEven, DeviceOnly
from gatewayd.simulate.boards import BOARDS, LINKS, MODELS
from gatewayd.simulate.engine import Simulation, Tally
from gatewayd.simulate.gateway import FLASH_WEAR, GatewayPolicy
from gatewayd.simulate.optimum import optimum
from gatewayd.simulate.policy import Policy
from gatewayd.simulate.scenario import ARRIVALS, CLASSES, Change, Group, Load, Scenario
from gatewayd.simulate.world import World

CAMERA = Group("cam", "nucleo-u575zi-q", "ble", count=2)
DAY = Scenario("day", 86_400.0, (CAMERA,), (Load("cam", "vww", 0.002),))


def policies(scenario: Scenario) -> list[Policy]:
    rules = LedgerRules(RentTerms(horizon_s=scenario.horizon_s), air=scenario.air, energy=scenario.energy)
    return [GatewayPolicy(scenario.weights, rules), *(make(scenario.weights) for make in BASELINES.values())]


def played(scenario: Scenario) -> dict[str, Tally]:
    world = World(scenario)
    return {policy.name: Simulation(world, policy).run() for policy in policies(scenario)}


def ours(scenario: Scenario) -> Tally:
    return Simulation(World(scenario), policies(scenario)[0]).run()


def test_the_same_seed_is_the_same_study_and_another_one_is_not() -> None:
    assert played(DAY) == played(DAY)
    assert World(DAY).asks != World(replace(DAY, seed=2)).asks


def test_every_policy_meets_every_request() -> None:
    tallies = played(DAY)
    count = len(World(DAY).asks)
    assert {each.requests for each in tallies.values()} == {count}
    assert all(len(each.latencies_s) == count for each in tallies.values())
    assert all(each.total == pytest.approx(sum(each.by_pair.values())) for each in tallies.values())


def test_the_daemons_policy_is_near_the_optimum_when_a_push_pays_many_times() -> None:
    tallies, least = played(DAY), optimum(World(DAY))
    assert tallies["gatewayd"].total <= 1.15 * least
    assert tallies["node-only"].total > 5 * least
    assert tallies["gatewayd"].pushes == 2


def test_nothing_is_pushed_that_the_node_serves_cheaper() -> None:
    slow = replace(DAY, devices=(replace(CAMERA, board="nucleo-g0b1re"),), load=(Load("cam", "kws", 0.01),))
    tally = ours(slow)
    assert (tally.pushes, tally.on_device) == (0, 0)


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_the_mean_rate_is_what_was_asked_for(arrival: str) -> None:
    load = Load("cam", "vww", 0.05, arrival, burst=10)
    asks = World(replace(DAY, load=(load,), duration_s=4 * 86_400.0)).asks
    assert len(asks) == pytest.approx(0.05 * 4 * 86_400 * 2, rel=0.15)


SCENARIOS = st.builds(
    lambda board, link, model, arrival, request_class, seed, slots, factor: Scenario(
        "drawn",
        20_000.0,
        (Group("g", board, link, count=2, slots=slots, battery_j=1e6),),
        (Load("g", model, 0.003, arrival), Load("g", "speaker", 0.003)),
        (Change("link", 8000.0, "g", factor), Change("outage", 12_000.0, "g", for_s=500.0)),
        seed=seed,
        weights=CLASSES[request_class],
        push_failure=0.2,
    ),
    st.sampled_from(sorted(BOARDS)), st.sampled_from(sorted(LINKS)), st.sampled_from(["kws", "vww", "ic"]),
    st.sampled_from(ARRIVALS), st.sampled_from(sorted(CLASSES)), st.integers(0, 1000), st.integers(1, 2), st.floats(0.2, 5.0),
)  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(SCENARIOS)
def test_nobody_beats_the_clairvoyant(scenario: Scenario) -> None:
    least = optimum(World(scenario))
    for name, tally in played(scenario).items():
        assert tally.total >= least * (1 - 1e-9), name


def test_the_optimum_is_that_of_trying_everything() -> None:
    """One device, one slot, two models, few requests: every course of pushes is tried."""
    scenario = replace(
        DAY,
        devices=(replace(CAMERA, count=1),),
        load=(Load("cam", "vww", 0.0001, at_most=4), Load("cam", "ic", 0.0002, at_most=4)),
        weights=CLASSES["airtime"],
    )
    world = World(scenario)
    total = scenario.weights.total
    best = float("inf")
    for course in product((None, "vww", "ic"), repeat=len(world.asks)):
        held, cost = None, 0.0
        for ask, wanted in zip(world.asks, course, strict=True):
            if wanted not in {held, None}:
                cost += total(world.push_run(ask.station, MODELS[str(wanted)], 0.0).costs()) + FLASH_WEAR
                held = wanted
            node, device = total(world.node_run(ask).costs()), total(world.device_run(ask).costs())
            cost += min(node, device) if held == ask.model.name else node
        best = min(best, cost)
    assert len(world.asks) == 8
    assert optimum(world) == pytest.approx(best)


def test_the_optimum_of_one_model_counts_the_time_that_a_push_takes() -> None:
    """Every start of a push is tried, on a grid of seconds."""
    scenario = replace(
        DAY,
        devices=(replace(CAMERA, count=1, link="nb-iot"),),
        load=(Load("cam", "vww", 0.0005),),
        changes=(Change("link", 20_000.0, "cam", 3.0),),
        weights=CLASSES["airtime"],
    )
    world = World(scenario)
    (station,), total = world.stations, scenario.weights.total
    bills = [(ask.at_s, total(world.node_run(ask).costs()), total(world.device_run(ask).costs())) for ask in world.asks]
    best = sum(node for _, node, _ in bills)
    for start_s in range(0, 86_400, 10):
        push = world.push_run(station, MODELS["vww"], start_s)
        there_s = start_s + push.link_s
        paid = sum(node if at_s <= there_s else min(node, device) for at_s, node, device in bills)
        best = min(best, paid + total(push.costs()) + FLASH_WEAR)
    assert optimum(world) == pytest.approx(best)


def test_a_standing_order_is_met_after_its_first_answer() -> None:
    ordered = replace(DAY, devices=(replace(CAMERA, count=1),), load=(Load("cam", "vww", 0.01, "periodic"),))
    tally = ours(ordered)
    assert tally.pushes == 1
    assert tally.requests - tally.on_device <= 2


def test_the_model_of_a_standing_order_stays() -> None:
    load = (Load("cam", "vww", 0.001, "periodic"), Load("cam", "ic", 0.05, from_s=20_000.0))
    tally = ours(replace(DAY, load=load))
    assert (tally.pushes, tally.evictions) == (2, 0)


def test_a_model_that_earns_more_takes_the_slot() -> None:
    load = (Load("cam", "vww", 0.01, until_s=40_000.0), Load("cam", "ic", 0.1, from_s=43_000.0))
    scenario = replace(DAY, devices=(replace(CAMERA, board="nucleo-h7a3zi-q", count=1),), load=load)
    tally = ours(scenario)
    assert (tally.pushes, tally.evictions) == (2, 1)


def test_while_a_link_is_down_nobody_is_served() -> None:
    tallies = played(replace(DAY, changes=(Change("outage", 10_000.0, "cam", for_s=20_000.0),)))
    lost = {each.unserved for each in tallies.values()}
    assert len(lost) == 1
    assert lost != {0}


def test_pushes_that_fail_are_counted_and_tried_again() -> None:
    tally = ours(replace(DAY, push_failure=0.7))
    assert tally.failed_pushes > 0
    assert tally.pushes == tally.failed_pushes + 2


def test_an_empty_battery_ends_it() -> None:
    tally = Simulation(World(replace(DAY, devices=(replace(CAMERA, battery_j=1.0),))), Baseline(DAY.weights)).run()
    assert tally.unserved > 0


def test_a_push_the_budget_does_not_allow_waits() -> None:
    # One push of 0.33 J leaves a debt of more than two days; a second model waits.
    load = (Load("cam", "vww", 0.01), Load("cam", "ic", 0.05, from_s=20_000.0))
    free = replace(DAY, devices=(replace(CAMERA, board="nucleo-h7a3zi-q", slots=2, count=1),), load=load)
    assert ours(free).pushes == 2
    assert ours(replace(free, push_j_per_day=0.1)).pushes == 1


def test_break_even_pays_twice_when_the_load_stops_there() -> None:
    world = World(DAY)
    tally = Simulation(world, BreakEven(DAY.weights)).run()
    assert 1.0 < tally.total / optimum(world) < 2.0


def test_a_queue_on_the_node_is_waited_for() -> None:
    busy = replace(DAY, node_servers=1, changes=(Change("node", 0.0, factor=1e6),))
    calm = Simulation(World(DAY), Baseline(DAY.weights)).run()
    slow = Simulation(World(busy), Baseline(DAY.weights)).run()
    assert max(slow.latencies_s) > max(calm.latencies_s) + 170.0
    assert slow.late > 0
    assert Simulation(World(busy), DeviceOnly(DAY.weights)).run().late < slow.late
