"""One record, one line: its grammar, its priority, and that nothing logged can forge another."""

import io
import logging
import os
import socket
from collections.abc import Iterator

import pytest

from gatewayd.adapters.logs import KeyValueFormatter, configure_logging, goes_to_journal, key_value_line, log_event
from gatewayd.core.events import AliasMoved, ArtifactsCollected, GatewayEvent, ModelAdded, VersionRetired
from gatewayd.core.names import ModelName


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_lines_from_the_level_up() -> None:
    stream = io.StringIO()
    configure_logging("warning", stream=stream, environ={})
    logging.getLogger("gatewayd.x").info("quiet")
    logging.getLogger("gatewayd.x").warning("queue of %s is full", "kws")
    (line,) = stream.getvalue().splitlines()
    time, rest = line.split(" ", 1)
    assert time.startswith("time=")
    assert rest == 'level=warning logger=gatewayd.x msg="queue of kws is full"'


@pytest.mark.usefixtures("root_logger")
def test_setting_up_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", stream=first, environ={})
    configure_logging("info", stream=second, environ={})
    logging.getLogger("gatewayd.x").info("hello")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("gatewayd.x", level, "x.py", 1, message, None, None)


@pytest.mark.parametrize(("level", "priority"), [(50, 3), (40, 3), (30, 4), (20, 6), (10, 7), (5, 7)])
def test_journal_lines_carry_the_priority_and_no_time(level: int, priority: int) -> None:
    line = KeyValueFormatter(journal=True).format(record(level, "hello"))
    assert line.startswith(f"<{priority}>level=")
    assert "time=" not in line


def test_a_traceback_stays_in_its_line() -> None:
    try:
        int("x")
    except ValueError as error:
        trouble = record(40, "failed")
        trouble.exc_info = (type(error), error, error.__traceback__)
    line = KeyValueFormatter(journal=False).format(trouble)
    assert "\n" not in line
    assert 'error="Traceback' in line


VALUES = [
    ("kws@2", "v=kws@2"),
    ("", 'v=""'),
    ("a b", 'v="a b"'),
    ('a"b', 'v="a\\"b"'),
    ("a\nlevel=info", 'v="a\\nlevel=info"'),
    ("é", 'v="é"'),
    ("x" * 10_000, "v=" + "x" * 8192),
]


@pytest.mark.parametrize(("value", "line"), VALUES, ids=[value[:10] for value, _ in VALUES])
def test_values(value: str, line: str) -> None:
    assert key_value_line({"v": value}) == line


def test_the_journal_is_known_by_its_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, os.fdopen(os.dup(ours.fileno()), "w") as stream:
        status = os.fstat(stream.fileno())
        here = f"{status.st_dev}:{status.st_ino}"
        assert goes_to_journal(stream, {"JOURNAL_STREAM": here})
        assert not goes_to_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not goes_to_journal(stream, {})
    assert not goes_to_journal(io.StringIO(), {"JOURNAL_STREAM": here})


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ModelAdded(ModelName("kws"), 2), "model added version=kws@2"),
        (AliasMoved(ModelName("kws"), "stable", 2), "alias moved alias=kws:stable version=2"),
        (AliasMoved(ModelName("kws"), "stable", None), "alias moved alias=kws:stable version=none"),
        (VersionRetired(ModelName("kws"), 2, retired=True), "version retired version=kws@2"),
        (ArtifactsCollected(2, 300), "artifacts collected count=2 bytes=300"),
    ],
)
def test_what_happens_to_the_registry_is_one_line(event: GatewayEvent, line: str) -> None:
    stream = io.StringIO()
    configure_logging("info", stream=stream, environ={})
    log_event(event)
    assert line in stream.getvalue().replace('"', "")
