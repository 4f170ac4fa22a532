"""The broker that comes along (rumqttd, in the package iotcore) as a child process on loopback, for trying things out.

MQTT 3.1.1 and 5 have a port each. Known of it, by measurement (iotcore 0.4): a message with any MQTT 5 property that
reaches a 3.1.1 client ends the 3.1.1 listener for good, which is why its error output is read and it is started anew; a
QoS 1 subscription gets at most 100 retained messages; retain handling, retain-as-published and no-local are ignored;
nothing is kept on disk. Use mosquitto for real work.
"""

import asyncio
import contextlib
import importlib.util
import json
import logging
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gatewayd.core.errors import NodeError

_LOG = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MAX_PAYLOAD_BYTES = 2**20
_START_S = 10.0
_POLL_S = 0.02
_PANIC = b"panicked at"

MAX_RESTARTS = 20
RESTART_WINDOW_S = 600.0
"""Restarts within the window: a broker that dies again and again is not better the 21st time. Protects the clients behind
it from a daemon that looks alive; one death a day must never add up to an end."""

# The child ends itself when its standard input closes, so that no way of dying leaves it behind.
_CHILD = "from iotcore._serve import main; main()"

# max_outgoing_packet_count bounds the retained messages of a QoS 0 subscription; segments of 10 MiB × 10 the log in memory.
_TOML = """\
id = 0
[router]
id = 0
max_connections = 1010
max_outgoing_packet_count = 1000
max_segment_size = 10485760
max_segment_count = 10
"""
_LISTENER = """\
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 0
[{version}.1.connections]
connection_timeout_ms = 5000
max_payload_size = {payload}
max_inflight_count = 100
dynamic_filters = true
"""


class BrokerMissing(NodeError):
    """The embedded broker cannot run here; the message says what to install or to free."""

    code = "broker_missing"


class BrokerDied(NodeError):
    """The embedded broker ended by itself, too often to start it again; the message says how to watch it unharmed."""

    code = "broker_died"


class Restarts:
    """The restarts of the last `window_s`; `spend` counts one more."""

    def __init__(self, most: int, *, window_s: float = RESTART_WINDOW_S) -> None:
        self._most = most
        self._window_s = window_s
        self._at_s: deque[float] = deque(maxlen=most + 1)

    def spend(self, now_s: float) -> int:
        """Return how many there were in the window, this one included; 0 when it is one too many."""
        while self._at_s and self._at_s[0] <= now_s - self._window_s:
            self._at_s.popleft()
        self._at_s.append(now_s)
        return len(self._at_s) if len(self._at_s) <= self._most else 0


class EmbeddedBroker:
    """A running broker on loopback: `port` speaks MQTT 3.1.1, `port_v5` MQTT 5."""

    def __init__(self, config: Path, *, port: int, port_v5: int) -> None:
        self.port = port
        self.port_v5 = port_v5
        self._config = config
        self._child: Process | None = None

    async def keep(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start it again whenever it dies, on the same ports and without what it had retained. Run this as a task.

        Raises: BrokerDied at the 21st death within 10 minutes; BrokerMissing when it does not come up again.
        """
        restarts = Restarts(MAX_RESTARTS)
        while True:
            complaint = await self._complaint()
            number = restarts.spend(clock())
            minutes = round(RESTART_WINDOW_S / 60)
            if number == 0:
                raise BrokerDied(f"the embedded broker died {MAX_RESTARTS + 1} times in {minutes} minutes: {complaint}")
            text = "the embedded broker died and is started again (%d of %d in %d minutes): %s"
            _LOG.error(text, number, MAX_RESTARTS, minutes, complaint)
            await self.stop()
            await self.start()

    async def start(self) -> None:
        """Start it and return once both ports listen; `stop` is due even when it fails. Raises: BrokerMissing."""
        options = json.dumps({"config_path": str(self._config)})
        command = [sys.executable, "-P", "-c", _CHILD, options]
        # A session of its own: Ctrl-C must not end the broker before the last words to its clients.
        self._child = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, start_new_session=True
        )
        try:
            async with asyncio.timeout(_START_S):
                for port in (self.port, self.port_v5):
                    await self._listens(port)
        except TimeoutError:
            message = (
                f"the embedded broker did not listen within {_START_S:g} s on ports {self.port} and {self.port_v5}"
            )
            raise BrokerMissing(message) from None

    async def stop(self) -> None:
        """End the child and reap it. It keeps nothing on disk, so it is not asked first."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()

    async def _listens(self, port: int) -> None:
        while not await asyncio.to_thread(_accepts, port):
            if self._child is None or self._child.returncode is not None:
                message = f"the embedded broker ended at its start; are ports {self.port} and {self.port_v5} free?"
                raise BrokerMissing(message)
            await asyncio.sleep(_POLL_S)

    async def _complaint(self) -> str:
        """Read what the child writes to standard error until it panics or ends; return the cause and the remedy."""
        if self._child is None or self._child.stderr is None:
            return "not running"
        async for line in self._child.stderr:
            if _PANIC in line:
                _LOG.debug("the embedded broker said: %s", line.decode(errors="replace").strip())
                return self._remedy()
        return f"exit code {await self._child.wait()}"

    def _remedy(self) -> str:
        return (
            "an MQTT 5 message with properties probably reached a 3.1.1 client. "
            f"Watch with `mosquitto_sub -V 5 -p {self.port_v5} -t 'gatewayd/#' -v`; never subscribe to '#' "
            f"on port {self.port}; for more use mosquitto (mqtt.embedded.enabled: false)"
        )


@asynccontextmanager
async def embedded_broker(*, port: int = 0, port_v5: int = 0, state_dir: Path) -> AsyncIterator[EmbeddedBroker]:
    """Run the broker for as long as the context lasts; 0 takes a free port. `state_dir` holds its config file.

    The caller runs `keep()` as a task of its own group; without it a broker that dies stays dead.

    Raises: BrokerMissing when it cannot start.
    """
    if importlib.util.find_spec("iotcore") is None:
        message = "the embedded broker needs the package iotcore: install it, or set mqtt.embedded.enabled to false"
        raise BrokerMissing(message)
    chosen, chosen_v5 = _free_ports(port, port_v5)
    config = await asyncio.to_thread(_write_config, state_dir, {"v4": chosen, "v5": chosen_v5})
    broker = EmbeddedBroker(config, port=chosen, port_v5=chosen_v5)
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()


def _free_ports(*wanted: int) -> list[int]:
    """Return the ports wanted, each 0 replaced by free ones; all are held until all are found, so that they differ."""
    with contextlib.ExitStack() as held:
        return [_bound(held.enter_context(socket.socket()), port) for port in wanted]


def _bound(holder: socket.socket, port: int) -> int:
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last broker's connections may linger
    try:
        holder.bind((LOOPBACK, port))
    except OSError as error:
        message = (
            f"port {port} cannot be had for the embedded broker ({error.strerror}): "
            "free it, or set mqtt.embedded.port and port_v5"
        )
        raise BrokerMissing(message) from None
    bound: int = holder.getsockname()[1]
    return bound


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _write_config(folder: Path, ports: dict[str, int]) -> Path:
    listeners = (
        _LISTENER.format(version=version, host=LOOPBACK, port=port, payload=MAX_PAYLOAD_BYTES)
        for version, port in ports.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "broker.toml"
    path.write_text(_TOML + "".join(listeners))
    return path
