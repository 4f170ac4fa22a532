"""Logging for journald: one record, one line of key=value on standard error, with the priority where journald reads it.

    level=info logger=gatewayd.daemon msg="listening on 127.0.0.1:8080"

Modules log with the standard `logging`; this sets up the root logger once, at start. Lines that are key=value already
(the canonical line of a request) are written as msg="…" too: one grammar for all.
"""

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from typing import TextIO, assert_never

from gatewayd.core.events import (
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    ModelAdded,
    PushMoved,
    RegistryEvent,
    RequestFailed,
    RequestServed,
    VersionRetired,
)

_EVENTS = logging.getLogger("gatewayd.events")

_PLAIN = re.compile(r"[\w.:/@+,%=-]+", re.ASCII)
_MAX_MESSAGE_CHARS = 8192  # journald splits longer lines; protects against a payload that got into a message

# Source: sd-daemon(3): a line that begins with "<N>" has that syslog priority.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class KeyValueFormatter(logging.Formatter):
    """Renders a record as one line. `journal`: begin with the syslog priority, leave the time to journald."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        pairs = {"level": record.levelname.lower(), "logger": record.name, "msg": record.getMessage()}
        if not self._journal:
            pairs = {"time": self.formatTime(record, self.datefmt), **pairs}
        if record.exc_info:
            pairs["error"] = self.formatException(record.exc_info)
        return _priority(record.levelno, journal=self._journal) + key_value_line(pairs)


def key_value_line(pairs: Mapping[str, str]) -> str:
    """Return `key=value …`; a value that is not plain is quoted as JSON quotes it, so that no value can forge a line."""
    return " ".join(f"{key}={_quoted(value[:_MAX_MESSAGE_CHARS])}" for key, value in pairs.items())


def configure_logging(level: str, *, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Send all records from `level` (debug, info, warning, error) up to `stream`, None for standard error.

    Calling it again replaces the set-up.
    """
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(KeyValueFormatter(journal=goes_to_journal(out, environ)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` is the journal, as JOURNAL_STREAM tells. Source: systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(status.st_mode) and environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def log_event(event: GatewayEvent) -> None:
    """Write one canonical line: requests at debug (an SD card dies of one line per request), the rest at info."""
    match event:
        case RequestServed(request, result):
            ms = result.measured.total_s * 1000
            _EVENTS.debug("request id=%s model=%s ran_on=%s ms=%.1f", request.id, request.model, result.ran_on, ms)
        case RequestFailed(request, code, message, total_s):
            text = "request id=%s model=%s code=%s ms=%.1f reason=%r"
            _EVENTS.info(text, request.id, request.model, code, total_s * 1000, message)
        case PushMoved(push):
            level = logging.INFO if push.state.is_end else logging.DEBUG
            text = "push id=%d device=%s version=%s@%d state=%s offset=%d reason=%r"
            _EVENTS.log(
                level, text, push.id, push.device, push.model, push.version, push.state.value, push.offset, push.reason
            )
        case DeviceChanged(device, _, what):
            _EVENTS.info("device id=%s what=%r", device, what)
        case ModelAdded() | AliasMoved() | VersionRetired() | ArtifactsCollected():
            _log_registry(event)
        case InputRefused(where, code, message):
            _EVENTS.warning("input refused where=%s code=%s reason=%r", where, code, message)
        case _:
            assert_never(event)


def _log_registry(event: RegistryEvent) -> None:
    match event:
        case ModelAdded(model, version):
            _EVENTS.info("model added version=%s@%d", model, version)
        case AliasMoved(model, alias, place):
            _EVENTS.info("alias moved alias=%s:%s version=%s", model, alias, "none" if place is None else place)
        case VersionRetired(model, version, retired):
            _EVENTS.info("version %s version=%s@%d", "retired" if retired else "restored", model, version)
        case ArtifactsCollected(count, size_bytes):
            _EVENTS.info("artifacts collected count=%d bytes=%d", count, size_bytes)


def _priority(level: int, *, journal: bool) -> str:
    if not journal:
        return ""
    return f"<{next(priority for floor, priority in _PRIORITIES if level >= floor)}>"


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
