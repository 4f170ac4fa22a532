"""The command `gatewayd simulate`: play a scenario with each policy, print the table, write the plots."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from gatewayd.core.renting import RentTerms
    from gatewayd.simulate.engine import Tally
    from gatewayd.simulate.policy import Policy
    from gatewayd.simulate.scenario import Scenario

POLICIES = ("gatewayd", "node-only", "device-only", "threshold", "regression", "break-even")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("scenario", type=Path, help="a YAML file; see config/scenarios and docs/placement.md")
    parser.add_argument("--seed", type=int, help="another seed than the file's")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one (may be given again)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write NAME-cost.svg and NAME-latency.svg there")
    parser.add_argument(
        "--robustness",
        type=float,
        default=0.01,
        help="0..1: 1 ignores predicted rates, less pushes earlier (%(default)s)",
    )


def run(arguments: argparse.Namespace, *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """Run the study; returns the exit code (0 done, 1 it could not be read or written, 2 usage)."""
    # The simulator loads PyYAML and much of core, which no other command of this program needs.
    from dataclasses import replace  # noqa: PLC0415 - as above

    from gatewayd.core.errors import BadRequest  # noqa: PLC0415 - as above
    from gatewayd.core.renting import RentTerms  # noqa: PLC0415 - as above
    from gatewayd.simulate.scenario import parse_scenario  # noqa: PLC0415 - as above

    if not 0.0 < arguments.robustness <= 1.0:
        err.write("gatewayd: --robustness: a number above 0, at most 1\n")
        return 2
    try:
        scenario = parse_scenario(arguments.scenario.read_text(), source=str(arguments.scenario))
    except (OSError, UnicodeDecodeError, BadRequest) as error:
        err.write(f"gatewayd: {error}\n")
        return 1
    if arguments.seed is not None:
        scenario = replace(scenario, seed=arguments.seed)
    terms = RentTerms(robustness=arguments.robustness, horizon_s=scenario.horizon_s)
    out.write(_study(scenario, arguments.policy or POLICIES, terms, plots=arguments.plots))
    return 0


def _study(scenario: "Scenario", names: Sequence[str], terms: "RentTerms", *, plots: Path | None) -> str:
    from gatewayd.simulate.engine import Simulation  # noqa: PLC0415 - see `run`
    from gatewayd.simulate.optimum import optimum  # noqa: PLC0415 - as above
    from gatewayd.simulate.table import table  # noqa: PLC0415 - as above
    from gatewayd.simulate.world import World  # noqa: PLC0415 - as above

    world = World(scenario)
    policies = [_policy(name, scenario, terms) for name in names]
    tallies = [Simulation(world, each).run() for each in policies]
    about = f"{scenario.name}: {' '.join(scenario.about.split())}\n" if scenario.about else f"{scenario.name}\n"
    asked = f"{len(world.stations):,} devices, {len(world.asks):,} requests, {scenario.duration_s / 3600:,.1f} h\n\n"
    written = _write(plots, tallies, scenario.name) if plots is not None else ""
    predicted = "".join(_predictions(each) for each in policies)
    return f"{about}{asked}{table(tallies, optimum(world))}\n{predicted}{written}"


def _predictions(policy: "Policy") -> str:
    from gatewayd.simulate.gateway import GatewayPolicy  # noqa: PLC0415 - see `run`

    if not isinstance(policy, GatewayPolicy):
        return ""
    found = policy.calibration
    return f"\n{policy.name} at the end predicts latencies to {found.error:.0%} on average (bias {found.bias:+.0%})\n"


def _policy(name: str, scenario: "Scenario", terms: "RentTerms") -> "Policy":
    from gatewayd.core.ledger import LedgerRules  # noqa: PLC0415 - see `run`
    from gatewayd.simulate.baselines import BASELINES  # noqa: PLC0415 - as above
    from gatewayd.simulate.gateway import GatewayPolicy  # noqa: PLC0415 - as above

    if name == GatewayPolicy.name:
        return GatewayPolicy(scenario.weights, LedgerRules(terms, air=scenario.air, energy=scenario.energy))
    return BASELINES[name](scenario.weights)


def _write(folder: Path, tallies: Sequence["Tally"], name: str) -> str:
    from gatewayd.simulate.plot import cost_plot, latency_plot  # noqa: PLC0415 - see `run`

    folder.mkdir(parents=True, exist_ok=True)
    plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "scenario"
    plots = {"cost": cost_plot(tallies, name), "latency": latency_plot(tallies, name)}
    for kind, svg in plots.items():
        (folder / f"{plain}-{kind}.svg").write_text(svg)
    return f"\nplots: {', '.join(str(folder / f'{plain}-{kind}.svg') for kind in plots)}\n"
