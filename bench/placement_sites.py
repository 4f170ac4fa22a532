"""Whole sites for `bench.placement`: all twelve boards, each on a link of its own and asked for four or five models.

A site's pairs lie anywhere on the grid of requests over break-even, and some models are never worth their push on some boards.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.placement_grid import ARRIVALS, DAY_S, DRIFTS, RATIOS, SPREAD, UNSURE_LENGTH, break_even_between, drift_of
from gatewayd.simulate.boards import BOARDS, LINKS, MODELS
from gatewayd.simulate.scenario import CLASSES, Change, Group, Load, Scenario

MODELS_OF_A_BOARD = (4, 5)
# Room for one, two or three of the models, and for all of them.
SLOTS = (1, 2, 3, 5)
CLASSES_OF_SITES = ("default", "fast", "battery", "airtime")
# Requests of a pair: fewer tell nothing, more are not needed to tell.
LEAST_REQUESTS, MOST_REQUESTS = 3, 1_000


@dataclass(frozen=True, slots=True)
class Site:
    """One site: `slots` of each of its boards, and whether something changes meanwhile."""

    scenario: Scenario
    slots: int
    drifts: bool


def sites(count: int, *, seed: int) -> Iterator[Site]:
    """Yield `count` sites: slots, classes and drift in turn, everything else drawn from the seed."""
    chance = random.Random(f"sites/{seed}")
    for index in range(count):
        yield _site(
            index,
            chance,
            slots=SLOTS[index % len(SLOTS)],
            request_class=CLASSES_OF_SITES[index // len(SLOTS) % len(CLASSES_OF_SITES)],
        )


def _site(index: int, chance: random.Random, *, slots: int, request_class: str) -> Site:
    duration_s = DAY_S * chance.lognormvariate(0.0, UNSURE_LENGTH)
    drifts = index // (len(SLOTS) * len(CLASSES_OF_SITES)) % 2 == 1
    groups: list[Group] = []
    loads: list[Load] = []
    changes: list[Change] = []
    for board in sorted(BOARDS):
        group = Group(board, board, chance.choice(sorted(LINKS)), slots=slots, battery_j=1e6)
        groups.append(group)
        loads += _loads(group, chance, request_class, duration_s)
        if drifts:
            at_s = duration_s * chance.uniform(0.2, 0.8)
            changes += [replace(each, devices=board) for each in drift_of(chance.choice(DRIFTS[1:]), at_s, chance)]
    scenario = Scenario(
        name=f"site {index}: {request_class}, {slots} slots, {', '.join(f'{each.board} {each.link}' for each in groups)}",
        duration_s=duration_s,
        devices=tuple(groups),
        load=tuple(loads),
        changes=tuple(changes),
        seed=chance.randrange(2**31),
        request_class=request_class,
        weights=CLASSES[request_class],
    )
    return Site(scenario, slots, drifts)


def _loads(group: Group, chance: random.Random, request_class: str, duration_s: float) -> Iterator[Load]:
    weights = CLASSES[request_class]
    for model in chance.sample(sorted(MODELS), chance.choice(MODELS_OF_A_BOARD)):
        break_even = break_even_between(BOARDS[group.board], MODELS[model], LINKS[group.link], weights)
        possible = [ratio * break_even for ratio in RATIOS if LEAST_REQUESTS <= ratio * break_even <= MOST_REQUESTS]
        requests = chance.choice(possible) if possible else chance.choice((10.0, 100.0))
        arrival = chance.choice(ARRIVALS)
        spread = 0.0 if arrival == "periodic" else SPREAD
        burst = chance.choice((3, 10, 30))
        yield Load(group.name, model, requests / duration_s, arrival, burst=burst, spread=spread)
