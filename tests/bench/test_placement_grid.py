from dataclasses import replace

from bench.placement_grid import FLEET, PAIR, cases
from gatewayd.simulate.world import World


def test_a_fleet_plays_the_same_scenarios_with_more_devices() -> None:
    pairs, fleets = (list(cases(24, seed=5, devices=devices)) for devices in (PAIR, FLEET))
    assert [each.scenario.devices[0].count for each in fleets] == [FLEET] * 24
    for pair, fleet in zip(pairs, fleets, strict=True):
        assert replace(fleet, scenario=replace(fleet.scenario, devices=pair.scenario.devices)) == pair


def test_the_first_devices_of_a_fleet_are_asked_as_the_pair_is() -> None:
    pair, fleet = (next(iter(cases(1, seed=5, devices=devices))).scenario for devices in (PAIR, FLEET))
    first = {station.id for station in World(pair).stations}
    assert [ask.at_s for ask in World(pair).asks] == [ask.at_s for ask in World(fleet).asks if ask.station.id in first]
    assert World(fleet).fleets() == {fleet.load[0].model: FLEET}
