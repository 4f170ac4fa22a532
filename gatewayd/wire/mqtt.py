"""MQTT messages as values, and what edges and links ask of a connection. No socket here.

The connection itself is `adapters/mqtt_connection.py`; whoever needs it is handed one.
"""

from collections.abc import Callable
from typing import Protocol

from gatewayd.core.record import record


@record
class Message:
    """One publish. Content type to expiry are MQTT 5 properties, None on 3.1.1 or when absent; `expiry_s` in seconds.

    `retain` on a received message: the broker replayed it (or, on 5 with retain-as-published, its sender set the flag).
    `is_redelivered`: the broker has sent it before and saw no acknowledgement.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    is_redelivered: bool = False


Handler = Callable[[Message], None]
LateHandler = Callable[[Message, Callable[[], None]], None]
"""Takes a message, and what acknowledges it: to be called on the event loop once the message's effect is on the disk."""


class Connection(Protocol):
    """A connection that reconnects by itself and renews its subscriptions each time."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""

    def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1, retained: bool = True) -> None:
        """Hand every message that matches to `handler`, from now on and after each reconnect.

        `handler` is called on the event loop, must return at once and must not raise. With `retained` false, messages
        that lie at the broker are not asked for (on 5; 3.1.1 sends them, marked) and the flag is kept as the sender set
        it (on 5), so that whoever must not obey a retained message can tell.
        """

    def subscribe_late(self, topic_filter: str, handler: LateHandler) -> None:
        """As `subscribe` with QoS 1 and `retained` false, on a connection that acknowledges late (`MqttOptions.is_late`).

        What is not acknowledged when the connection ends comes again on the next one, as long as the broker keeps our
        session. `handler` must see to it that every message is acknowledged in the end.
        """

    def publish(self, message: Message) -> None:
        """Queue a message; QoS 1 survives a reconnect in a bounded queue, QoS 0 is dropped while the broker is away.

        Raises: Overloaded when the queue is full; TooLarge when the payload is over the connection's limit.
        """

    def on_connected(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each (re)connect, once the subscriptions stand."""

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a connection that stood is gone: what was asked with QoS 0 will not be answered."""
