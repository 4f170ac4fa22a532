"""The connection to the MQTT broker, for as long as the process lives: it satisfies `wire.mqtt.Connection`.

It opens one `Session` after another, subscribes anew each time, says that the node is there, and keeps the QoS 1 messages
that the broker has not acknowledged. A broker that is away, at the start or later, is not an error: it is tried again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.matcher import MQTTMatcher

from gatewayd.adapters.mqtt_acks import Acknowledge
from gatewayd.adapters.mqtt_outbox import Outbox
from gatewayd.adapters.mqtt_paho import MqttOptions, packet_bytes
from gatewayd.adapters.mqtt_session import BrokerRefused, Session
from gatewayd.core.errors import Overloaded, TooLarge
from gatewayd.core.record import record
from gatewayd.wire.mqtt import Handler, LateHandler, Message

__all__ = ["MqttConnection", "MqttOptions", "Timing"]

_LOG = logging.getLogger(__name__)

_WINDOW = 64  # QoS 1 messages on the wire; mosquitto allows 20 on MQTT 5 and says so
_MAX_MATCHED = 1024  # topics whose handlers are remembered; protects memory from who makes topics up
_MAX_UNSENT_BYTES = 32 * 2**20  # QoS 0 towards a broker that has stopped reading

_VERSIONS = {
    "auto": (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311),
    "5": (MQTTProtocolVersion.MQTTv5,),
    "3.1.1": (MQTTProtocolVersion.MQTTv311,),
}


@record
class Timing:
    """How patient a connection is, in seconds.

    The wait before a try doubles from `first_s` to `longest_s` and is shortened by up to half at random, so that a
    thousand gateways do not come back at once; it starts over after a connection that stood for `stable_s`.
    `connect_s` bounds one try, `close_s` the goodbye, `tick_s` is how often the keepalive is looked at.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    stable_s: float = 10.0
    connect_s: float = 10.0
    close_s: float = 2.0
    tick_s: float = 1.0


@record
class _Subscription:
    topic_filter: str
    qos: int
    retained: bool


