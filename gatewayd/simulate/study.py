"""One study: a scenario played with each policy, told as a table or as JSON, drawn as plots."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TextIO

from gatewayd.core.ledger import LedgerRules
from gatewayd.core.renting import RentTerms
from gatewayd.simulate.baselines import BASELINES
from gatewayd.simulate.document import document, request_line
from gatewayd.simulate.engine import Outcome, Simulation, Tally
from gatewayd.simulate.gateway import GatewayPolicy
from gatewayd.simulate.optimum import optimum
from gatewayd.simulate.plot import cost_plot, latency_plot
from gatewayd.simulate.policy import Policy
from gatewayd.simulate.scenario import parse_scenario
from gatewayd.simulate.table import table
from gatewayd.simulate.world import World

Watch = Callable[[str, Outcome], None]
"""Told of every request of every policy when it is over."""

_COLUMNS = 110
# Progress is told from so many seconds on, so often.
_PATIENCE_S, _EVERY_S = 2.0, 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `seed` None: the file's; `plots` is a folder, `requests` a file, None: not wanted."""

    scenario: Path
    policies: tuple[str, ...]
    robustness: float = 0.05
    seed: int | None = None
    plots: Path | None = None
    requests: Path | None = None
    is_json: bool = False


def study(wanted: Wanted, *, progress: TextIO) -> str:
    """Play it; return what is to be printed.

    Raises: BadRequest (the scenario), OSError, UnicodeDecodeError.
    """
    scenario = parse_scenario(wanted.scenario.read_text(encoding="utf-8"), source=str(wanted.scenario))
    if wanted.seed is not None:
        scenario = replace(scenario, seed=wanted.seed)
    world = World(scenario)
    terms = RentTerms(robustness=wanted.robustness, horizon_s=scenario.horizon_s)
    policies = [_policy(name, world, terms) for name in wanted.policies]
    with _writing(wanted.requests) as write, _telling(progress, len(world.asks) * len(policies)) as tell:
        tallies = [Simulation(world, each, watch=_watch(each.name, write, tell)).run() for each in policies]
        least = optimum(world)
    plots = _drawn(wanted.plots, tallies, scenario.name) if wanted.plots is not None else []
    if wanted.is_json:
        return document(scenario, tallies, least, len(world.stations))
    about = " ".join(scenario.about.split())
    head = fill(f"{scenario.name}: {about}" if about else scenario.name, _COLUMNS, subsequent_indent="  ")
    asked = f"{len(world.stations):,} devices, {len(world.asks):,} requests, {scenario.duration_s / 3600:,.1f} h\n\n"
    predicted = "".join(_predictions(each) for each in policies)
    drawn = f"\nplots: {', '.join(map(str, plots))}\n" if plots else ""
    return f"{head}\n{asked}{table(tallies, least)}\n{predicted}{drawn}"


def _policy(name: str, world: World, terms: RentTerms) -> Policy:
    scenario = world.scenario
    if name == GatewayPolicy.name:
        rules = LedgerRules(terms, air=scenario.air, energy=scenario.energy)
        return GatewayPolicy(scenario.weights, rules, watched_s=scenario.watched_s, fleets=world.fleets())
    return BASELINES[name](scenario.weights)


def _watch(policy: str, write: Watch | None, tell: Callable[[], None]) -> Callable[[Outcome], None]:
    def watch(outcome: Outcome) -> None:
        tell()
        if write is not None:
            write(policy, outcome)

    return watch


@contextmanager
def _writing(path: Path | None) -> Iterator[Watch | None]:
    """Yield what writes requests down; None when nobody wants them."""
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as file:

        def write(policy: str, outcome: Outcome) -> None:
            file.write(request_line(policy, outcome))

        yield write


@contextmanager
def _telling(progress: TextIO, total: int) -> Iterator[Callable[[], None]]:
    """Yield what is called per request; a terminal is shown how far it is, once it takes a while."""
    done, told_s = 0, time.monotonic() + _PATIENCE_S - _EVERY_S
    is_shown, has_shown = progress.isatty(), False

    def tell() -> None:
        nonlocal done, told_s, has_shown
        done += 1
        if not is_shown or done % 256 or time.monotonic() - told_s < _EVERY_S:
            return
        told_s, has_shown = time.monotonic(), True
        progress.write(f"\r{done / total:4.0%} of {total:,} requests")
        progress.flush()

    try:
        yield tell
    finally:
        if has_shown:
            progress.write("\r\x1b[K")


def _predictions(policy: Policy) -> str:
    if not isinstance(policy, GatewayPolicy):
        return ""
    found = policy.calibration
    return f"\n{policy.name} at the end predicts latencies to {found.error:.0%} on average (bias {found.bias:+.0%})\n"


def _drawn(folder: Path, tallies: Sequence[Tally], name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "scenario"
    plots = {"cost": cost_plot(tallies, name), "latency": latency_plot(tallies, name)}
    paths = [folder / f"{plain}-{kind}.svg" for kind in plots]
    for path, svg in zip(paths, plots.values(), strict=True):
        path.write_text(svg, encoding="utf-8")
    return paths
