from dataclasses import replace

import pytest

from gatewayd.core.ledger import LedgerRules
from gatewayd.core.renting import RentTerms
from gatewayd.simulate.baselines import Baseline, DeviceOnly
from gatewayd.simulate.boards import Link
from gatewayd.simulate.carriage import Overheads
from gatewayd.simulate.engine import Outcome, Simulation, Tally
from gatewayd.simulate.gateway import GatewayPolicy
from gatewayd.simulate.optimum import optimum
from gatewayd.simulate.policy import Policy
from gatewayd.simulate.scenario import Change, Group, Load, Scenario
from gatewayd.simulate.world import World

AIR = Link("air", 0.1, 10_000.0, 0.0, 1024)
NOTHING = Overheads(0.0, 0.0, 0.0, 0.0, 0.0)
CAMERA = Group("cam", "nucleo-h7a3zi-q", "air")
HOUR = Scenario(
    "hour", 3600.0, (CAMERA,), (Load("cam", "ic", 0.02),), links=(AIR,), noise=0.0, overheads=NOTHING, ping_every_s=1e6
)


def over(protocol: str, **changed: object) -> Scenario:
    """The hour over a protocol."""
    return replace(HOUR, devices=(replace(CAMERA, protocol=protocol),), **changed)  # type: ignore[arg-type]  # fields of it


def ours(scenario: Scenario) -> GatewayPolicy:
    return GatewayPolicy(scenario.weights, LedgerRules(RentTerms()), watched_s=scenario.watched_s)


def played(scenario: Scenario, policy: Policy | None = None) -> tuple[Tally, list[Outcome]]:
    seen: list[Outcome] = []
    return Simulation(World(scenario), policy or ours(scenario), watch=seen.append).run(), seen


def alone(scenario: Scenario, policy: Policy) -> float:
    """The least latency: that of a request that waits for nothing."""
    return min(played(scenario, policy)[0].latencies_s)


def test_a_request_takes_what_its_protocol_asks_for() -> None:
    node = Baseline(HOUR.weights)
    link_s = AIR.rtt_s + 3072 / AIR.bytes_per_s
    plain, mqtt, lwm2m = (alone(over(protocol), node) for protocol in ("", "mqtt", "lwm2m"))
    assert plain == pytest.approx(link_s, abs=1e-3)
    # Heads of 124 bytes; and over LwM2M two questions, of which the second one's answer has four blocks.
    assert mqtt == pytest.approx(link_s + 0.0124, abs=1e-3)
    assert lwm2m == pytest.approx(link_s + 4 * 0.1 + 5 * 0.0104 + 0.01, abs=1e-3)


def test_a_machine_adds_what_was_measured_on_it() -> None:
    node, told = Baseline(HOUR.weights), Overheads(5.0, 3.0, 2.0, 0.0, 0.0)
    for protocol, extra_s in (("", 0.0), ("mqtt", 0.008), ("lwm2m", 0.005 + 5 * 0.002)):
        before, after = alone(over(protocol), node), alone(over(protocol, overheads=told), node)
        assert after - before == pytest.approx(extra_s, abs=1e-6), protocol


def test_what_is_asked_at_once_waits_in_turn_over_lwm2m_and_for_bytes_only_over_mqtt() -> None:
    burst = (Load("cam", "ic", 0.5, "bursts", burst=3, at_most=3),)
    node = Baseline(HOUR.weights)
    mqtt, lwm2m = (over(protocol, load=burst, duration_s=120.0) for protocol in ("mqtt", "lwm2m"))
    waited = max(played(lwm2m, node)[0].latencies_s) - alone(over("lwm2m"), node)
    assert waited > 1.5 * alone(over("lwm2m"), node)
    # The round trip of the first one is not waited for, its bytes are.
    waited = max(played(mqtt, node)[0].latencies_s) - alone(over("mqtt"), node)
    assert 0.3 < waited < 2 * (alone(over("mqtt"), node) - AIR.rtt_s)


