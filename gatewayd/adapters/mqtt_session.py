"""One connection to an MQTT broker, from TCP to the end: paho's external loop driven by asyncio's reader and writer callbacks.

`mqtt_connection` opens one after another. A session never reconnects and keeps no queue: each has a paho client of its
own, so nothing of a broken connection reaches the next. (paho's own threads and aiomqtt cost three times as much.)
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gatewayd.adapters.mqtt_acks import AckLine, Acknowledge
from gatewayd.adapters.mqtt_paho import (
    LATE_WINDOW,
    MAX_PACKET_BYTES,
    MqttOptions,
    connect,
    new_client,
)
from gatewayd.wire.mqtt import Message

P = ParamSpec("P")

_TLS_READS = 64  # packets decrypted in one go before other callbacks get their turn
_FAILURE = 0x80  # Source: MQTT 5.0 §3.4.2.1: reason codes from here on are errors
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


class Owner(Protocol):
    """Who is told what happens on a session, on the event loop. What it raises ends the session as HandlerFailed."""

    def received(self, message: Message) -> None:
        """Take a message."""

    def received_late(self, message: Message, acknowledge: Acknowledge) -> None:
        """Take a message and what acknowledges it."""

    def acknowledged(self, mid: int, refusal: str) -> None:
        """Note that the broker has (or, with a reason, refused) the QoS 1 message `mid`."""

    def subscribed(self, mid: int, refusal: str) -> None:
        """Note the answer to a subscription."""

    def refused(self, code: str, message: str) -> None:
        """Count something the broker sent that was not taken."""


class Session:
    """One connection. `closed` is done when it has ended; its exception says why (none: we closed it).

    `receive_maximum` and `max_packet_bytes` are what the broker allows us (QoS 1 messages on the wire, bytes in one packet).
    `unsent_bytes` are payloads written since the socket last took everything.
    """

    def __init__(self, options: MqttOptions, owner: Owner, *, protocol: MQTTProtocolVersion) -> None:
        self.protocol = protocol
        self.is_v5 = protocol is MQTTProtocolVersion.MQTTv5
        self.receive_maximum = 65535
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.unsent_bytes = 0
        self._options = options
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._descriptor: int | None = None
        self._is_writing = False
        self._is_paused = False
        self._is_reading = False
        self._client = new_client(options, protocol)
        self._acks = AckLine(self._acknowledge)

    async def open(self, timeout_s: float) -> None:
        """Connect and wait for the broker's yes.

        Raises: BrokerRefused, OSError, TimeoutError. The session is closed then.
        """
        try:
            async with asyncio.timeout(timeout_s):
                # DNS, TCP and TLS block in paho.
                await self._loop.run_in_executor(None, partial(connect, self._client, self._options))
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
        self.unsent_bytes += len(message.payload)
        return self._client.send(message)

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
        self._acks.close()
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
        if sock is None or sock.fileno() < 0:
            raise BrokerRefused("the broker closed the connection at once")
        self._descriptor = sock.fileno()
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_received = self._on_received
        client.on_acknowledged = self._on_acknowledged
        client.on_subscribe = self._on_subscribe
        client.on_socket_register_write = self._on_wants_write
        client.on_socket_close = self._on_socket_close
        client.on_refused_packet = self._refuse_packet
        self._loop.add_reader(self._descriptor, self._read)
        self._write()

    def _detach(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
        self._descriptor = None
        self._is_writing = False

    def _read(self) -> None:
        for _ in range(_TLS_READS):
            self._is_reading = True
            try:
                self._client.loop_read()
            finally:
                self._is_reading = False
            if self._is_paused or not self._decrypted_bytes():
                return
        # What OpenSSL has already decrypted does not make the socket readable again.
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._descriptor is not None and not self._is_paused:
            self._read()

    def _pause(self) -> None:
        """Read no further: who sends faster than commands are carried out is held up by TCP, not refused."""
        if self._descriptor is not None and not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(self._descriptor)

    def _resume(self) -> None:
        if self._descriptor is not None and self._is_paused:
            self._is_paused = False
            self._loop.add_reader(self._descriptor, self._read)
            self._loop.call_soon(self._read_on)

    def _decrypted_bytes(self) -> int:
        sock = self._client.socket()
        # Both TLS and paho's WebSocket over TLS tell what they hold back; a plain socket has no such method.
        pending: Callable[[], int] | None = getattr(sock, "pending", None)
        return pending() if pending is not None and self._descriptor is not None else 0

    def _refuse_packet(self, size: int) -> None:
        limit = self._client.max_packet_bytes
        self._owner.refused("too_large", f"a packet of {size} bytes, over {limit}: connection dropped")

    def _write(self) -> None:
        if self._descriptor is None:
            return
        self._client.loop_write()
        wants = self._client.want_write() and self._descriptor is not None
        if wants and not self._is_writing and self._descriptor is not None:
            self._loop.add_writer(self._descriptor, self._write)
        elif not wants and self._is_writing and self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)
        self._is_writing = wants
        if not wants:
            self.unsent_bytes = 0

    def _on_wants_write(self, _client: Client, _userdata: object, _sock: object) -> None:
        # At once, unless paho is in the middle of reading: a turn of the loop is a tenth of a small request's time.
        if self._is_reading or self._is_writing:
            self._loop.call_soon(self._write)
        else:
            self._write()

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
            self.max_packet_bytes = granted["MaximumPacketSize"]
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _on_disconnect(
        self, _client: Client, _userdata: object, flags: DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        self._detach()
        ours = not flags.is_disconnect_packet_from_server and not reason.is_failure
        self._end(None if ours else BrokerRefused(f"the connection ended: {reason}"))

    def _on_received(self, message: Message | None, mid: int) -> None:
        """Take a message; None: one whose texts are not UTF-8."""
        if not self._options.is_late:
            if message is not None and self._is_taken(message):
                self._tell(self._owner.received, message)
            elif message is None:
                self._owner.refused("bad_request", "a message whose topic is not UTF-8")
            return
        acknowledge = self._acks.take(mid) if mid else _nothing
        if len(self._acks) >= LATE_WINDOW:
            self._pause()  # mosquitto 2.0 sends more than the window it was told
        if acknowledge is None:
            return
        if message is not None and self._is_taken(message):
            self._tell(self._owner.received_late, message, acknowledge)
            return
        if message is None:
            self._owner.refused("bad_request", "a message whose topic is not UTF-8")
        acknowledge()  # refused for good: it would come again for ever

    def _is_taken(self, message: Message) -> bool:
        size, limit = len(message.payload), self._options.max_payload_bytes
        if size <= limit:
            return True
        self._owner.refused("too_large", f"{message.topic[:80]!r}: {size} bytes, at most {limit} are taken")
        return False

    def _acknowledge(self, mid: int) -> None:
        if self._descriptor is None:
            return
        self._client.ack(mid, 1)
        if len(self._acks) < LATE_WINDOW:
            self._resume()

    def _on_acknowledged(self, mid: int, reason: int) -> None:
        self._tell(self._owner.acknowledged, mid, f"reason code {reason:#x}" if reason >= _FAILURE else "")

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


def _nothing() -> None:
    """Acknowledge a message of QoS 0, of which nobody waits to hear."""
