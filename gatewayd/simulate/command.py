"""The command `gatewayd simulate`: play a scenario with each policy, print the table, write the plots."""

import argparse
import sys
from pathlib import Path
from typing import TextIO

POLICIES = ("gatewayd", "node-only", "device-only", "threshold", "regression", "break-even")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("scenario", type=Path, help="a YAML file; see config/scenarios and docs/placement.md")
    parser.add_argument("--seed", type=int, help="another seed than the file's")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one (may be given again)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write NAME-cost.svg and NAME-latency.svg there")
    parser.add_argument("--json", action="store_true", help="print JSON: every figure, and every push with its times")
    parser.add_argument(
        "--requests",
        type=Path,
        metavar="FILE",
        help="write a JSON line per request: where it ran, and how long it took",
    )
    parser.add_argument(
        "--robustness",
        type=float,
        default=0.01,
        help="0..1: 1 ignores predicted rates, less pushes earlier (%(default)s)",
    )


def run(arguments: argparse.Namespace, *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """Run the study; returns the exit code (0 done, 1 it could not be read or written, 2 usage)."""
    # The simulator loads PyYAML and much of core, which no other command of this program needs.
    from gatewayd.core.errors import BadRequest  # noqa: PLC0415 - as above
    from gatewayd.simulate.study import Wanted, study  # noqa: PLC0415 - as above

    if not 0.0 < arguments.robustness <= 1.0:
        err.write("gatewayd: --robustness: a number above 0, at most 1\n")
        return 2
    wanted = Wanted(
        scenario=arguments.scenario,
        policies=tuple(arguments.policy or POLICIES),
        robustness=arguments.robustness,
        seed=arguments.seed,
        plots=arguments.plots,
        requests=arguments.requests,
        is_json=arguments.json,
    )
    try:
        out.write(study(wanted, progress=err))
    except BadRequest as error:
        err.write(f"gatewayd: {error}\n")
        return 1
    except UnicodeDecodeError:
        err.write(f"gatewayd: {arguments.scenario}: no text in UTF-8\n")
        return 1
    except OSError as error:
        err.write(f"gatewayd: {error.filename}: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        err.write("gatewayd: stopped\n")
        return 130
    return 0
