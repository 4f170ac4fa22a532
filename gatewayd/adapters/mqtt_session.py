"""One connection to an MQTT broker, from TCP to the end: paho's external loop driven by asyncio's reader and writer callbacks.

`mqtt_connection` opens one after another. A session never reconnects and keeps no queue: each has a paho client of its
own, so nothing of a broken connection reaches the next. (paho's own threads and aiomqtt cost three times as much.)
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gatewayd.wire.mqtt import Message

P = ParamSpec("P")

# What a PUBLISH carries besides its payload: topic and properties are at most 64 KiB each.
_OVERHEAD_BYTES = 2 * 65536
_TYPICAL_OVERHEAD_BYTES = 4096
_MAX_PACKET_BYTES = 268_435_455  # Source: MQTT 5.0 §2.1.4
_TLS_READS = 64  # packets decrypted in one go before other callbacks get their turn
_UNSUPPORTED = 0x84  # Source: MQTT 5.0 §3.2.2.2; paho turns 3.1.1's code 1 into it
_DO_NOT_SEND_RETAINED = 2  # Source: MQTT 5.0 §3.8.3.1, retain handling


class BrokerRefused(OSError):
    """The broker closed the connection, or (`answered`) said no; `unsupported`: to this version of MQTT."""

    def __init__(self, message: str, *, answered: bool = False, unsupported: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        self.unsupported = unsupported


class HandlerFailed(Exception):
    """A callback raised, which none may: the cause is a defect of the program."""


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Where the broker is and who we are there.

    `version` is `auto` (5, else 3.1.1), `5` or `3.1.1`. TLS is used when `tls` or `ca_file` is given (without a file the
    system's authorities count). `will` is what the broker says when we vanish, `online` what we say at each connect; both
    are published as they are. A message with more than `max_payload_bytes` is refused in either direction.
    """

    host: str
    will: Message
    online: Message
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


class Owner(Protocol):
    """Who is told what happens on a session, on the event loop. What it raises ends the session as HandlerFailed."""

    def received(self, message: Message) -> None:
        """Take a message."""

    def acknowledged(self, mid: int, refusal: str) -> None:
        """Note that the broker has (or, with a reason, refused) the QoS 1 message `mid`."""

    def subscribed(self, mid: int, refusal: str) -> None:
        """Note the answer to a subscription."""

    def refused(self, code: str, message: str) -> None:
        """Count something the broker sent that was not taken."""


