"""The device's MQTT client: paho in its own thread, everything it sees handed to the event loop.

paho's thread keeps the reconnecting (with back-off) and the blocking connect away from the loop. 3.1.1 unless told otherwise.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gatewayd.adapters.mqtt_prompt import PromptClient
from gatewayd.wire.mqttdevice import encode_offline

_KEEPALIVE_S = 30
_LONGEST_BACKOFF_S = 10
_GOODBYE_S = 2.0
_QUEUED = 64  # QoS 1 messages that paho keeps while the broker is away; the agent says all again anyway


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where the broker is, who the device is, and below which topic level(s) its gateway is (`<prefix>/<node>`)."""

    host: str
    port: int
    device: str
    gateway: str
    version: str = "3.1.1"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def base(self) -> str:
        """The device's own topic level(s)."""
        return f"{self.gateway}/device/{self.device}"


@dataclass(frozen=True, slots=True)
class ClientCallbacks:
    """What happens to the connection, called on the event loop. `on_message` gets the kind and the payload.

    `on_gateway`: the gateway's own status was heard, whatever it says.
    """

    on_connected: Callable[[], None]
    on_disconnected: Callable[[str], None]
    on_message: Callable[[str, bytes], None]
    on_gateway: Callable[[], None]


class DeviceClient:
    """One connection, with the device's last will. Call `start` on the event loop."""

    def __init__(self, options: ClientOptions, callbacks: ClientCallbacks) -> None:
        self._options = options
        self._callbacks = callbacks
        self._loop = asyncio.get_running_loop()
        self._client = _paho(options)
        self._client.on_connect = self._connect
        self._client.on_connect_fail = self._connect_fail
        self._client.on_subscribe = self._subscribed
        self._client.on_disconnect = self._disconnect
        self._client.on_message = self._message
        self._client.on_socket_open = lambda *_: self._client.send_at_once()

    def start(self) -> None:
        """Begin connecting, for ever."""
        self._client.connect_async(self._options.host, self._options.port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()

    def publish(self, kind: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Send under `up/`; lost when the broker is away (the agent says it again after the next connect)."""
        if self._client.is_connected():
            self._client.publish(self.topic(kind), payload, qos=qos, retain=retain)

    def topic(self, kind: str) -> str:
        """Return the full topic of an `up/` message."""
        return f"{self._options.base}/up/{kind}"

    async def close(self) -> None:
        """Say that the device goes, then disconnect."""
        await asyncio.to_thread(self._goodbye)

    def _goodbye(self) -> None:
        if self._client.is_connected():
            said = self._client.publish(self.topic("status"), encode_offline(), qos=1, retain=True)
            with suppress(RuntimeError):  # the broker went first; it sends the will
                said.wait_for_publish(_GOODBYE_S)
        self._client.disconnect()
        self._client.loop_stop()

    def _connect(
        self, client: Client, _userdata: object, _flags: ConnectFlags, reason: ReasonCode, _props: Properties | None
    ) -> None:
        if reason.is_failure:
            self._call(lambda: self._callbacks.on_disconnected(f"refused: {reason}"))
            return
        client.subscribe([(f"{self._options.base}/down/+", 1), (f"{self._options.gateway}/status", 1)])

    def _connect_fail(self, _client: Client, _userdata: object) -> None:
        self._call(lambda: self._callbacks.on_disconnected("broker not there"))

    def _subscribed(
        self, _client: Client, _userdata: object, _mid: int, codes: list[ReasonCode], _props: Properties | None
    ) -> None:
        refused = [
            str(code) for code in codes[:1] if code.is_failure
        ]  # an access list may keep the status from devices
        if refused:
            self._call(lambda: self._callbacks.on_disconnected(f"subscription refused: {refused[0]}"))
        else:
            self._call(self._callbacks.on_connected)

    def _disconnect(
        self, _client: Client, _userdata: object, _flags: DisconnectFlags, reason: ReasonCode, _props: Properties | None
    ) -> None:
        self._call(lambda: self._callbacks.on_disconnected(str(reason)))

    def _message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        kind = message.topic.rpartition("/")[2]
        if message.topic == f"{self._options.gateway}/status":
            self._call(self._callbacks.on_gateway)
        elif not message.retain:  # a retained command is an old one: never obeyed
            self._call(lambda: self._callbacks.on_message(kind, bytes(message.payload)))

    def _call(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(callback)


def _paho(options: ClientOptions) -> PromptClient:
    is_v5 = options.version == "5"
    client = PromptClient(
        CallbackAPIVersion.VERSION2,
        client_id=f"{options.gateway.rpartition('/')[2]}-{options.device}",  # boards of two gateways may share a broker
        clean_session=None if is_v5 else True,
        protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
    )
    client.username_pw_set(options.username, options.password)
    if options.tls is not None:
        client.tls_set_context(options.tls)
    client.will_set(f"{options.base}/up/status", encode_offline(), qos=1, retain=True)
    client.reconnect_delay_set(min_delay=1, max_delay=_LONGEST_BACKOFF_S)
    client.max_queued_messages_set(_QUEUED)
    return client
