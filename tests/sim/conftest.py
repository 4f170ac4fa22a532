"""A real `gatewayd sim-device` process on a real broker, and a paho client that plays the gateway."""

import json
import queue
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gatewayd.core.device import Born, Lost, PushPhase, PushReport, Report
from gatewayd.core.names import DeviceId, PushId
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import OfferMessage
from tests.broker import Broker
from tests.signing import PUBLIC, offer_bytes
from tests.tiny_models import INT8_INPUTS

PATIENCE_S = 20.0
BASE = "gatewayd/gateway-1/device/cam-7"
DEVICE = DeviceId("cam-7")


class Gateway:
    """What a gateway does, step by step; every message of the device comes in order."""

    def __init__(self, broker: Broker) -> None:
        self._heard: queue.Queue[wire.UpMessage] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._subscribed: queue.Queue[None] = queue.Queue()
        self._client.on_message = self._message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_connect = self._on_connect
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._subscribed.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, kind: str, payload: bytes) -> None:
        self._client.publish(f"{BASE}/down/{kind}", payload, qos=1)

    def next(self) -> wire.UpMessage:
        """Return the next message that is no status of a device that is there."""
        while True:
            message = self._heard.get(timeout=PATIENCE_S)
            if not isinstance(message, Born):
                return message

    def birth(self) -> Report:
        """Return the next status, which must be of a device that is there."""
        while True:
            message = self._heard.get(timeout=PATIENCE_S)
            if isinstance(message, Born):
                return message.report

    def lost(self) -> Lost:
        message = self.next()
        assert isinstance(message, Lost), message
        return message

    def report(self) -> PushReport:
        message = self.next()
        assert isinstance(message, PushReport), message
        return message

    def chunk(self, report: PushReport, content: bytes) -> None:
        assert report.phase is PushPhase.WANT
        piece = content[report.offset : report.offset + report.length]
        self.send("chunk", wire.encode_chunk(report.push, report.offset, piece))

    def push(self, offer: OfferMessage, content: bytes) -> list[str]:
        """Play a whole push; return the phases after the transfer."""
        self.send("offer", offer_bytes(offer))
        phases: list[str] = []
        while not phases or phases[-1] not in {"accepted", "failed", "rejected"}:
            phases += self._answer(self.report(), content)
        return phases

    def _answer(self, report: PushReport, content: bytes) -> list[str]:
        if report.phase is PushPhase.WANT:
            self.chunk(report, content)
            return []
        if report.phase is PushPhase.TESTED:
            self.send("activate", wire.encode_activate(PushId(report.push)))
        if report.phase is PushPhase.TRIAL:
            self.send("accept", wire.encode_accept(PushId(report.push)))
        return [report.phase.value]

    def _on_connect(
        self, client: Client, _userdata: object, _flags: ConnectFlags, _reason: ReasonCode, _props: Properties | None
    ) -> None:
        client.subscribe(f"{BASE}/up/+", qos=1)

    def _on_subscribe(
        self, _client: Client, _userdata: object, _mid: int, _codes: list[ReasonCode], _props: Properties | None
    ) -> None:
        self._subscribed.put(None)

    def _message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        kind = message.topic.rpartition("/")[2]
        self._heard.put(wire.decode_up(kind, bytes(message.payload), DEVICE))


class Device:
    """The process. It may be started again on the same state."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self._arguments = ["--id", DEVICE, "--node", "gateway-1", "--broker", f"{broker.host}:{broker.port}"]
        self._arguments += ["--state", str(directory / "flash"), "--samples", str(directory), "--sensor", "mic"]
        self._arguments += ["--trust", PUBLIC.hex()]
        self._log = (directory / "device.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str, board: str = "nucleo-l4r5zi") -> None:
        command = [sys.executable, "-m", "gatewayd.sim", *self._arguments, "--board", board, *more]
        self._process = subprocess.Popen(command, stderr=self._log)

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)
        self._log.close()


@pytest.fixture
def gateway(broker: Broker) -> Iterator[Gateway]:
    playing = Gateway(broker)
    yield playing
    playing.close()


@pytest.fixture
def device(broker: Broker, tmp_path: Path, samples: Callable[[Path], list[bytes]]) -> Iterator[Device]:
    samples(tmp_path)
    process = Device(broker, tmp_path)
    yield process
    process.close()


@pytest.fixture
def samples() -> Callable[[Path], list[bytes]]:
    """Write three INT16 samples that fit the tiny int8 model; return them."""

    def write(directory: Path) -> list[bytes]:
        rows = [
            struct.pack(f"<{INT8_INPUTS}h", *(64 * (step % 8) + row for step in range(INT8_INPUTS))) for row in range(3)
        ]
        about = {
            "dtype": "INT16",
            "shape": [1, INT8_INPUTS],
            "scale": 1 / 1024,
            "zero": 0,
            "preprocessing": "x@1",
            "count": 3,
        }
        (directory / "samples.json").write_text(json.dumps(about))
        (directory / "samples.bin").write_bytes(b"".join(rows))
        return rows

    return write
