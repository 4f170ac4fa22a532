"""One key=value line per event on stderr, with the milliseconds since the start."""

import sys
import time
from typing import Protocol


class Log(Protocol):
    """Takes what happens on a board."""

    def __call__(self, event: str, **fields: object) -> None:
        """Take one event with what belongs to it."""


class EventLog:
    """Writes the lines of one device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._start_s = time.monotonic()

    def __call__(self, event: str, **fields: object) -> None:
        """Write one line. A value with a space or a quote is quoted; nothing secret may be handed in."""
        at_ms = round((time.monotonic() - self._start_s) * 1000)
        words = "".join(f" {key}={_quoted(str(value))}" for key, value in fields.items())
        sys.stderr.write(f"at_ms={at_ms} device={self._device} event={event}{words}\n")
        sys.stderr.flush()


def _quoted(text: str) -> str:
    is_plain = text.isprintable() and not set(text) & {" ", '"', "="}
    return text if is_plain and text else '"' + " ".join(text.replace('"', "'").split()) + '"'
