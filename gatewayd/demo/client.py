"""An MQTT client as a user would write it: it knows the documented topics, and of gatewayd only how not to be slow."""

import json
import queue
import threading
import uuid
from collections.abc import Callable
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gatewayd.adapters.mqtt_prompt import PromptClient

Answer = dict[str, Any]
"""A JSON object as it came: the demonstration prints it and compares figures, it decides nothing."""

_CONNECT_S = 20.0


class RefusedError(Exception):
    """The gateway answered with an error: its message and its code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class GatewayClient:
    """Requests with response topic and correlation data (MQTT 5); events to a callback on paho's thread."""

    def __init__(self, *, host: str, port: int, base: str, on_event: Callable[[str, Answer], None]) -> None:
        self._base = base
        self._on_event = on_event
        self._replies = f"reply/{uuid.uuid4().hex[:12]}"
        self._waiting: dict[bytes, queue.SimpleQueue[Answer]] = {}
        self._ready = threading.Event()
        self._mqtt = PromptClient(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._mqtt.on_connect = self._connected
        self._mqtt.on_message = self._message
        self._mqtt.on_socket_open = lambda *_: self._mqtt.send_at_once()
        self._mqtt.reconnect_delay_set(min_delay=1, max_delay=2)
        self._mqtt.connect_async(host, port)  # paho's loop tries until the broker is there

    def __enter__(self) -> Self:
        self._mqtt.loop_start()
        if not self._ready.wait(_CONNECT_S):
            raise TimeoutError("the MQTT broker did not answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    def command(self, verb: str, arguments: Answer, *, timeout_s: float = 30.0) -> Answer:
        """Send `cmd/<verb>` and return its result. Raises: RefusedError, TimeoutError."""
        return self.ask(f"cmd/{verb}", json.dumps(arguments).encode(), "application/json", timeout_s=timeout_s)

    def infer(self, model: str, body: Answer, *, timeout_s: float = 15.0) -> Answer:
        """Send a JSON request to `infer/<model>`. Raises: RefusedError, TimeoutError."""
        return self.ask(f"infer/{model}", json.dumps(body).encode(), "application/json", timeout_s=timeout_s)

    def infer_raw(self, model: str, content: bytes, *, timeout_s: float = 15.0) -> Answer:
        """Send raw tensor bytes to `infer/<model>`. Raises: RefusedError, TimeoutError."""
        return self.ask(f"infer/{model}", content, "application/octet-stream", timeout_s=timeout_s)

    def ask(self, what: str, payload: bytes, content_type: str | None, *, timeout_s: float = 15.0) -> Answer:
        """Publish anything to `what` below the node's base and return the answer. Raises: RefusedError, TimeoutError."""
        correlation = uuid.uuid4().bytes
        waiting: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._waiting[correlation] = waiting
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho left it so
        properties.ResponseTopic = self._replies
        properties.CorrelationData = correlation
        if content_type is not None:
            properties.ContentType = content_type
        # A command must arrive; a request that is lost is asked again, and without acknowledgement it is faster.
        self._mqtt.publish(f"{self._base}/{what}", payload, qos=int(what.startswith("cmd/")), properties=properties)
        try:
            answer = waiting.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no answer to {what} within {timeout_s:.0f} s") from None
        finally:
            del self._waiting[correlation]
        if "error" in answer:
            raise RefusedError(answer["error"]["message"], answer["error"]["code"])
        return answer

    def _connected(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe([(self._replies, 1), (f"{self._base}/event/#", 0), (f"{self._base}/status", 1)])
        self._ready.set()

    def _message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic != self._replies:
            kind = message.topic.removeprefix(f"{self._base}/")
            self._on_event(kind, json.loads(message.payload or b"{}"))
            return
        correlation = getattr(message.properties, "CorrelationData", b"")
        waiting = self._waiting.get(correlation)
        if waiting is not None:
            waiting.put(json.loads(message.payload))
