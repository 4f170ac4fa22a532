"""Where answers over MQTT go, and what is taken off a request before it is read: shared by inferences and commands."""

from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.core.errors import BadRequest, Forbidden, GatewayError, Overloaded, RateLimited, TooLarge
from gatewayd.edges.rates import Rates
from gatewayd.wire.json_text import parse_json, render_json
from gatewayd.wire.mqtt import Connection, Message
from gatewayd.wire.tensors import JSON, encode_error
from gatewayd.wire.topics import ClientTopic, Topics, check_topic

LONG_BYTES = 2**18  # reading this much JSON takes about 2 ms; beyond it the loop is not held up
_MAX_ID_CHARS = 128
_MAX_TOPIC_CHARS = 1024


@dataclass(slots=True)
class Exchange:
    """One request on its way: where its answer goes is refined while it is read."""

    topic: ClientTopic
    message: Message
    reply_topic: str
    arrived_s: float
    id: str | None = None
    is_admitted: bool = False


class Answers:
    """Sends answers, under the allowed prefixes only. `on_refused(where, code, message)` counts what was refused.

    `rates` limits how often each sender may ask; None: no limit.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        *,
        reply_prefixes: tuple[str, ...],
        on_refused: Callable[[str, str, str], None],
        rates: Rates | None = None,
    ) -> None:
        self._connection = connection
        self._rates = rates
        self._topics = topics
        self._reply_prefixes = (*reply_prefixes, f"{topics.base}/reply")
        self._on_refused = on_refused
        # The last topic that was found good: a client names the same one with each request.
        self._good_topic = ""

    def begin(self, topic: ClientTopic, message: Message, *, arrived_s: float) -> Exchange:
        """Return the exchange that `message` begins; its answer goes to the default topic until it says otherwise."""
        return Exchange(topic, message, self._topics.reply_default(topic), arrived_s)

    def check(self, exchange: Exchange, *, max_payload_bytes: int) -> None:
        """Find the reply topic of the message's properties, and refuse what needs no reading. Raises: any CallerError."""
        if exchange.message.response_topic is not None:
            self.reply_to(exchange, exchange.message.response_topic)
        size = len(exchange.message.payload)
        if size > max_payload_bytes:
            raise TooLarge(f"a payload of {size} bytes is over the limit of {max_payload_bytes} bytes")
        if self._rates is not None and not self._rates.take(sender := sender_of(exchange.reply_topic)):
            most = f"{self._rates.per_s:g} requests a second (mqtt.max_requests_per_s)"
            raise RateLimited(f"more than {most} with answers under {sender[:80]!r}: slow down")

    def reply_to(self, exchange: Exchange, topic: str) -> None:
        """Send the answer there. Raises: BadRequest, Forbidden."""
        if topic != self._good_topic:
            self._topics.check_reply(topic, allowed=self._reply_prefixes)
            self._good_topic = topic
        exchange.reply_topic = topic

    def take_envelope(self, exchange: Exchange, document: dict[str, object], *, keeps_id: bool) -> None:
        """Take `reply_to` and `id`, by which a 3.1.1 client asks for its answer, out of the document.

        Raises: BadRequest, Forbidden when the reply topic is not allowed.
        """
        exchange.id = read_short(document.get("id"), "id", most=_MAX_ID_CHARS)
        reply_to = read_short(document.pop("reply_to", None), "reply_to", most=_MAX_TOPIC_CHARS)
        if not keeps_id:
            document.pop("id", None)
        if reply_to is not None and exchange.message.response_topic is None:
            self.reply_to(exchange, reply_to)

    def refusal(self, exchange: Exchange, error: GatewayError) -> bytes:
        """Return the answer to a refused request, counting what never reached a service."""
        if not exchange.is_admitted and isinstance(error, BadRequest | TooLarge | Forbidden | Overloaded | RateLimited):
            self.refuse(error.code, f"{exchange.message.topic[:200]!r}: {error}")
        return encode_error(error, id=exchange.id)

    def send(self, exchange: Exchange, payload: bytes, *, content_type: str = JSON) -> None:
        """Publish an answer; one that cannot be sent is counted."""
        asked = exchange.message
        try:
            if exchange.reply_topic != self._good_topic:
                check_topic(exchange.reply_topic)
            self._connection.publish(
                Message(
                    exchange.reply_topic,
                    payload,
                    qos=min(asked.qos, 1),
                    # A property only for who showed that it reads them: a broker may choke on one towards MQTT 3.1.1.
                    content_type=content_type if asked.response_topic else None,
                    correlation=asked.correlation,
                )
            )
        except GatewayError as error:
            self.refuse(error.code, f"no answer to {asked.topic[:200]!r} was sent: {error}")

    def refuse(self, code: str, message: str) -> None:
        """Count something that was not taken."""
        self._on_refused("mqtt", code, message)


def sender_of(reply_topic: str) -> str:
    """Return what is known of who asks: the first two levels of where the answer goes (`reply/ann`), which a user owns."""
    first, _, rest = reply_topic.partition("/")
    return f"{first}/{rest.partition('/')[0]}"


def parsed_object(payload: bytes) -> dict[str, object] | None:
    """Return the JSON object, None when it is none: whoever reads the payload next says what is wrong with it."""
    try:
        document = parse_json(payload)
    except BadRequest:
        return None
    return document if isinstance(document, dict) else None


def read_short(value: object, name: str, *, most: int) -> str | None:
    """Return a text of at most `most` printable characters; a whole number is taken for one. Raises: BadRequest."""
    if value is None:
        return None
    # Longer numbers are refused: Python would not spell them out.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64:
        value = str(value)
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
        raise BadRequest(f"{name}: must be a text of 1 to {most} printable characters")
    return value


def compact(document: dict[str, object]) -> bytes:
    """Return the document as JSON."""
    return render_json(document)
