"""The scenarios of `bench.placement`: boards × models × links × classes × loads × drift, on a grid of load over break-even."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gatewayd.core.cost import Costs, Weights
from gatewayd.simulate.boards import BOARDS, LINKS, MODELS, Board, Link, Model
from gatewayd.simulate.gateway import FLASH_WEAR
from gatewayd.simulate.scenario import CLASSES, Change, Group, Load, Scenario

RATIOS = (0.1, 0.5, 1.0, 2.0, 10.0, 100.0)
ARRIVALS = ("poisson", "periodic", "bursts", "diurnal", "adversarial")
DRIFTS = ("", "link slower", "link faster", "device slower", "asked more", "asked less")
DAY_S = 86_400.0
# Break-even below this is no question, above it no run of this length reaches a hundred times it.
LEAST, MOST = 8.0, 300.0
MOST_REQUESTS = 8_000
# Devices of a scenario: a pair of them, and a fleet, in which each request tells of all the others.
PAIR, FLEET = 2, 12
# A fleet at a hundred times the break-even is decided within its first minutes, and takes as long to play as all the rest.
MOST_OF_FLEET = 10.0
# Deviations of the logarithm: of a device's rate around its load's, and of a scenario's length around a day.
SPREAD, UNSURE_LENGTH = 0.2, 0.25


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario of the grid: `ratio` is the requests expected per pair over its break-even, in undrifted conditions."""

    scenario: Scenario
    ratio: float
    drift: str


@dataclass(frozen=True, slots=True)
class _Pairing:
    board: Board
    model: Model
    link: Link
    request_class: str
    break_even: float


def cases(count: int, *, seed: int, devices: int = PAIR) -> Iterator[Case]:
    """Yield `count` cases: the grid of ratio, load and drift in turn, everything else drawn from the seed.

    With other numbers of `devices` the scenarios are the same but for that.
    """
    chance = random.Random(seed)
    pairings = list(_pairings())
    for index in range(count):
        ratio = RATIOS[index % len(RATIOS)]
        arrival = ARRIVALS[(index // len(RATIOS)) % len(ARRIVALS)]
        # Half of the cases drift, each way equally often.
        drift = DRIFTS[1 + (index // 2) % 5] if (index // len(RATIOS)) % 2 else ""
        fitting = [each for each in pairings if each.break_even * ratio <= MOST_REQUESTS]
        board = chance.choice(sorted({each.board.name for each in fitting}))
        model = chance.choice(sorted({each.model.name for each in fitting if each.board.name == board}))
        pairing = chance.choice([each for each in fitting if (each.board.name, each.model.name) == (board, model)])
        if arrival == "periodic" and drift.startswith("asked"):
            drift = "link slower"  # a standing order is asked as it was ordered
        case = _case(index, pairing, ratio=ratio, arrival=arrival, drift=drift, chance=chance)
        (group,) = case.scenario.devices
        yield replace(case, scenario=replace(case.scenario, devices=(replace(group, count=devices),)))


def _case(index: int, pairing: _Pairing, *, ratio: float, arrival: str, drift: str, chance: random.Random) -> Case:
    # The policies take a day for the time that a model is of use; how long it truly is, they are not told.
    duration_s = DAY_S * chance.lognormvariate(0.0, UNSURE_LENGTH)
    load = Load(
        "board",
        pairing.model.name,
        pairing.break_even * ratio / duration_s,
        arrival,
        burst=chance.choice((3, 10, 30)),
        spread=0.0 if arrival == "periodic" else SPREAD,
    )
    scenario = Scenario(
        name=f"{index}: {pairing.board.name}, {pairing.model.name}, {pairing.link.name}, {pairing.request_class}, {arrival}",
        duration_s=duration_s,
        devices=(Group("board", pairing.board.name, pairing.link.name, PAIR, battery_j=1e6),),
        load=(load,),
        changes=drift_of(drift, duration_s * chance.uniform(0.2, 0.8), chance),
        seed=chance.randrange(2**31),
        request_class=pairing.request_class,
        weights=CLASSES[pairing.request_class],
    )
    return Case(scenario, ratio, drift)


def drift_of(drift: str, at_s: float, chance: random.Random) -> tuple[Change, ...]:
    factor = chance.uniform(2.0, 5.0)
    match drift:
        case "link slower":
            return (Change("link", at_s, "board", 1.0 / factor),)
        case "link faster":
            return (Change("link", at_s, "board", factor),)
        case "device slower":
            return (Change("compute", at_s, "board", factor),)
        case "asked more":
            return (Change("rate", at_s, "board", factor),)
        case "asked less":
            return (Change("rate", at_s, "board", 1.0 / factor),)
        case _:
            return ()


def break_even_of(scenario: Scenario) -> float:
    """Return after how many requests a push has paid for itself in a scenario of this grid, by the true figures."""
    group, load = scenario.devices[0], scenario.load[0]
    return break_even_between(BOARDS[group.board], MODELS[load.model], LINKS[group.link], scenario.weights)


def _pairings() -> Iterator[_Pairing]:
    for request_class in ("default", "fast", "battery", "airtime"):
        weights = CLASSES[request_class]
        for board in BOARDS.values():
            for model in MODELS.values():
                for link in LINKS.values():
                    break_even = break_even_between(board, model, link, weights)
                    if LEAST <= break_even <= MOST:
                        yield _Pairing(board, model, link, request_class, break_even)


def break_even_between(board: Board, model: Model, link: Link, weights: Weights) -> float:
    """Return after how many requests a push has paid for itself, by the true figures; inf where the node is cheaper."""
    if model.name not in board.seconds or model.size_bytes > board.flash_bytes:
        return math.inf
    node = Costs(model.input_bytes / link.bytes_per_s + model.node_s, model.input_bytes, model.input_bytes, 0.0)
    device = Costs(
        model.output_bytes / link.bytes_per_s + board.seconds[model.name],
        board.energy_uj[model.name],
        model.output_bytes,
        0.0,
    )
    push_s = model.size_bytes / link.bytes_per_s + math.ceil(model.size_bytes / link.chunk_bytes) * link.rtt_s
    price = weights.total(Costs(push_s, model.size_bytes, model.size_bytes, 0.0)) + FLASH_WEAR
    saving = weights.total(node) - weights.total(device)
    return price / saving if saving > 0.0 else math.inf
