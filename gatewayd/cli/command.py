"""The way into the client commands. Light to import: the verb table brings pydantic, which only these commands need."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewayd.cli.verbs import Subparsers


def add_commands(subparsers: "Subparsers") -> None:
    """Add one command per verb. What the parser then returns has the function that carries it out in `run`."""
    from gatewayd.cli.verbs import add_verbs  # noqa: PLC0415 - see the module's docstring

    add_verbs(subparsers)


def run(args: argparse.Namespace) -> int:
    """Carry out a command: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon reachable."""
    from gatewayd.cli.verbs import run as run_verb  # noqa: PLC0415 - see the module's docstring

    return run_verb(args)
