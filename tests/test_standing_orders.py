"""A standing order over real parts: through a kill of the daemon and a power cut of the board, until it is stopped."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from gatewayd.demo.client import Answer
from tests.broker import Broker
from tests.gateway import BASE, Events, Gateway, Process, add_speaker, client, gatewayd, start_board


@contextmanager
def _heard(broker: Broker, topic: str, events: Events) -> Iterator[None]:
    """Collect what comes on a topic as events of the kind `stream`."""
    paho = Paho(CallbackAPIVersion.VERSION2)

    def on_message(_client: Paho, _data: object, message: MQTTMessage) -> None:
        events("stream", json.loads(message.payload))

    paho.on_message = on_message
    paho.on_subscribe = lambda *_: events("subscribed", {})
    paho.connect("127.0.0.1", broker.port)
    paho.subscribe(topic, 1)
    paho.loop_start()
    events.until("subscribed", lambda _: True)
    yield
    paho.disconnect()
    paho.loop_stop()


def _ran_on(target: str, event: Answer) -> bool:
    return bool(event.get("parameters", {}).get("ran_on") == target)


def test_an_order_goes_on_through_restarts_until_it_is_stopped(tmp_path: Path, broker: Broker) -> None:
    gateway = Gateway(tmp_path, broker_port=broker.port)
    told, boards = Events(), list[Process]()
    with _heard(broker, f"{BASE}/stream/watch", told):
        try:
            add_speaker(gateway)
            with client(broker.port) as (mqtt, events):
                boards.append(start_board(tmp_path, broker_port=broker.port))
                events.until("event/device", lambda event: event["device"] == "door-1" and event["online"])
                order = {
                    "id": "watch",
                    "model": "speaker",
                    "device": "door-1",
                    "input": "mic",
                    "period_ms": 50,
                    "qos": 1,
                }
                row = mqtt.command("stream.start", order)
                assert (row["topic"], row["who"]) == (f"{BASE}/stream/watch", "mqtt")
                assert mqtt.command("stream.start", order)["started_at"] == row["started_at"]
                # The node serves at first; what the order saves is known, so the model is brought to the device.
                told.until("stream", lambda event: _ran_on("node", event))
                told.until("stream", lambda event: _ran_on("device:door-1", event))

            gateway.end(signal.SIGKILL)
            told.forget()
            gateway = Gateway(tmp_path, broker_port=broker.port)
            told.until("stream", lambda event: _ran_on("device:door-1", event))

            boards[0].end(signal.SIGKILL)
            failed = told.until("stream", lambda event: "error" in event)
            assert (failed["order"], failed["device"]) == ("watch", "door-1")
            told.forget()
            boards.append(start_board(tmp_path, broker_port=broker.port))
            told.until("stream", lambda event: _ran_on("device:door-1", event))

            listed = gatewayd("stream", "list", "--url", gateway.http)
            assert listed.returncode == 0, listed.stderr
            assert "watch" in listed.stdout
            with client(broker.port) as (mqtt, _):
                assert mqtt.command("stream.stop", {"id": "watch"})["answered"] > 0
                assert told.until("stream", lambda event: "ended" in event)["ended"] == "stopped by an operator (mqtt)"
                assert mqtt.command("stream.list", {}) == {"streams": []}
        finally:
            gateway.end()
            for board in boards:
                board.end()
