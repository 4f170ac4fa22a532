"""The MQTT edge: `infer/<model>` and `cmd/<verb>` from clients, answers back to where they asked for them, events out.

It decodes, calls the verb table, encodes. Requests are served side by side, inferences and commands in lanes of their
own, so that a flood of the ones does not keep an operator out. At least once: what is redelivered is served again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from gatewayd.api.verb import AnyVerb, Caller
from gatewayd.core.errors import BadRequest, Forbidden, GatewayError, NodeError, Overloaded, TooLarge
from gatewayd.core.events import GatewayEvent, RequestFailed, RequestServed
from gatewayd.core.request import InferenceResult
from gatewayd.edges.lane import Lane
from gatewayd.edges.mqtt_announcements import event_message, offline_message, online_message
from gatewayd.wire.json_text import parse_json, render_json
from gatewayd.wire.mqtt import Connection, Message
from gatewayd.wire.tensors import JSON, InferenceBody, decode_body, encode_error, encode_result
from gatewayd.wire.topics import ClientTopic, CommandTopic, InferTopic, Topics, check_topic

__all__ = ["Limits", "MqttEdge", "offline_message", "online_message"]

_LOG = logging.getLogger(__name__)

_LONG_BYTES = 2**18  # reading this much JSON takes about 2 ms; beyond it the loop is not held up
_MAX_ID_CHARS = 128
_MAX_TOPIC_CHARS = 1024


class Api(Protocol):
    """What the edge needs of the verb table."""

    def verb(self, name: str) -> AnyVerb:
        """Return the verb. Raises: NotFound."""

    async def call(self, name: str, arguments: bytes, caller: Caller, /) -> BaseModel:
        """Run a verb on JSON arguments. Raises: any GatewayError."""

    async def infer(self, model: str, body: InferenceBody, /, *, arrived_s: float | None) -> InferenceResult:
        """Serve one inference whose time runs from `arrived_s`. Raises: any GatewayError."""


class Internal(NodeError):
    """A defect of the program; the traceback is in the log."""

    code = "internal"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the edge takes. Over `max_payload_bytes` is refused with an answer; `max_queued_bytes` holds for each lane.

    Requests over `in_flight` wait; when `waiting` of them do, the next is answered with `overloaded` at once.
    """

    max_payload_bytes: int = 12 * 2**20
    max_queued_bytes: int = 48 * 2**20
    in_flight: int = 64
    waiting: int = 256
    commands_in_flight: int = 8
    commands_waiting: int = 32


@dataclass(slots=True)
class _Exchange:
    """One request on its way: where its answer goes is refined while it is read."""

    topic: ClientTopic
    message: Message
    reply_topic: str
    arrived_s: float
    id: str | None = None
    is_admitted: bool = False


