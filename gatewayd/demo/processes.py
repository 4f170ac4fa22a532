"""The processes of the demonstration: a daemon and boards, each as a user would start them, ended when the story ends."""

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

NODE = "demo"
_END_S = 10.0

_CONFIG = """\
node: {{name: {node}, data_dir: {data_dir}}}
mqtt: {{{broker}}}
http: {{port: {http}}}
coap: {{enabled: false}}
devices: {{join: approve, ping_every_s: 5}}
"""
_EMBEDDED = "embedded: {{enabled: true, port: {port}, port_v5: {port_v5}}}"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things listen. `mqtt` serves the boards (3.1.1), `mqtt_v5` the client; with a broker of yours both are the same."""

    host: str
    mqtt: int
    mqtt_v5: int
    http: int
    embedded: bool


@dataclass(frozen=True, slots=True)
class Board:
    """One simulated board and what it is told: its kind, its link, its RAM for the arena, and its seed."""

    id: str
    board: str
    link: str
    arena_bytes: int
    seed: int


def choose_ports(broker: str | None) -> Ports:
    """Pick free loopback ports; `broker` is host:port of a real one, None for the embedded one."""
    free = [_free_port() for _ in range(3)]
    if broker is None:
        return Ports("127.0.0.1", free[0], free[1], free[2], embedded=True)
    host, _, port = broker.rpartition(":")
    return Ports(host or "127.0.0.1", int(port), int(port), free[2], embedded=False)


class Stage:
    """Owns every child process; leaving the context ends them, politely first."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        self._stack = ExitStack()
        self._boards: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """Write a config and start `gatewayd run` on it."""
        config = self.folder / "gatewayd.yaml"
        config.write_text(self._config())
        return self._start("gatewayd", ["run", "--config", str(config)])

    def start_board(self, board: Board, samples: Path) -> None:
        """Start `gatewayd sim-device`; its flash is a folder that outlives it."""
        broker = f"{self.ports.host}:{self.ports.mqtt}"
        arguments = ["sim-device", "--id", board.id, "--board", board.board, "--link", board.link]
        arguments += ["--broker", broker, "--node", NODE, "--state", str(self.folder / board.id)]
        arguments += ["--samples", str(samples), "--sensor", "mic", "--seed", str(board.seed)]
        arguments += ["--arena", str(board.arena_bytes), "--trust", str(self.folder / "data" / "keys" / "trusted.txt")]
        self._boards[board.id] = self._start(board.id, arguments)

    def unplug(self, board: str) -> None:
        """Kill a board without a word (SIGKILL): only the broker notices."""
        self._boards[board].kill()
        self._boards[board].wait()

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines a process wrote."""
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def _config(self) -> str:
        ports = self.ports
        broker = f"host: {ports.host}, port: {ports.mqtt}"
        if ports.embedded:
            broker = _EMBEDDED.format(port=ports.mqtt, port_v5=ports.mqtt_v5)
        return _CONFIG.format(node=NODE, data_dir=self.folder / "data", broker=broker, http=ports.http)

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        # The command is this program itself with arguments made here.
        command = [sys.executable, "-m", "gatewayd", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 - see above
        self._stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
