"""The way into the client commands. Light to import: the verb table brings pydantic, which only these commands need."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewayd.cli.verbs import Subparsers


def add_commands(subparsers: "Subparsers", given: Sequence[str] | None = None) -> None:
    """Add one command per verb. What the parser then returns has the function that carries it out in `run`.

    Only what `given` can mean gets its arguments; None: everything.
    """
    from gatewayd.cli.access import add_token_command  # noqa: PLC0415 - see the module's docstring
    from gatewayd.cli.replay import add_replay_command  # noqa: PLC0415 - as above
    from gatewayd.cli.verbs import add_verbs  # noqa: PLC0415 - as above

    add_verbs(subparsers, given)
    add_token_command(subparsers.add_parser("token", help="make an access token for the HTTP API"))
    add_replay_command(
        subparsers.add_parser("replay", help="decide again what a decision log holds, or try another policy")
    )


def add_completion(subparsers: "Subparsers", parser: argparse.ArgumentParser) -> None:
    """Add the command that prints a completion script of `parser`, which has all its commands by the time it runs."""
    from gatewayd.cli.completion import SHELLS, script_of  # noqa: PLC0415 - see the module's docstring

    def run(args: argparse.Namespace) -> int:
        sys.stdout.write(script_of(parser, args.shell))
        return 0

    completion = subparsers.add_parser("completion", help="print a completion script for your shell")
    completion.add_argument("shell", choices=SHELLS, help="which one you use")
    completion.set_defaults(run=run)
