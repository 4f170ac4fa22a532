"""Tells mosquitto to read its password files and access lists again: SIGHUP to the process its pid file names.

Mosquitto then also drops who is connected and no longer has a valid password. Where gatewayd may not signal it (another
user's process, another machine), whoever may has to: `systemctl reload mosquitto`, or the path unit in systemd/.
"""

import logging
import os
import signal
from pathlib import Path

_LOG = logging.getLogger(__name__)
_MAX_PID_BYTES = 32
_PROGRAM = "mosquitto"


class MosquittoReload:
    """`pid_file` None: it is nobody's task here. `proc` is where the kernel shows processes."""

    def __init__(self, pid_file: Path | None, *, proc: Path = Path("/proc")) -> None:
        self._pid_file = pid_file
        self._proc = proc

    def __call__(self) -> str:
        """Return "" when mosquitto was told, else why it was not and what to do; that goes to the log, too."""
        problem = self.tell()
        if problem and self._pid_file is not None:
            _LOG.warning("mosquitto not told of new credentials", extra={"fields": {"reason": problem}})
        return problem

    def tell(self) -> str:
        """Return the same, for who shows it: nothing is logged."""
        if self._pid_file is None:
            return "mosquitto has to be told: systemctl reload mosquitto (gatewayd-mosquitto.path does it by itself)"
        return self._signalled(self._pid_file)

    def _signalled(self, pid_file: Path) -> str:
        remedy = "reload mosquitto by hand: systemctl reload mosquitto"
        try:
            with pid_file.open("rb") as file:
                pid = int(file.read(_MAX_PID_BYTES))
            # The file outlives a crash, and its number may be another program's by now, which SIGHUP would end.
            if pid <= 1 or (self._proc / str(pid) / "comm").read_text().strip() != _PROGRAM:
                return f"joining.mosquitto_pid_file {pid_file}: process {pid} is no mosquitto: {remedy}"
            os.kill(pid, signal.SIGHUP)
        except ValueError:
            return f"joining.mosquitto_pid_file {pid_file}: holds no process number: {remedy}"
        except FileNotFoundError:
            gone = f"joining.mosquitto_pid_file {pid_file} leads to no process: mosquitto seems not to run"
            return f"{gone}, and reads its files when it starts; if it does run, {remedy}"
        except OSError as error:
            return f"joining.mosquitto_pid_file {pid_file}: {error.strerror or error}: {remedy}"
        return ""
