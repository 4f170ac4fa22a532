"""The processes of the demonstration: a daemon and boards, each as a user would start them, ended when the story ends."""

import logging
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from paho.mqtt import MQTTException, publish

_END_S = 10.0
_LIFETIME_S = 20

_REACH_S = 3.0
_MAX_PORT = 65535

_CONFIG = """\
node: {{name: {node}, data_dir: {data_dir}}}
mqtt: {{{broker}}}
http: {{port: {http}}}
coap: {{port: {coap}}}
devices: {{join: approve, ping_every_s: 5}}
"""
_EMBEDDED = "embedded: {{enabled: true, port: {port}, port_v5: {port_v5}}}"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where things listen. `mqtt` serves the boards (3.1.1), `mqtt_v5` the client; with a broker of yours both are the same.

    `coap` is UDP, for boards that attach over LwM2M.
    """

    host: str
    mqtt: int
    mqtt_v5: int
    http: int
    coap: int
    embedded: bool


@dataclass(frozen=True, slots=True)
class Board:
    """One simulated board and what it is told: its kind, its protocol and link, its RAM for the arena, and its seed."""

    id: str
    board: str
    protocol: str
    link: str
    arena_bytes: int
    seed: int


class BrokerRefused(Exception):
    """`--broker` names no broker that can be used; the message says what to do."""


def choose_ports(broker: str | None) -> Ports:
    """Pick free loopback ports; `broker` is host:port of a real one, None for the embedded one. Raises: BrokerRefused."""
    free = [_free_port() for _ in range(3)]
    if broker is None:
        return Ports("127.0.0.1", free[0], free[1], free[2], _free_port(socket.SOCK_DGRAM), embedded=True)
    host, _, port = broker.rpartition(":")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= _MAX_PORT):
        raise BrokerRefused(f"--broker {broker}: must be HOST:PORT, for example 127.0.0.1:1883")
    ports = Ports(
        host.strip("[]") or "127.0.0.1", int(port), int(port), free[2], _free_port(socket.SOCK_DGRAM), embedded=False
    )
    _reach(ports)
    return ports


def _reach(ports: Ports) -> None:
    try:
        socket.create_connection((ports.host, ports.mqtt), _REACH_S).close()
    except OSError as error:
        where = f"{ports.host}:{ports.mqtt}"
        text = f"--broker: nothing answers at {where} ({error.strerror or error}): start a broker there, or leave --broker out"
        raise BrokerRefused(text) from None


class Stage:
    """Owns every child process; leaving the context ends them, politely first."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        # A name of its own: two demonstrations on one broker must not take each other's boards.
        self.node = f"demo-{secrets.token_hex(2)}"
        self._stack = ExitStack()
        self._boards: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if not self.ports.embedded:
            self._forget()

    def _forget(self) -> None:
        """Take back what a broker of yours would retain for ever: an empty retained message clears its topic."""
        base = f"gatewayd/{self.node}"
        topics = (f"{base}/status", *(f"{base}/device/{board}/up/status" for board in self._boards))
        with suppress(OSError, MQTTException):  # the broker went first
            # paho complains on the terminal that it is not connected, once it has disconnected.
            logging.getLogger("paho").setLevel(logging.CRITICAL)
            for topic in topics:
                publish.single(topic, b"", qos=1, retain=True, hostname=self.ports.host, port=self.ports.mqtt)

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """Write a config and start `gatewayd run` on it."""
        config = self.folder / "gatewayd.yaml"
        config.write_text(self._config())
        return self._start("gatewayd", ["run", "--config", str(config)])

    def start_board(self, board: Board, samples: Path) -> None:
        """Start `gatewayd sim-device`; its flash is a folder that outlives it."""
        arguments = ["sim-device", "--id", board.id, "--board", board.board, "--link", board.link]
        arguments += ["--protocol", board.protocol, "--state", str(self.folder / board.id)]
        arguments += ["--broker", f"{self.ports.host}:{self.ports.mqtt}", "--node", self.node]  # with MQTT
        arguments += ["--gateway", f"127.0.0.1:{self.ports.coap}", "--lifetime", str(_LIFETIME_S)]  # with LwM2M
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
        return _CONFIG.format(
            node=self.node, data_dir=self.folder / "data", broker=broker, http=ports.http, coap=ports.coap
        )

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


def _free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
