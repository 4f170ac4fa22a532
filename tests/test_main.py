# ruff: noqa: SLF001 - argparse has no other way to look into a parser
import argparse
from collections.abc import Iterator

import pytest

from gatewayd.__main__ import _parser, _words
from gatewayd.api.table import VERBS


def commands(parser: argparse.ArgumentParser, path: str = "gatewayd") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command with its parser, the groups among them."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands(inner, f"{path} {name}")


def silent(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield what the help of one command says nothing about."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {each.dest for each in action._choices_actions if each.help}
            yield from sorted(set(action.choices) - told)
        elif not action.help:
            yield action.option_strings[0] if action.option_strings else action.dest


def test_the_help_of_every_command_tells_all_its_words() -> None:
    everything = dict(commands(_parser(["completion"])))
    assert {f"gatewayd {name.replace('.', ' ')}" for name in VERBS} <= set(everything)
    assert {path: list(silent(parser)) for path, parser in everything.items() if list(silent(parser))} == {}


def test_every_help_can_be_printed() -> None:
    assert all(parser.format_help() for _, parser in commands(_parser(["completion"])))


def test_a_default_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser(["pushes", "list"]).parse_args(["pushes", "list", "--help"])
    assert "at most so many, the newest (default: 50)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["devices.approve", "door-1"], ["devices", "approve", "door-1"]),
        (["devices.credentials.new", "a.b"], ["devices", "credentials", "new", "a.b"]),
        (["--check-config", "a.yaml"], ["--check-config", "a.yaml"]),
        (["push", "--device", "a.b"], ["push", "--device", "a.b"]),
        ([], []),
    ],
)
def test_a_verb_may_be_written_as_messages_write_it(given: list[str], meant: list[str]) -> None:
    assert _words(given) == meant
