"""How the command line reaches a daemon that asks for tokens, over TCP and over a socket file."""

import argparse
import asyncio
import io
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.cli.access import add_token_command, make_token
from gatewayd.cli.command import add_commands
from gatewayd.cli.verbs import FAILED, OK, USAGE, run
from gatewayd.edges.http_guard import Guard
from gatewayd.edges.http_server import HttpListen, serve_http
from gatewayd.wire.access_tokens import matching_token, parse_tokens, token_of
from tests.fakes_api import World

TOKEN, KEPT = token_of("ann", "viewer", bytes(32))


@dataclass(frozen=True)
class Daemon:
    url: str
    socket_file: Path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    ports: list[int] = []
    up, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    listen = HttpListen(unix_socket=tmp_path / "http.sock")

    async def serve() -> None:
        serving = serve_http(
            World().api(),
            listen,
            max_body_bytes=1000,
            metrics_text=bytes,
            ready=lambda: True,
            guard=Guard(loop.time, (KEPT,)),
        )
        async with serving as port:
            ports.append(port)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], name="daemon")
    thread.start()
    assert up.wait(10)
    yield Daemon(f"http://127.0.0.1:{ports[0]}", tmp_path / "http.sock")
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def command(*argv: str) -> tuple[int, str, str]:
    parser = argparse.ArgumentParser(prog="gatewayd")
    add_commands(parser.add_subparsers(required=True))
    out, err = io.StringIO(), io.StringIO()
    code = run(parser.parse_args(argv), out=out, err=err)
    return code, out.getvalue(), err.getvalue()


def test_without_a_token_one_is_asked_for(daemon: Daemon) -> None:
    code, _, err = command("status", "--url", daemon.url)
    assert (code, err.startswith("gatewayd: unauthorized: send the header Authorization")) == (FAILED, True)


def test_the_token_comes_from_a_file_or_the_environment(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert command("status", "--url", daemon.url, "--token-file", str(tmp_path / "token"))[0] == OK
    monkeypatch.setenv("GATEWAYD_TOKEN", TOKEN)
    assert command("status", "--url", daemon.url)[0] == OK
    monkeypatch.setenv("GATEWAYD_TOKEN", "två\nrader")
    code, _, err = command("status", "--url", daemon.url)
    assert (code, TOKEN in err, "två" in err) == (USAGE, False, False)


def test_a_role_that_is_not_enough(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYD_TOKEN", TOKEN)
    code, _, err = command("devices", "approve", "cam-7", "--url", daemon.url)
    assert (code, err) == (FAILED, "gatewayd: forbidden: this needs the role admin; 'ann' is viewer\n")


def test_over_the_socket_file_no_token_is_needed(daemon: Daemon) -> None:
    assert command("devices", "approve", "cam-7", "--url", f"unix:{daemon.socket_file}")[0] == OK


def test_files_that_are_not_there(daemon: Daemon, tmp_path: Path) -> None:
    for option in ("--token-file", "--ca"):
        code, _, err = command("status", "--url", daemon.url, option, str(tmp_path / "none"))
        assert (code, err.startswith(f"gatewayd: {option} {tmp_path}/none: ")) == (USAGE, True)


def test_a_token_is_added_to_the_file(tmp_path: Path) -> None:
    parser, file = argparse.ArgumentParser(), tmp_path / "tokens"
    add_token_command(parser)

    def made(name: str) -> tuple[int, str]:
        out, err = io.StringIO(), io.StringIO()
        code = make_token(parser.parse_args([name, "--add-to", str(file)]), out=out, err=err)
        return code, out.getvalue().strip()

    code, bob = made("bob")
    assert (code, stat.S_IMODE(file.stat().st_mode)) == (OK, 0o600)
    file.write_text(file.read_text().rstrip())  # as an editor may leave it
    code, ann = made("ann")
    tokens = parse_tokens(file.read_text())
    assert [found.name for each in (bob, ann) if (found := matching_token(tokens, each))] == ["bob", "ann"]
    before = file.read_text()
    assert made("bob") == (FAILED, "")
    file.write_text("nonsense\n")
    assert made("eve") == (FAILED, "")
    assert file.read_text() == "nonsense\n"
    assert bob not in before


def test_a_token_is_made_and_only_its_digest_kept() -> None:
    parser = argparse.ArgumentParser()
    add_token_command(parser)
    out, err = io.StringIO(), io.StringIO()
    assert make_token(parser.parse_args(["bob", "--role", "admin"]), out=out, err=err) == OK
    token, line = out.getvalue().strip(), err.getvalue().splitlines()[1]
    found = matching_token(parse_tokens(line), token)
    assert found is not None
    assert (found.name, found.role, token in line) == ("bob", "admin", False)
    assert make_token(parser.parse_args(["b b"]), out=out, err=err) == USAGE
