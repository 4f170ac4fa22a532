"""A real mosquitto on a free loopback port, for tests that need a broker. `tests/conftest.py` has the fixture."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """One mosquitto process. `lines` are added to its configuration. It keeps its port over restarts."""

    def __init__(self, directory: Path, *, lines: Sequence[str] = ()) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._config = directory / "mosquitto.conf"
        self._lines = lines
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start and return once it listens."""
        assert MOSQUITTO is not None
        settings = [
            # Without nodelay QoS 1 exchanges of small messages take 44-88 ms.
            "set_tcp_nodelay true",
            "max_packet_size 67108864",
            "allow_anonymous true",
            "persistence false",
            "connection_messages false",
            "log_dest stderr",
            "log_type information",
            "user root",
            f"listener {self.port} {self.host}",
            *self._lines,
        ]
        self._config.write_text("\n".join(settings) + "\n")
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        if not any(line.rstrip().endswith(" running") for line in self._process.stderr):
            raise RuntimeError(f"mosquitto did not start; see {self._config}")
        self._wait_for_its_loop()

    def _wait_for_its_loop(self) -> None:
        """Get any answer to a CONNECT: a SIGTERM between mosquitto's "running" and its main loop would be lost."""
        with socket.create_connection((self.host, self.port), timeout=5) as probe:
            probe.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01p")
            with suppress(ConnectionError):
                probe.recv(1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process; SIGKILL is the broker's power cut."""
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None

    def restart(self) -> None:
        """Stop and start on the same port: sessions and retained messages are gone."""
        self.stop()
        self.start()
