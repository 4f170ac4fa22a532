"""What the service manager is told: ready, stopping, alive, and a line of status. Without systemd it is told nothing.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import socket
import time
from collections.abc import Mapping

_USEC_PER_S = 1_000_000
_MAX_LINE_CHARS = 200  # a status fits a line of `systemctl status`; protects the datagram's size


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send assignments (`READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=…`) in one message; return whether it was handed over.

    A manager that is not there, or does not read, is no reason to stop serving: this neither raises nor waits. A line
    is cut at 200 characters, and a line end in it becomes a blank, so that a status cannot forge another assignment.
    """
    address = _address(environ)
    if not address or not lines:
        return False
    message = "\n".join(" ".join(line.split())[:_MAX_LINE_CHARS] for line in lines)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(0)
        try:
            channel.sendto(message.encode(errors="replace"), address)
        except OSError:
            return False
    return True


def monotonic_usec() -> str:
    """Return when a reload began, as a unit of Type=notify-reload wants it beside RELOADING=1."""
    return f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """Return within what time `WATCHDOG=1` must come (send it twice as often), None: no watchdog waits for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0:
        return None
    return int(usec) / _USEC_PER_S


def _address(environ: Mapping[str, str]) -> str:
    """Return what to send to, "" for nobody. Source: unix(7): '@' stands for the NUL byte of an abstract address."""
    name = environ.get("NOTIFY_SOCKET", "")
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""
