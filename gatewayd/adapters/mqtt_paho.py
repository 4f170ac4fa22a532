"""paho's client as a session needs it: made from our options, bounded, its properties turned into values and back.

Nothing here knows an event loop; `connect` blocks and is for a thread.
"""

import ssl
from collections.abc import Callable
from dataclasses import field
from typing import Literal

from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gatewayd.adapters.mqtt_prompt import PromptClient
from gatewayd.core.record import record
from gatewayd.wire.mqtt import Message
from gatewayd.wire.mqtt_publish import MalformedPacket, decode_puback, decode_publish, encode_publish

MAX_PACKET_BYTES = 268_435_455  # Source: MQTT 5.0 §2.1.4
LATE_WINDOW = 32
"""Messages the broker may send before it sees an acknowledgement, where those come late: it keeps the rest, and nothing is
refused for want of room. On 3.1.1 the broker decides alone (mosquitto: 20)."""
_PUBLISH = 0x30
# What a PUBLISH carries besides its payload: topic and properties are at most 64 KiB each.
_OVERHEAD_BYTES = 2 * 65536


@record
class MqttOptions:
    """Where the broker is and who we are there.

    `version` is `auto` (5, else 3.1.1), `5` or `3.1.1`. TLS is used when `tls` or `ca_file` is given (without a file the
    system's authorities count). `will` is what the broker says when we vanish, `online` what we say at each connect; both
    are published as they are, None: nothing is said. A message with more than `max_payload_bytes` is refused in either
    direction. `is_late`: messages are acknowledged when their handler says so, and the broker keeps the session for
    `session_expiry_s` while we are away (0: not at all; on 3.1.1, which knows no time, for as long as the broker likes), so
    that what was not acknowledged comes again. `websocket_path` None: plain TCP.
    """

    host: str
    will: Message | None
    online: Message | None
    port: int = 1883
    version: str = "auto"
    client_id: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keepalive_s: int = 30
    max_payload_bytes: int = 16 * 2**20
    is_late: bool = False
    session_expiry_s: int = 0
    websocket_path: str | None = None


class BoundedClient(PromptClient):
    """Refuses a packet when its length is known and nothing is allocated yet.

    On MQTT 5 the broker is told the limit; on 3.1.1 there is no other way, and paho's public side shows whole packets only.
    """

    max_packet_bytes = MAX_PACKET_BYTES
    on_refused_packet: Callable[[int], None] | None = None
    on_received: Callable[[Message | None, int], None] | None = None
    on_acknowledged: Callable[[int, int], None] | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize <= self.max_packet_bytes:
            return super()._sock_recv(bufsize)
        if self.on_refused_packet is not None:
            self.on_refused_packet(bufsize)
        raise ConnectionError("a packet over the size limit")

    def _sock_send(self, buf: bytes | bytearray) -> int:
        sent = super()._sock_send(buf)
        if sent == 0 and buf:
            # A WebSocket has sent a part of its frame: paho would take the packet for sent, and lose its place in the stream.
            raise BlockingIOError
        return sent

    # What every request passes by goes round paho's own way, which costs more than all the rest (see wire/mqtt_publish.py).
    # These are paho's private methods: its version is pinned, and the tests of the connection fail if it moves them.

    def send(self, message: Message) -> int:
        """Write a message; return its packet identifier (0 with QoS 0)."""
        mid = self._mid_generate() if message.qos else 0
        if self._sock is None:
            return mid
        packet = encode_publish(message, mid, is_v5=self._protocol == MQTTProtocolVersion.MQTTv5)
        self._packet_queue(_PUBLISH, packet, mid, 1)  # as QoS 1: of QoS 0 paho would tell when it is written
        return mid

    def _handle_publish(self) -> MQTTErrorCode:
        command, body = self._in_packet["command"], self._in_packet["packet"]
        try:
            message, mid = decode_publish(command, body, is_v5=self._protocol == MQTTProtocolVersion.MQTTv5)
        except MalformedPacket:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        with self._in_callback_mutex:
            if self.on_received is not None:
                self.on_received(message, mid)
        if self._manual_ack or not mid:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._send_puback(mid)

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        if cmd == "PUBACK":
            try:
                mid, reason = decode_puback(self._in_packet["packet"])
            except MalformedPacket:
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            if self.on_acknowledged is not None:
                self.on_acknowledged(mid, reason)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the base
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def new_client(options: MqttOptions, protocol: MQTTProtocolVersion) -> BoundedClient:
    """Return a client that has not connected yet."""
    is_v5 = protocol is MQTTProtocolVersion.MQTTv5
    client = BoundedClient(
        CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        clean_session=None if is_v5 else options.session_expiry_s == 0,
        protocol=protocol,
        transport="tcp" if options.websocket_path is None else "websockets",
        manual_ack=options.is_late,
        reconnect_on_failure=False,  # otherwise paho itself falls back to MQTT 3.1 and blocks the loop to do so
    )
    client.max_inflight_messages = 0  # the window is `mqtt_connection`'s
    client.max_packet_bytes = min(options.max_payload_bytes + _OVERHEAD_BYTES, MAX_PACKET_BYTES)
    if options.websocket_path is not None:
        client.ws_set_options(path=options.websocket_path)
    will = options.will
    if will is not None:
        will_properties = _will_properties(will) if is_v5 else None
        client.will_set(will.topic, will.payload, will.qos, will.retain, will_properties)
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    return client


def connect(client: BoundedClient, options: MqttOptions) -> None:
    """Block until TCP (and TLS) stand and CONNECT is written. Certificates are read anew: they may have been renewed."""
    if options.tls or options.ca_file:
        context = ssl.create_default_context(cafile=options.ca_file)
        context.sslsocket_class = _TlsSocket
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file)
        client.tls_set_context(context)
    if client.protocol is MQTTProtocolVersion.MQTTv5:
        properties = _properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = client.max_packet_bytes
        if options.is_late:
            properties.ReceiveMaximum = LATE_WINDOW
        if options.session_expiry_s:
            properties.SessionExpiryInterval = options.session_expiry_s
        is_clean = options.session_expiry_s == 0
        client.connect(options.host, options.port, options.keepalive_s, clean_start=is_clean, properties=properties)
    else:
        client.connect(options.host, options.port, options.keepalive_s)
    client.send_at_once()


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho left it so


def _will_properties(will: Message) -> Properties:
    properties = _properties(PacketTypes.WILLMESSAGE)
    if will.content_type is not None:
        properties.ContentType = will.content_type
    return properties


def packet_bytes(message: Message) -> int:
    """Return at least the size of the PUBLISH that carries `message`. Source: MQTT 5.0 §3.3."""
    texts = (message.topic, message.content_type or "", message.response_topic or "")
    # 5 fixed header, 2 packet identifier, 4 length of properties, 5 expiry, 3 for each text or binary property.
    return 32 + sum(len(text.encode()) for text in texts) + len(message.correlation or b"") + len(message.payload)
