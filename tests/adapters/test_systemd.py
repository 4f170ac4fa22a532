"""sd_notify over a real datagram socket, and when the watchdog counts."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.adapters.systemd import notify, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Give the manager's end of the socket, and what NOTIFY_SOCKET would hold."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@gatewayd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name[1:] if name.startswith("@") else name)
        end.settimeout(2)
        yield end, name


MESSAGES = [
    (("READY=1",), b"READY=1"),
    (("READY=1", "STATUS=serving on http port 8080"), b"READY=1\nSTATUS=serving on http port 8080"),
    (("STOPPING=1",), b"STOPPING=1"),
    (("WATCHDOG=1",), b"WATCHDOG=1"),
    (("STATUS=x\nREADY=1",), b"STATUS=x READY=1"),
    (("STATUS=" + "y" * 1000,), b"STATUS=" + b"y" * 193),
]


@pytest.mark.parametrize(("lines", "received"), MESSAGES, ids=[lines[0][:20] for lines, _ in MESSAGES])
def test_a_message_arrives(manager: tuple[socket.socket, str], lines: tuple[str, ...], received: bytes) -> None:
    end, name = manager
    assert notify(*lines, environ={"NOTIFY_SOCKET": name})
    assert end.recv(5000) == received


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_is_sent(environ: dict[str, str]) -> None:
    assert not notify("READY=1", environ=environ)


@pytest.mark.parametrize("name", ["/nonexistent/notify", "@nobody-listens-here", "/" + "x" * 200])
def test_a_manager_that_is_gone_is_not_an_error(name: str) -> None:
    assert not notify("READY=1", environ={"NOTIFY_SOCKET": name})


def test_a_manager_that_does_not_read_never_blocks(manager: tuple[socket.socket, str]) -> None:
    _, name = manager
    handed_over = [notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": name}) for _ in range(5000)]
    assert handed_over[0]
    assert not handed_over[-1]


WATCHDOGS = [
    ({}, None),
    ({"WATCHDOG_USEC": "30000000"}, 30.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": "-5"}, None),
    ({"WATCHDOG_USEC": "soon"}, None),
]


@pytest.mark.parametrize(("environ", "interval_s"), WATCHDOGS)
def test_watchdog_interval(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ) == interval_s
