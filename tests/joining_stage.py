"""A gateway and its broker as `gatewayd init` sets them up, on free ports: real processes, TLS, access lists."""

import json
import os
import queue
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gatewayd.cli.client import Client as HttpClient
from gatewayd.wire.device_credentials import DeviceCredentials, decode_device_credentials
from tests.broker import MOSQUITTO, free_port
from tests.gateway import REPOSITORY, Process

PATIENCE_S = 30
PORTS = ("http", "mqtt", "devices", "clients", "coap")


def free_ports() -> dict[str, int]:
    """Return a free port for each listener."""
    return {name: free_port() for name in PORTS}


def program(folder: Path, ports: dict[str, int]) -> Path:
    """Return a folder with a `gatewayd` that takes these ports where `init` has its own."""
    given = " ".join(f"--{name}-port {port}" for name, port in ports.items())
    script = folder / "bin" / "gatewayd"
    script.parent.mkdir()
    own = f'exec "{sys.executable}" -m gatewayd'
    script.write_text(f'#!/bin/sh\nif [ "$1" = init ]; then shift; {own} init {given} "$@"; fi\n{own} "$@"\n')
    script.chmod(0o755)
    return script.parent


class Mosquitto:
    """The broker on the configuration that was written."""

    def __init__(self, config: Path, log: Path) -> None:
        assert MOSQUITTO is not None
        self._log = log.open("wb")
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=self._log)

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_S)
        self._log.close()


class Stage:
    """`gatewayd init` was run in `folder`; both daemons are up."""

    def __init__(self, folder: Path, *, node: str = "gw") -> None:
        self.folder = folder / "gw"
        self.ports = free_ports()
        self._path = program(folder, self.ports)
        self.run("init", "--yes", "--dir", str(self.folder), "--node", node, "--host", "localhost")
        self.mosquitto = Mosquitto(self.folder / "mosquitto" / "mosquitto.conf", folder / "mosquitto.log")
        self.daemon = Process(["run", "--config", str(self.folder / "gatewayd.yaml")])
        self.daemon.until("ready node=")
        self.daemon.until("mqtt connected")
        token = (self.folder / "admin-token").read_text().strip()
        tls = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        self._client = HttpClient(f"https://localhost:{self.ports['http']}", token, tls)

    def close(self) -> None:
        self.daemon.end()
        self.mosquitto.end()

    @property
    def environment(self) -> dict[str, str]:
        """What the command line needs."""
        return {
            **os.environ,
            "PATH": f"{self._path}:{os.environ['PATH']}:/usr/sbin",
            "GATEWAYD_URL": f"https://localhost:{self.ports['http']}",
            "GATEWAYD_TOKEN_FILE": str(self.folder / "admin-token"),
            "GATEWAYD_CA": str(self.folder / "ca.pem"),
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the program; return what it wrote."""
        done = subprocess.run(
            ["gatewayd", *arguments], env=self.environment, cwd=REPOSITORY, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False, executable=str(self._path / "gatewayd"),
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def call(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Call a verb over HTTPS, with the administrator's token. Raises: Refused."""
        answer: dict[str, Any] = json.loads(self._client.call(verb, arguments))
        return answer

    def credentials(self, device: str, **more: object) -> DeviceCredentials:
        """Make credentials, and read them as a device would."""
        answer = self._client.call("devices.credentials.new", {"device": device, **more})
        (self.folder / f"{device}.json").write_bytes(answer)
        return decode_device_credentials(answer)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage while the context lasts."""
    running = Stage(folder)
    try:
        yield running
    finally:
        running.close()


class Peer:
    """A client of the devices' listener that takes note of what the broker says."""

    def __init__(self, of: DeviceCredentials, *, client_id: str = "", password: str | None = None) -> None:
        self.connected: queue.Queue[str] = queue.Queue()
        self.lost: queue.Queue[str] = queue.Queue()
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._acknowledged: queue.Queue[str] = queue.Queue()
        self._subscribed: queue.Queue[None] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.username_pw_set(of.username, password or of.password)
        self._client.tls_set_context(ssl.create_default_context(cadata=of.ca))
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect(of.host, of.port)
        self._client.loop_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, payload: bytes) -> str:
        """Publish at QoS 1; return what the broker answers."""
        self._client.publish(topic, payload, qos=1)
        return self._acknowledged.get(timeout=PATIENCE_S)

    def listen(self, topic_filter: str) -> None:
        self._client.subscribe(topic_filter, qos=1)
        self._subscribed.get(timeout=PATIENCE_S)

    def _on_connect(
        self, _client: Client, _userdata: object, _flags: ConnectFlags, reason: ReasonCode, _props: Properties | None
    ) -> None:
        self.connected.put(str(reason))

    def _on_disconnect(
        self, _client: Client, _userdata: object, _flags: object, reason: ReasonCode, _props: Properties | None
    ) -> None:
        self.lost.put(str(reason))

    def _on_publish(
        self, _client: Client, _userdata: object, _mid: int, reason: ReasonCode, _props: Properties | None
    ) -> None:
        self._acknowledged.put(str(reason))

    def _on_subscribe(
        self, _client: Client, _userdata: object, _mid: int, _codes: list[ReasonCode], _props: Properties | None
    ) -> None:
        self._subscribed.put(None)

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self.heard.put((message.topic, bytes(message.payload)))


def has_mosquitto() -> bool:
    """Whether broker and clients are installed."""
    return MOSQUITTO is not None and shutil.which("mosquitto_pub") is not None
