"""Logging for journald: one record, one line of key=value on standard error, with the priority where journald reads it.

    level=info logger=gatewayd.events msg=device id=door-1 what=online

Modules log with the standard `logging`; this sets up the root logger once, at start. A record with `extra=fields(…)` (the
canonical line of an event) gets those as pairs of its own after msg.
"""

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from typing import TextIO, assert_never

from gatewayd.core import events
from gatewayd.core.update import Push

_FIELDS = "fields"
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
        own = getattr(record, _FIELDS, {})
        pairs |= {key: str(value) for key, value in own.items() if key not in pairs}
        if record.exc_info:
            pairs["error"] = self.formatException(record.exc_info)
        return _priority(record.levelno, journal=self._journal) + key_value_line(pairs)


def fields(**pairs: object) -> dict[str, dict[str, object]]:
    """Return what a record's `extra` has to be for the pairs to stand in its line; None is left out."""
    return {_FIELDS: {key: value for key, value in pairs.items() if value is not None}}


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
    # aiocoap tells of every block and every refusal at info.
    logging.getLogger("coap-server").setLevel(logging.NOTSET if level == "debug" else logging.WARNING)


def goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` is the journal, as JOURNAL_STREAM tells. Source: systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(status.st_mode) and environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def log_event(event: events.GatewayEvent) -> None:
    """Write one canonical line at info; at debug, as an SD card dies of a line each: requests served, the steps of a push."""
    match event:
        case events.RequestServed(request, result) if _EVENTS.isEnabledFor(logging.DEBUG):
            ms = f"{result.measured.total_s * 1000:.1f}"
            line = fields(id=request.id, model=request.model, ran_on=result.ran_on, ms=ms)
            _EVENTS.debug("request", extra=line)
        case events.RequestServed():
            pass  # the path that every request takes: nothing is put together that nobody reads
        case events.RequestFailed(request, code, message, total_s):
            ms = f"{total_s * 1000:.1f}"
            _EVENTS.info("request", extra=fields(id=request.id, model=request.model, code=code, ms=ms, reason=message))
        case events.PushMoved(push):
            level = logging.INFO if push.state.is_end else logging.DEBUG
            _EVENTS.log(level, "push", extra=_push_fields(push))
        case events.DeviceChanged() | events.JoiningChanged() | events.ModelDropped():
            _log_device(event)
        case events.ModelAdded() | events.AliasMoved() | events.VersionRetired() | events.ArtifactsCollected():
            _log_registry(event)
        case events.WorkerEnded() | events.VariantQuarantined() | events.AcceleratorChanged():
            _log_node(event)
        case events.OrderAnswered() | events.OrderFailed() | events.OrderEnded():
            _log_order(event)
        case events.InputRefused(where, code, message):
            _EVENTS.warning("input refused", extra=fields(where=where, code=code, reason=message))
        case _:
            assert_never(event)


def _log_device(event: events.DeviceChanged | events.JoiningChanged | events.ModelDropped) -> None:
    match event:
        case events.ModelDropped(drop):
            version, state = f"{drop.model}@{drop.version}", drop.state.value
            line = fields(id=drop.id, device=drop.device, version=version, state=state, reason=drop.reason or None)
            _EVENTS.info("drop", extra=line)
        case events.DeviceChanged(device, online, what):
            _EVENTS.info("device", extra=fields(id=device, what=what, online=str(online).lower()))
        case events.JoiningChanged(what, seconds, admitted, who):
            _EVENTS.info("joining", extra=fields(what=what, seconds=f"{seconds:g}", admitted=admitted, who=who))


def _push_fields(push: Push) -> dict[str, dict[str, object]]:
    version = f"{push.model}@{push.version}"
    line = {"id": push.id, "device": push.device, "version": version, "state": push.state.value}
    return fields(**line, offset=push.offset, size=push.size_bytes, reason=push.reason or None)


def _log_registry(event: events.RegistryEvent) -> None:
    match event:
        case events.ModelAdded(model, version):
            _EVENTS.info("model added", extra=fields(version=f"{model}@{version}"))
        case events.AliasMoved(model, alias, None):
            _EVENTS.info("alias removed", extra=fields(alias=f"{model}:{alias}"))
        case events.AliasMoved(model, alias, version):
            _EVENTS.info("alias moved", extra=fields(alias=f"{model}:{alias}", version=version))
        case events.VersionRetired(model, version, retired):
            what = "version retired" if retired else "version restored"
            _EVENTS.info(what, extra=fields(version=f"{model}@{version}"))
        case events.ArtifactsCollected(count, size_bytes):
            _EVENTS.info("artifacts collected", extra=fields(count=count, bytes=size_bytes))


def _log_node(event: events.NodeEvent) -> None:
    match event:
        case events.WorkerEnded(variant, digest, engine, reason):
            line = fields(variant=variant, digest=digest[:12], engine=engine, reason=reason)
            _EVENTS.warning("worker ended", extra=line)
        case events.VariantQuarantined(variant, digest, reason):
            _EVENTS.error("quarantined", extra=fields(variant=variant, digest=digest[:12], reason=reason))
        case events.AcceleratorChanged(kind, present, detail, engines):
            line = fields(kind=kind, detail=detail, engines=",".join(engines) or None)
            _EVENTS.warning("accelerator came" if present else "accelerator went", extra=line)


def _log_order(event: events.OrderEvent) -> None:
    match event:
        case events.OrderAnswered(order, result):
            if _EVENTS.isEnabledFor(logging.DEBUG):
                _EVENTS.debug("order answered", extra=fields(id=order.id, ran_on=result.ran_on))
        case events.OrderFailed(order, code, message, failing):
            _EVENTS.warning("order fails", extra=fields(id=order.id, code=code, failing=failing, reason=message))
        case events.OrderEnded(order, progress, why):
            line = fields(id=order.id, reason=why, answered=progress.answered, failed=progress.failed)
            _EVENTS.info("order ended", extra=line)


def _priority(level: int, *, journal: bool) -> str:
    if not journal:
        return ""
    return f"<{next(priority for floor, priority in _PRIORITIES if level >= floor)}>"


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