def test_a_push_leaves_half_the_air_to_requests() -> None:
    calm, busy = (over("mqtt", load=(Load("cam", "ic", per_s),)) for per_s in (0.02, 1.0))
    first, second = (played(each, DeviceOnly(each.weights))[0].pushed[0] for each in (calm, busy))
    assert (first.is_there, second.is_there) == (True, True)
    assert second.end_s - second.start_s > 1.5 * (first.end_s - first.start_s)


def test_requests_are_slower_while_a_push_is_on_its_way() -> None:
    scenario = over("mqtt", load=(Load("cam", "ic", 1.0),))
    tally, seen = played(scenario, DeviceOnly(scenario.weights))
    (push,) = tally.pushed
    during = [each.latency_s for each in seen if each.latency_s and push.start_s < each.ask.at_s < push.end_s]
    assert max(during) > 1.1 * alone(over("mqtt"), Baseline(HOUR.weights))


@pytest.mark.parametrize("protocol", ["mqtt", "lwm2m"])
def test_a_push_outlasts_an_outage(protocol: str) -> None:
    load = (Load("cam", "ic", 0.5, deadline_s=600.0),)
    calm = over(protocol, load=load)
    (push,) = played(calm, DeviceOnly(calm.weights))[0].pushed
    middle_s = (push.start_s + push.end_s) / 2.0
    out = replace(calm, changes=(Change("outage", middle_s, "cam", for_s=300.0),))
    tally, seen = played(out, DeviceOnly(out.weights))
    (late,) = tally.pushed
    assert late.is_there
    assert late.end_s > push.end_s + 250.0
    assert tally.unserved == sum(each.latency_s is None for each in seen) > 100


def test_lost_datagrams_are_asked_for_again() -> None:
    lossy = over("lwm2m", links=(replace(AIR, loss=0.1),))
    node = Baseline(HOUR.weights)
    clean, tally = played(over("lwm2m"), node)[0], played(lossy, node)[0]
    assert tally.unserved == 0
    assert sum(tally.latencies_s) > 1.2 * sum(clean.latencies_s)
    assert played(lossy, Baseline(HOUR.weights))[0].latencies_s == tally.latencies_s


def test_who_is_late_is_not_served() -> None:
    scenario = over("lwm2m", load=(Load("cam", "ic", 0.02, deadline_s=0.5),))
    tally, seen = played(scenario, Baseline(scenario.weights))
    assert tally.unserved == len(seen) > 0
    assert {each.latency_s for each in seen} == {None}


@pytest.mark.parametrize("protocol", ["mqtt", "lwm2m"])
def test_nobody_beats_the_clairvoyant_over_a_protocol(protocol: str) -> None:
    scenario = over(protocol, load=(Load("cam", "ic", 0.2),), changes=(Change("link", 900.0, "cam", 0.4),))
    for policy in (ours(scenario), Baseline(scenario.weights), DeviceOnly(scenario.weights)):
        assert played(scenario, policy)[0].total >= optimum(World(scenario)), policy.name


def test_a_gateway_that_has_just_started_takes_no_silence_for_a_sign() -> None:
    late = over("mqtt", load=(Load("cam", "ic", 0.2, from_s=1800.0),))
    started, watched = (played(replace(late, watched_s=seconds))[0].pushed for seconds in (0.0, 3600.0))
    assert started[0].start_s < watched[0].start_s


def test_a_push_under_way_is_not_asked_for_again() -> None:
    """Over a link this slow a push lasts longer than a failed one is waited for."""
    slow = over("mqtt", links=(replace(AIR, bytes_per_s=600.0),), load=(Load("cam", "ic", 0.05),), duration_s=7200.0)
    tally, _ = played(slow)
    assert [each.is_there for each in tally.pushed] == [True]
    assert tally.pushed[0].end_s - tally.pushed[0].start_s > 120.0
    assert tally.failed_pushes == 0
