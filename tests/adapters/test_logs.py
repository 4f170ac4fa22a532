"""One record, one line: its grammar, its priority, and that nothing logged can forge another."""

import io
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gatewayd.adapters.logs import (
    KeyValueFormatter,
    configure_logging,
    fields,
    goes_to_journal,
    key_value_line,
    log_event,
)
from gatewayd.core.events import (
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    JoiningChanged,
    ModelAdded,
    PushMoved,
    VersionRetired,
)
from gatewayd.core.names import DeviceId, ModelName
from gatewayd.core.update import PushState
from tests.core.pushes import started


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


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("level", "lines"), [("info", 0), ("debug", 1)])
def test_what_a_library_tells_of_each_block_is_for_debugging(level: str, lines: int) -> None:
    stream = io.StringIO()
    configure_logging(level, stream=stream, environ={})
    logging.getLogger("coap-server").info("Render request raised a renderable error")
    assert stream.getvalue().count("\n") == lines


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


def test_fields_stand_in_the_line_and_forge_nothing() -> None:
    trouble = record(20, "push")
    vars(trouble).update(fields(id=7, reason="a b\nlevel=error", msg="forged", level="error", none=None))
    line = KeyValueFormatter(journal=False).format(trouble).partition(" ")[2]
    assert line == 'level=info logger=gatewayd.x msg=push id=7 reason="a b\\nlevel=error"'


EVENTS = [
    (DeviceChanged(DeviceId("door-1"), online=True, what="online"), "device id=door-1 what=online online=true"),
    (JoiningChanged("open", 120.0, 0, "ann"), "joining what=open seconds=120 admitted=0 who=ann"),
    (
        DeviceChanged(DeviceId("door-1"), online=False, what="offline: will"),
        'device id=door-1 what="offline: will" online=false',
    ),
    (ModelAdded(ModelName("kws"), 2), '"model added" version=kws@2'),
    (AliasMoved(ModelName("kws"), "stable", 2), '"alias moved" alias=kws:stable version=2'),
    (AliasMoved(ModelName("kws"), "stable", None), '"alias removed" alias=kws:stable'),
    (VersionRetired(ModelName("kws"), 2, retired=True), '"version retired" version=kws@2'),
    (VersionRetired(ModelName("kws"), 2, retired=False), '"version restored" version=kws@2'),
    (ArtifactsCollected(2, 300), '"artifacts collected" count=2 bytes=300'),
    (InputRefused("http", "bad_request", "no JSON"), '"input refused" where=http code=bad_request reason="no JSON"'),
]


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("state", "told"), [(PushState.FAILED, 1), (PushState.TRANSFERRING, 0)])
def test_a_push_is_told_at_info_when_it_ends(state: PushState, told: int) -> None:
    stream = io.StringIO()
    configure_logging("info", stream=stream, environ={})
    log_event(PushMoved(replace(started().push, state=state, reason="flash worn out")))
    lines = stream.getvalue().splitlines()
    assert len(lines) == told
    line = 'msg=push id=7 device=cam-7 version=kws@2 state=failed offset=0 size=2500 reason="flash worn out"'
    assert all(each.endswith(line) for each in lines)


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("event", "line"), EVENTS, ids=[line for _, line in EVENTS])
def test_what_happens_is_told_at_info(event: GatewayEvent, line: str) -> None:
    stream = io.StringIO()
    configure_logging("info", stream=stream, environ={})
    log_event(event)
    assert stream.getvalue().partition(" msg=")[2].rstrip() == line


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
