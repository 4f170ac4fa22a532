"""The agent on a broker: MQTT 3.1.1, QoS 0 and 1, a last will."""

import json
import queue
import threading
import time
from collections.abc import Callable

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from tests.second_device.agent import Agent, Say

Power = Callable[[str, bytes], bool]
_TICK_S = 0.1


class Client:
    """One connection. When `power` says no to a message, it is cut as if by a plug that was pulled."""

    def __init__(self, device: str, *, base: str, port: int, make: Callable[[Say], Agent], power: Power) -> None:
        self.said: list[tuple[str, bytes]] = []
        self._base, self._port, self._power = f"{base}/device/{device}", port, power
        self._device = device
        self.agent = make(self._say)
        self._inbox: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._paho = Paho(CallbackAPIVersion.VERSION2)
        self._thread = threading.Thread()

    def start(self) -> None:
        """Connect; the birth follows when the subscription stands, so that what it brings is not lost."""
        self._inbox = queue.SimpleQueue()
        self._paho = Paho(CallbackAPIVersion.VERSION2, client_id=self._device, protocol=MQTTv311)
        self._paho.will_set(f"{self._base}/up/status", b'{"state":"offline"}', 1, retain=True)
        self._paho.on_message = self._heard
        self._paho.on_connect = lambda paho, *_: paho.subscribe(f"{self._base}/down/+", 1)
        self._paho.on_subscribe = lambda *_: self._inbox.put(("connected", b""))
        self._paho.connect("127.0.0.1", self._port)
        self._paho.loop_start()
        self._thread = threading.Thread(target=self._work, name=self._device)
        self._thread.start()

    def stop(self) -> None:
        """Cut the connection, if it still stands."""
        self._inbox.put(("stop", b""))
        self.join()

    def join(self) -> None:
        """Wait until the power went."""
        self._thread.join(30)
        assert not self._thread.is_alive()

    def reports(self) -> list[dict[str, object]]:
        """Return what it said about pushes."""
        return [json.loads(payload) for leaf, payload in self.said if leaf == "push"]

    def _heard(self, _paho: Paho, _data: object, message: MQTTMessage) -> None:
        if not message.retain:
            self._inbox.put((message.topic.rpartition("/")[2], bytes(message.payload)))

    def _say(self, leaf: str, payload: bytes) -> None:
        self.said.append((leaf, payload))
        qos = 1 if leaf in {"status", "push"} else 0
        self._paho.publish(f"{self._base}/up/{leaf}", payload, qos, retain=leaf == "status")

    def _work(self) -> None:
        while True:
            try:
                leaf, payload = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                self.agent.tick(time.monotonic())
                continue
            if leaf == "stop" or not self._power(leaf, payload):
                break
            if leaf == "connected":
                self.agent.connected(time.monotonic())
            else:
                self.agent.heard(leaf, payload, time.monotonic())
        self._paho.loop_stop()
        connection = self._paho.socket()
        if connection is not None:
            connection.close()