class Session:
    """One connection. `closed` is done when it has ended; its exception says why (none: we closed it).

    `receive_maximum` and `max_payload_bytes` are what the broker allows us (QoS 1 messages on the wire, bytes in one).
    `unsent_bytes` are payloads written since the socket last took everything.
    """

    def __init__(self, options: MqttOptions, owner: Owner, *, protocol: MQTTProtocolVersion) -> None:
        self.protocol = protocol
        self.is_v5 = protocol is MQTTProtocolVersion.MQTTv5
        self.receive_maximum = 65535
        self.max_payload_bytes = _MAX_PACKET_BYTES
        self.unsent_bytes = 0
        self._options = options
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._socket: socket.socket | None = None
        self._is_writing = False
        self._client = _new_client(options, protocol)

    async def open(self, timeout_s: float) -> None:
        """Connect and wait for the broker's yes.

        Raises: BrokerRefused, OSError, TimeoutError. The session is closed then.
        """
        try:
            async with asyncio.timeout(timeout_s):
                # DNS, TCP and TLS block in paho.
                await self._loop.run_in_executor(None, partial(_connect, self._client, self._options))
                self._attach()
                await asyncio.wait({self._accepted, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self.abort()
            raise
        if not self._accepted.done():
            self.abort()
            raise self.closed.exception() or BrokerRefused("closed")

    def publish(self, message: Message) -> int:
        """Write a message; return its number, by which `acknowledged` names it (QoS 1)."""
        properties = _publish_properties(message) if self.is_v5 else None
        self.unsent_bytes += len(message.payload)
        sent = self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        return sent.mid

    def subscribe(self, topic_filter: str, *, qos: int, retained: bool) -> int:
        """Ask for messages; return the number by which `subscribed` names the answer."""
        if self.is_v5:
            options = SubscribeOptions(
                qos=qos,
                retainAsPublished=not retained,
                retainHandling=0 if retained else _DO_NOT_SEND_RETAINED,
            )
            _, mid = self._client.subscribe(topic_filter, options=options)
        else:
            _, mid = self._client.subscribe(topic_filter, qos)
        return mid or 0

    def keep_alive(self) -> None:
        """Ping when it is time, and end the session when the broker has not answered. Call about once a second."""
        self._client.loop_misc()

    async def close(self) -> None:
        """Say goodbye (the will is not published then) and wait until it is written."""
        if not self.closed.done():
            self._client.disconnect()
            await asyncio.wait({self.closed})
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once; the broker publishes the will."""
        self._detach()
        self._client.on_disconnect = self._client.on_socket_close = None
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self.closed.done():
            return
        if error is None:
            self.closed.set_result(None)
            return
        self.closed.set_exception(error)
        self.closed.exception()  # seen: whoever waits asks again, and nobody may be waiting

    def _attach(self) -> None:
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            raise BrokerRefused("the broker closed the connection at once")
        self._socket = sock
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_register_write = self._on_wants_write
        client.on_socket_close = self._on_socket_close
        client.on_refused_packet = self._refuse_packet
        self._loop.add_reader(sock, self._read)
        self._write()

    def _detach(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket = None
        self._is_writing = False

    def _read(self) -> None:
        for _ in range(_TLS_READS):
            self._client.loop_read()
            if not self._decrypted_bytes():
                return
        # What OpenSSL has already decrypted does not make the socket readable again.
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._socket is not None:
            self._read()

    def _decrypted_bytes(self) -> int:
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0

    def _refuse_packet(self, size: int) -> None:
        limit = self._client.max_packet_bytes
        self._owner.refused("too_large", f"a packet of {size} bytes, over {limit}: connection dropped")

    def _write(self) -> None:
        if self._socket is None:
            return
        self._client.loop_write()
        wants = self._client.want_write() and self._socket is not None
        if wants and not self._is_writing and self._socket is not None:
            self._loop.add_writer(self._socket, self._write)
        elif not wants and self._is_writing and self._socket is not None:
            self._loop.remove_writer(self._socket)
        self._is_writing = wants
        if not wants:
            self.unsent_bytes = 0

    def _on_wants_write(self, _client: Client, _userdata: object, _sock: object) -> None:
        # Once for all that is published in this turn of the loop, and cheaper than waiting for "writable".
        self._loop.call_soon(self._write)

    def _on_socket_close(self, _client: Client, _userdata: object, _sock: object) -> None:
        self._detach()

    def _on_connect(
        self,
        _client: Client,
        _userdata: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            text = f"the broker refused the connection: {reason}"
            self._end(BrokerRefused(text, answered=True, unsupported=reason.value == _UNSUPPORTED))
            return
        granted = vars(properties) if properties is not None else {}
        self.receive_maximum = granted.get("ReceiveMaximum", self.receive_maximum)
        if "MaximumPacketSize" in granted:
            self.max_payload_bytes = max(0, granted["MaximumPacketSize"] - _TYPICAL_OVERHEAD_BYTES)
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _on_disconnect(
        self, _client: Client, _userdata: object, flags: DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        self._detach()
        ours = not flags.is_disconnect_packet_from_server and not reason.is_failure
        self._end(None if ours else BrokerRefused(f"the connection ended: {reason}"))

    def _on_message(self, _client: Client, _userdata: object, raw: MQTTMessage) -> None:
        try:
            message = _message(raw)
        except UnicodeDecodeError:
            self._owner.refused("bad_request", "a message whose topic is not UTF-8")
            return
        size, limit = len(message.payload), self._options.max_payload_bytes
        if size > limit:
            self._owner.refused("too_large", f"{message.topic[:80]!r}: {size} bytes, at most {limit} are taken")
            return
        self._tell(self._owner.received, message)

    def _on_publish(
        self, _client: Client, _userdata: object, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        self._tell(self._owner.acknowledged, mid, str(reason) if reason.is_failure else "")

    def _on_subscribe(
        self, _client: Client, _userdata: object, mid: int, reasons: list[ReasonCode], _properties: Properties
    ) -> None:
        self._tell(self._owner.subscribed, mid, ", ".join(str(each) for each in reasons if each.is_failure))

    def _tell(self, callback: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Keep what a callback raises away from paho, which would lose its place in the packet."""
        try:
            callback(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - nothing is swallowed: it ends the session, and with it `run`
            failure = HandlerFailed(f"an MQTT callback raised {error!r}")
            failure.__cause__ = error
            self._end(failure)


class _BoundedClient(Client):
    """Refuses a packet when its length is known and nothing is allocated yet.

    On MQTT 5 the broker is told the limit; on 3.1.1 there is no other way, and paho's public side shows whole packets only.
    """

    max_packet_bytes = _MAX_PACKET_BYTES
    on_refused_packet: Callable[[int], None] | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize <= self.max_packet_bytes:
            return super()._sock_recv(bufsize)
        if self.on_refused_packet is not None:
            self.on_refused_packet(bufsize)
        raise ConnectionError("a packet over the size limit")


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the base
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _new_client(options: MqttOptions, protocol: MQTTProtocolVersion) -> _BoundedClient:
    is_v5 = protocol is MQTTProtocolVersion.MQTTv5
    client = _BoundedClient(
        CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        clean_session=None if is_v5 else True,
        protocol=protocol,
        reconnect_on_failure=False,  # otherwise paho itself falls back to MQTT 3.1 and blocks the loop to do so
    )
    client.max_inflight_messages = 0  # the window is `mqtt_connection`'s
    client.max_packet_bytes = min(options.max_payload_bytes + _OVERHEAD_BYTES, _MAX_PACKET_BYTES)
    will = options.will
    will_properties = _will_properties(will) if is_v5 else None
    client.will_set(will.topic, will.payload, will.qos, will.retain, will_properties)
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    return client


def _connect(client: _BoundedClient, options: MqttOptions) -> None:
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
        client.connect(options.host, options.port, options.keepalive_s, clean_start=True, properties=properties)
    else:
        client.connect(options.host, options.port, options.keepalive_s)
    sock = client.socket()
    if isinstance(sock, socket.socket):
        # Without it QoS 1 exchanges of small messages take 44–88 ms (Nagle against delayed acknowledgements).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho left it so


def _will_properties(will: Message) -> Properties:
    properties = _properties(PacketTypes.WILLMESSAGE)
    if will.content_type is not None:
        properties.ContentType = will.content_type
    return properties


def _publish_properties(message: Message) -> Properties | None:
    given = {
        "ContentType": message.content_type,
        "ResponseTopic": message.response_topic,
        "CorrelationData": message.correlation,
        "MessageExpiryInterval": message.expiry_s,
    }
    present = {name: value for name, value in given.items() if value is not None}
    if not present:
        return None
    properties = _properties(PacketTypes.PUBLISH)
    for name, value in present.items():
        setattr(properties, name, value)
    return properties


def _message(raw: MQTTMessage) -> Message:
    properties = vars(raw.properties) if raw.properties is not None else {}
    return Message(
        topic=raw.topic,
        payload=bytes(raw.payload),
        qos=raw.qos,
        retain=bool(raw.retain),
        content_type=properties.get("ContentType"),
        response_topic=properties.get("ResponseTopic"),
        correlation=properties.get("CorrelationData"),
        expiry_s=properties.get("MessageExpiryInterval"),
    )