class MqttEdge:
    """Serves MQTT clients. `caller` is who they are taken for: the broker has checked them, and does not say who they are.

    `on_refused(where, code, message)` counts what was malformed, retained or over a limit. Replies go only to topics
    that begin with one of `reply_prefixes`. `clock` is the one that requests' deadlines are on: time in a lane's queue counts.
    """

    def __init__(
        self,
        api: Api,
        connection: Connection,
        topics: Topics,
        *,
        caller: Caller,
        reply_prefixes: tuple[str, ...],
        on_refused: Callable[[str, str, str], None],
        limits: Limits | None = None,
        request_events: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._api = api
        self._connection = connection
        self._topics = topics
        self._caller = caller
        self._reply_prefixes = (*reply_prefixes, f"{topics.base}/reply")
        self._on_refused = on_refused
        self._request_events = request_events
        self._limits = chosen = limits or Limits()
        most = chosen.max_queued_bytes
        self._infers = Lane[_Exchange](
            "mqtt-infer", self._serve, in_flight=chosen.in_flight, waiting=chosen.waiting, max_bytes=most
        )
        self._commands = Lane[_Exchange](
            "mqtt-command",
            self._serve,
            in_flight=chosen.commands_in_flight,
            waiting=chosen.commands_waiting,
            max_bytes=most,
        )
        self._is_draining = False
        connection.subscribe(topics.infer_filter, self._accept, retained=False)
        connection.subscribe(topics.command_filter, self._accept, retained=False)

    async def run(self) -> None:
        """Serve until cancelled; what comes before waits."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._infers.run(), name="mqtt-infers")
            group.create_task(self._commands.run(), name="mqtt-commands")

    async def drain(self) -> None:
        """Refuse what comes from now on and wait until all that was accepted is answered."""
        self._is_draining = True
        await self._infers.drain()
        await self._commands.drain()

    def publish_event(self, event: GatewayEvent) -> None:
        """Tell whoever listens; QoS 0, dropped when the broker is away or slow. Never raises."""
        if isinstance(event, RequestServed | RequestFailed) and not self._request_events:
            return
        message = event_message(self._topics, event)
        if message is None:
            return
        try:
            self._connection.publish(message)
        except (Overloaded, TooLarge) as error:
            _LOG.warning("mqtt event dropped topic=%s reason=%s", message.topic, error)

    def _accept(self, message: Message) -> None:
        """Take a message from the connection: into its lane, or refused."""
        topic = self._topics.parse(message.topic)
        if not isinstance(topic, InferTopic | CommandTopic):
            return
        if message.retain:
            self._refuse("retained", f"{message.topic[:200]!r}: retained messages are never obeyed")
            return
        exchange = _Exchange(topic, message, self._topics.reply_default(topic), self._clock())
        lane = self._infers if isinstance(topic, InferTopic) else self._commands
        try:
            self._check(exchange)
            lane.put(exchange, size=len(message.payload))
        except GatewayError as error:
            self._answer(exchange, self._refusal(exchange, error))

    def _check(self, exchange: _Exchange) -> None:
        """Find the reply topic and refuse what needs no reading."""
        if exchange.message.response_topic is not None:
            self._reply_to(exchange, exchange.message.response_topic)
        size, limit = len(exchange.message.payload), self._limits.max_payload_bytes
        if size > limit:
            raise TooLarge(f"a payload of {size} bytes is over the limit of {limit} bytes")
        if self._is_draining:
            raise Overloaded("the node is stopping; try again in a moment")

    def _reply_to(self, exchange: _Exchange, topic: str) -> None:
        self._topics.check_reply(topic, allowed=self._reply_prefixes)
        exchange.reply_topic = topic

    async def _serve(self, exchange: _Exchange) -> None:
        try:
            answer = await self._result(exchange)
        except GatewayError as error:
            answer = self._refusal(exchange, error)
        except Exception:  # noqa: BLE001 - an edge: the defect is told and logged, the daemon goes on
            _LOG.exception("mqtt request failed topic=%s", exchange.message.topic)
            internal = Internal("something unexpected happened; the log of gatewayd has the traceback")
            answer = encode_error(internal, id=exchange.id)
        self._answer(exchange, answer)

    async def _result(self, exchange: _Exchange) -> bytes:
        match exchange.topic:
            case InferTopic(model):
                return await self._infer(exchange, model)
            case CommandTopic(verb):
                return await self._call(exchange, verb)

    async def _infer(self, exchange: _Exchange, model: str) -> bytes:
        payload = await self._without_envelope(exchange, keeps_id=True)
        body = decode_body(payload, exchange.message.content_type)
        exchange.id = body.id
        exchange.is_admitted = True
        return encode_result(await self._api.infer(model, body, arrived_s=exchange.arrived_s))

    async def _call(self, exchange: _Exchange, verb: str) -> bytes:
        takes_id = "id" in self._api.verb(verb).arguments.model_fields
        payload = await self._without_envelope(exchange, keeps_id=takes_id)
        result = await self._api.call(verb, payload, self._caller)
        if exchange.id is None:
            return result.model_dump_json().encode()
        return _json({"id": exchange.id} | result.model_dump(mode="json"))

    async def _without_envelope(self, exchange: _Exchange, *, keeps_id: bool) -> bytes:
        """Take `reply_to` and `id`, by which a 3.1.1 client asks for its answer, out of a JSON payload.

        Raises: BadRequest, Forbidden when the reply topic is not allowed.
        """
        payload = exchange.message.payload
        if b'"reply_to"' not in payload and (keeps_id or b'"id"' not in payload):
            return payload
        if len(payload) > _LONG_BYTES:
            document = await asyncio.to_thread(_parsed, payload)
        else:
            document = _parsed(payload)
        if document is None:
            return payload
        exchange.id = _text(document.get("id"), "id", most=_MAX_ID_CHARS)
        reply_to = _text(document.pop("reply_to", None), "reply_to", most=_MAX_TOPIC_CHARS)
        if not keeps_id:
            document.pop("id", None)
        if reply_to is not None and exchange.message.response_topic is None:
            self._reply_to(exchange, reply_to)
        return _json(document)

    def _refusal(self, exchange: _Exchange, error: GatewayError) -> bytes:
        """Return the answer to a refused request, counting what never reached a service."""
        if not exchange.is_admitted and isinstance(error, BadRequest | TooLarge | Forbidden | Overloaded):
            self._refuse(error.code, f"{exchange.message.topic[:200]!r}: {error}")
        return encode_error(error, id=exchange.id)

    def _answer(self, exchange: _Exchange, payload: bytes) -> None:
        asked = exchange.message
        try:
            check_topic(exchange.reply_topic)
            self._connection.publish(
                Message(
                    exchange.reply_topic,
                    payload,
                    qos=min(asked.qos, 1),
                    # A property only for who showed that it reads them: a broker may choke on one towards MQTT 3.1.1.
                    content_type=JSON if asked.response_topic else None,
                    correlation=asked.correlation,
                )
            )
        except GatewayError as error:
            self._refuse(error.code, f"no answer to {asked.topic[:200]!r} was sent: {error}")

    def _refuse(self, code: str, message: str) -> None:
        self._on_refused("mqtt", code, message)


def _parsed(payload: bytes) -> dict[str, object] | None:
    """Return the JSON object, None when it is none: whoever reads the payload next says what is wrong with it."""
    try:
        document = parse_json(payload)
    except BadRequest:
        return None
    return document if isinstance(document, dict) else None


def _text(value: object, name: str, *, most: int) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
        raise BadRequest(f"{name}: must be a text of 1 to {most} printable characters")
    return value


def _json(document: dict[str, object]) -> bytes:
    return render_json(document)
