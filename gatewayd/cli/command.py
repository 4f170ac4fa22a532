"""The way into the client commands. Light to import: the verb table brings pydantic, which only these commands need."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewayd.cli.verbs import Subparsers


def add_commands(subparsers: "Subparsers") -> None:
    """Add one command per verb. What the parser then returns has the function that carries it out in `run`."""
    from gatewayd.cli.verbs import add_verbs  # noqa: PLC0415 - see the module's docstring

    add_verbs(subparsers)
