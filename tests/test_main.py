# ruff: noqa: SLF001 - argparse has no other way to look into a parser
import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


PROGRAM = [sys.executable, "-m", "gatewayd"]
PATIENCE_S = 30


def test_who_reads_no_further_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as unread:
        done = subprocess.run(
            [*PROGRAM, "completion", "bash"], stdout=unread, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_one_clear_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "completion", "bash"], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
        )
    told = b"gatewayd: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_a_closed_output_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "--help"],
        stderr=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*PROGRAM, "models", "add", "--help"], capture_output=True, env=environment, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2026" in done.stdout


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        yield server


def _status(listener: socket.socket) -> "subprocess.Popen[bytes]":
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # Whoever runs the tests in the background may ignore interrupts, which children inherit; a terminal does not.
    command = ["env", "--default-signal=INT", *PROGRAM, "status", "--url", url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_an_interrupt_is_no_traceback(listener: socket.socket) -> None:
    with _status(listener) as child:
        asked, _ = listener.accept()
        with asked:
            asked.recv(1000)  # it waits for the answer now
            child.send_signal(signal.SIGINT)
            told = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, *told) == (130, b"", b"")


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (b"SSH-2.0-x\r\n", 3, "SSH-2.0-x; is it running? see --url\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 1, "something else than JSON; is this a gatewayd?\n"),
        (
            b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nabc",
            1,
            "status 500 without an explanation; is this a gatewayd?\n",
        ),
    ],
)
def test_something_that_is_no_daemon(listener: socket.socket, answer: bytes, code: int, told: str) -> None:
    with _status(listener) as child:
        asked, _ = listener.accept()
        with asked:
            asked.recv(1000)
            asked.sendall(answer)
        out, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, out) == (code, b"")
    assert err.decode().endswith(told)
    assert err.count(b"\n") == 1