class MqttConnection:
    """One broker, reconnecting by itself. `on_refused(where, code, message)` counts what is refused; must not raise.

    `jitter` returns a random number in 0..1. `is_whole` tells whether what else must stand before it says that it is online
    stands; who makes it stand calls `say_online`.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        on_refused: Callable[[str, str, str], None],
        timing: Timing | None = None,
        outbox: Outbox | None = None,
        jitter: Callable[[], float] = random.random,
        is_whole: Callable[[], bool] = lambda: True,
    ) -> None:
        self._options = options
        self._is_whole = is_whole
        self._on_refused = on_refused
        self._timing = timing or Timing()
        self._outbox = Outbox() if outbox is None else outbox
        self._jitter = jitter
        self._versions = _VERSIONS[options.version]
        self._session: Session | None = None
        self._subscriptions: list[_Subscription] = []
        self._handlers = MQTTMatcher()  # type: ignore[no-untyped-call]  # paho left it so
        self._matched: dict[str, tuple[Handler, ...]] = {}
        self._late_handlers = MQTTMatcher()  # type: ignore[no-untyped-call]  # as above
        self._callbacks: list[Callable[[], None]] = []
        self._lost_callbacks: list[Callable[[], None]] = []
        self._pending: dict[int, _Subscription] = {}
        self._is_announced = False
        self._emptied = asyncio.Event()
        self._complaint = ""

    @property
    def connected(self) -> bool:
        """Whether the broker is there now and our subscriptions stand."""
        return self._is_announced

    @property
    def protocol(self) -> str | None:
        """The MQTT version of the present session, `5` or `3.1.1`; None while there is none."""
        if self._session is None:
            return None
        return "5" if self._session.is_v5 else "3.1.1"

    def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1, retained: bool = True) -> None:
        """See `wire.mqtt.Connection`. One handler for one filter: the last one counts."""
        self._handlers[topic_filter] = handler
        self._matched.clear()
        self._add(_Subscription(topic_filter, qos, retained))

    def subscribe_late(self, topic_filter: str, handler: LateHandler) -> None:
        """See `wire.mqtt.Connection`. The connection's options must say that it acknowledges late."""
        self._late_handlers[topic_filter] = handler
        self._add(_Subscription(topic_filter, 1, retained=False))

    def _add(self, subscription: _Subscription) -> None:
        kept = [each for each in self._subscriptions if each.topic_filter != subscription.topic_filter]
        self._subscriptions = [*kept, subscription]
        if self._session is not None:
            self._ask_for(self._session, subscription)

    def publish(self, message: Message) -> None:
        """See `wire.mqtt.Connection`. Raises: Overloaded, TooLarge."""
        self._check_size(message)
        if message.qos:
            self._outbox.put(message)
            self._send()
        elif self._session is not None:
            if self._session.unsent_bytes > _MAX_UNSENT_BYTES:
                text = f"the MQTT broker does not read: {self._session.unsent_bytes} bytes wait for it"
                raise Overloaded(text)
            self._session.publish(message)

    def on_connected(self, callback: Callable[[], None]) -> None:
        """See `wire.mqtt.Connection`. `callback` must not raise."""
        self._callbacks.append(callback)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """See `wire.mqtt.Connection`. `callback` must not raise."""
        self._lost_callbacks.append(callback)

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye and return within the timing's `close_s`.

        Raises: HandlerFailed when a handler raises (a defect of the program, not of the broker).
        """
        attempt = 0
        try:
            while True:
                stood_s = await self._live_once()
                attempt = 0 if stood_s >= self._timing.stable_s else attempt + 1
                await asyncio.sleep(self._delay_s(attempt))
        finally:
            await self._leave()

    def received(self, message: Message) -> None:
        """Hand a message to whoever subscribed to it (called by the session)."""
        handlers = self._matched.get(message.topic)
        if handlers is None:
            handlers = self._match(message.topic)
        for handler in handlers:
            handler(message)

    def _match(self, topic: str) -> tuple[Handler, ...]:
        """Find who subscribed, and remember it: the same few topics come again and again."""
        found: Iterator[Handler] = self._handlers.iter_match(topic)  # type: ignore[no-untyped-call]  # paho's
        if len(self._matched) >= _MAX_MATCHED:
            self._matched.clear()
        self._matched[topic] = handlers = tuple(found)
        return handlers

    def received_late(self, message: Message, acknowledge: Acknowledge) -> None:
        """Hand a message to the one who acknowledges it; what nobody wants (any more) is acknowledged here."""
        handlers: Iterator[LateHandler] = self._late_handlers.iter_match(message.topic)  # type: ignore[no-untyped-call]  # paho's
        handler = next(handlers, None)
        if handler is None:
            acknowledge()
        else:
            handler(message, acknowledge)

    def acknowledged(self, mid: int, refusal: str) -> None:
        """Forget what the broker has; say what it refused (called by the session)."""
        message = self._outbox.acknowledge(mid)
        if message is not None and refusal:
            _LOG.warning(
                "mqtt publish refused by the broker", extra={"fields": {"topic": message.topic, "reason": refusal}}
            )
        self._send()
        if not len(self._outbox):
            self._emptied.set()

    def subscribed(self, mid: int, refusal: str) -> None:
        """Note that a subscription stands, or why not (called by the session)."""
        subscription = self._pending.pop(mid, None)
        if subscription is not None and refusal:
            _LOG.error(
                "mqtt subscription refused by the broker",
                extra={"fields": {"filter": subscription.topic_filter, "reason": refusal}},
            )
        self._announce()

    def refused(self, code: str, message: str) -> None:
        """Count what the session did not take (called by the session)."""
        self._on_refused("mqtt", code, message)

    async def _live_once(self) -> float:
        """Open a session and hold it until it ends; return how many seconds it stood."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            session = await self._open()
            began_s = loop.time()
            self._begin(session)
            await self._watch(session, until_s=began_s + self._timing.connect_s)
        except OSError as error:  # TimeoutError is one
            self._complain(error)
        self._forget()
        return loop.time() - began_s

    async def _open(self) -> Session:
        """Return an accepted session in the first version of MQTT the broker speaks."""
        for version in self._versions[:-1]:
            try:
                return await self._open_in(version)
            except BrokerRefused as error:
                if error.unsupported:
                    self._versions = self._versions[1:]
                elif error.answered:
                    raise
        return await self._open_in(self._versions[-1])

    async def _open_in(self, version: MQTTProtocolVersion) -> Session:
        session = Session(self._options, self, protocol=version)
        await session.open(self._timing.connect_s)
        # A broker that has spoken it once still does: one that hangs up on us is going down, not older than we thought.
        self._versions = tuple(each for each in self._versions if each >= version)
        return session

    def _begin(self, session: Session) -> None:
        self._session = session
        self._complaint = ""
        _LOG.info(
            "mqtt connected",
            extra={"fields": {"host": self._options.host, "port": self._options.port, "protocol": self.protocol}},
        )
        for subscription in self._subscriptions:
            self._ask_for(session, subscription)
        self._announce()

    async def _watch(self, session: Session, *, until_s: float) -> None:
        """Return never; raise what ended the session, or TimeoutError when the subscriptions do not stand by `until_s`."""
        while not session.closed.done():
            await asyncio.wait({session.closed}, timeout=self._timing.tick_s)
            session.keep_alive()
            if not self._is_announced and asyncio.get_running_loop().time() > until_s:
                session.abort()
                raise TimeoutError("the broker does not answer our subscriptions")
        session.closed.result()

    def _ask_for(self, session: Session, subscription: _Subscription) -> None:
        mid = session.subscribe(subscription.topic_filter, qos=subscription.qos, retained=subscription.retained)
        self._pending[mid] = subscription

    def _announce(self) -> None:
        if self._pending or self._is_announced or self._session is None:
            return
        self._is_announced = True
        self.say_online()
        self._send()
        for callback in self._callbacks:
            callback()

    def say_online(self) -> None:
        """Say that we are there, as soon as everything stands. Not by the outbox: each connection says it anew."""
        online = self._options.online
        if self._session is not None and self._is_announced and online is not None and self._is_whole():
            self._session.publish(online)

    def _send(self) -> None:
        if self._session is None or not self._is_announced:
            return
        window = min(_WINDOW, self._session.receive_maximum) - 1  # one is the online message's
        self._outbox.send(self._session.publish, window=max(1, window))

    def _check_size(self, message: Message) -> None:
        size, limit = len(message.payload), self._options.max_payload_bytes
        if size > limit:
            raise TooLarge(f"{message.topic!r}: {size} bytes, over our own limit of {limit}")
        if self._session is not None and packet_bytes(message) > self._session.max_packet_bytes:
            most = self._session.max_packet_bytes
            raise TooLarge(f"{message.topic!r}: {size} bytes, and the broker takes packets of at most {most}")

    def _forget(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.abort()
        stood, self._is_announced = self._is_announced, False
        self._pending.clear()
        for message in self._outbox.rewind():
            self._on_refused("mqtt", "undeliverable", f"{message.topic!r}: given up, the connection broke each time")
        for callback in self._lost_callbacks if stood else ():
            callback()

    async def _leave(self) -> None:
        """Publish the offline message, wait for what is queued, disconnect. What goes wrong leaves it to the last will."""
        session = self._session
        try:
            if session is not None and not session.closed.done():
                async with asyncio.timeout(self._timing.close_s):
                    await self._say_goodbye(session)
        except (TimeoutError, Overloaded, TooLarge):
            _LOG.warning("mqtt goodbye failed: the broker publishes our last will instead")
        finally:
            self._forget()

    async def _say_goodbye(self, session: Session) -> None:
        self._emptied.clear()
        session.closed.add_done_callback(lambda _: self._emptied.set())
        if self._options.will is not None:
            self.publish(replace(self._options.will, qos=1))
        if len(self._outbox):
            await self._emptied.wait()
        await session.close()

    def _complain(self, error: OSError) -> None:
        """Log a change of reason once, its repetitions only for debugging."""
        reason = str(error) or type(error).__name__
        level = logging.DEBUG if reason == self._complaint else logging.WARNING
        self._complaint = reason
        _LOG.log(
            level,
            "mqtt not connected",
            extra={"fields": {"host": self._options.host, "port": self._options.port, "reason": reason}},
        )

    def _delay_s(self, attempt: int) -> float:
        longest_s = min(self._timing.longest_s, self._timing.first_s * 2.0 ** min(attempt, 16))
        return longest_s * (1 - self._jitter() / 2)
