"""What nobody can beat: a clairvoyant's bill for a world.

A device that is asked for one model: exact. The clairvoyant pushes never, or at the start, or when its link has changed (in
between, waiting gains nothing), and the push takes its time. A device that is asked for several: dynamic programming over the
requests and over what the slots hold, exact for pushes that take no time and are priced at the lowest the link has asked so far,
and so a proven lower bound for real ones. Both take pushes that always work, and queues that are always empty.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import combinations

from gatewayd.core.names import DeviceId
from gatewayd.simulate.boards import Model
from gatewayd.simulate.engine import unserved_cost
from gatewayd.simulate.gateway import FLASH_WEAR
from gatewayd.simulate.world import Ask, Station, World

_Held = frozenset[str]


def optimum(world: World) -> float:
    """Return the bill over all devices, in J."""
    return sum(by_station(world).values())


def by_station(world: World) -> dict[DeviceId, float]:
    """Return each device's bill."""
    asks: dict[DeviceId, list[Ask]] = {station.id: [] for station in world.stations}
    for ask in world.asks:
        asks[ask.station.id].append(ask)
    return {station.id: _cheapest(world, station, asks[station.id]) for station in world.stations}


def _cheapest(world: World, station: Station, asks: Sequence[Ask]) -> float:
    models = {ask.model.name: ask.model for ask in asks if station.can_run(ask.model)}
    if len(models) == 1:
        return _cheapest_start(world, station, next(iter(models.values())), asks)
    states = _states(models, station.group.slots)
    costs = dict.fromkeys(states, float("inf"))
    costs[frozenset()] = 0.0
    prices = dict.fromkeys(models, float("inf"))
    for ask in asks:
        for name, model in models.items():
            prices[name] = min(prices[name], _price(world, station, model, ask.at_s))
        costs = _moved(costs, ask.model.name, prices)
        node, device = _bills(world, ask)
        costs = {held: cost + (min(node, device) if ask.model.name in held else node) for held, cost in costs.items()}
    return min(costs.values())


def _cheapest_start(world: World, station: Station, model: Model, asks: Sequence[Ask]) -> float:
    """Try every moment at which a push may start best: what was paid until it is there, its price, and what is paid then."""
    times, never, rest = [ask.at_s for ask in asks], [0.0], [0.0]
    for ask in asks:
        node, device = _bills(world, ask)
        never.append(never[-1] + node)
        rest.append(rest[-1] + (min(node, device) if ask.model.name == model.name else node))
    best = never[-1]
    for start_s in (0.0, *world.changes_s(station)):
        there_s = start_s + world.push_run(station, model, start_s).link_s
        first = bisect_right(times, there_s)
        paid = never[first] + _price(world, station, model, start_s) + rest[-1] - rest[first]
        best = min(best, paid)
    return best


def _states(models: dict[str, Model], slots: int) -> list[_Held]:
    most = min(slots, len(models))
    return [frozenset(chosen) for size in range(most + 1) for chosen in combinations(sorted(models), size)]


def _moved(costs: dict[_Held, float], asked: str, prices: dict[str, float]) -> dict[_Held, float]:
    """Push what is asked, if it pays: into a free slot, or for any other model. Pushing anything else now gains nothing."""
    if asked not in prices:
        return costs
    moved = dict(costs)
    for held, cost in costs.items():
        if asked in held:
            continue
        with_it = cost + prices[asked]
        for after in (held | {asked}, *(held - {gone} | {asked} for gone in held)):
            if after in moved and with_it < moved[after]:
                moved[after] = with_it
    return moved


def _bills(world: World, ask: Ask) -> tuple[float, float]:
    weights = world.scenario.weights
    if not world.is_reachable(ask.station, ask.at_s):
        lost = unserved_cost(world, ask)
        return lost, lost
    node = weights.total(world.node_run(ask).costs())
    if not ask.station.can_run(ask.model):
        return node, node
    return node, weights.total(world.device_run(ask).costs())


def _price(world: World, station: Station, model: Model, now_s: float) -> float:
    return world.scenario.weights.total(world.push_run(station, model, now_s).costs()) + FLASH_WEAR
