"""The MQTT edge: `infer/<model>` from clients, answers back to where they asked for them, events out.

It decodes, calls the API, encodes. Inferences are served side by side, at least once: they change nothing, and what is
repeated is served again. Commands are `mqtt_commands`, on a connection of their own, so that neither waits for the other.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from gatewayd.core.errors import GatewayError, Internal, Overloaded, TooLarge
from gatewayd.core.events import GatewayEvent, RequestFailed, RequestServed
from gatewayd.core.record import record
from gatewayd.core.request import InferenceResult
from gatewayd.edges.lane import Lane
from gatewayd.edges.mqtt_announcements import event_message, offline_message, online_message
from gatewayd.edges.mqtt_answers import LONG_BYTES, Answers, Exchange, compact, parsed_object, sender_of
from gatewayd.wire.mqtt import Connection, Message
from gatewayd.wire.tensor_answers import encode_reply
from gatewayd.wire.tensor_repeats import Repeats
from gatewayd.wire.tensors import JSON, InferenceBody, encode_error
from gatewayd.wire.topics import InferTopic, Topics

__all__ = ["Limits", "MqttEdge", "offline_message", "online_message"]

_LOG = logging.getLogger(__name__)
_REQUESTS = (RequestServed, RequestFailed)


class Api(Protocol):
    """What the edge needs of the API."""

    async def infer(self, model: str, body: InferenceBody, /, *, arrived_s: float | None) -> InferenceResult:
        """Serve one inference whose time runs from `arrived_s`. Raises: any GatewayError."""


@record
class Limits:
    """What the edge takes. Over `max_payload_bytes` is refused with an answer; `max_queued_bytes` holds for all that waits.

    Requests over `in_flight` wait; when `waiting` of them do, the next is answered with `overloaded` at once.
    """

    max_payload_bytes: int = 12 * 2**20
    max_queued_bytes: int = 48 * 2**20
    in_flight: int = 64
    waiting: int = 256


class MqttEdge:
    """Serves inferences over MQTT and tells events.

    `clock` is the one that requests' deadlines are on: time in the lane's queue counts.
    """

    def __init__(
        self,
        api: Api,
        connection: Connection,
        topics: Topics,
        *,
        answers: Answers,
        limits: Limits | None = None,
        request_events: bool = False,
        clock: Callable[[], float] = time.monotonic,
        rouse: Callable[[], object] = bool,
    ) -> None:
        self._clock = clock
        self._rouse = rouse
        self._api = api
        self._connection = connection
        self._topics = topics
        self._answers = answers
        self._request_events = request_events
        self._limits = chosen = limits or Limits()
        self._infers = Lane[Exchange](
            "mqtt-infer",
            self._serve,
            in_flight=chosen.in_flight,
            waiting=chosen.waiting,
            max_bytes=chosen.max_queued_bytes,
            on_dropped=self._refuse,
        )
        self._is_draining = False
        self._repeats = Repeats()
        connection.subscribe(topics.infer_filter, self._accept, retained=False)

    async def run(self) -> None:
        """Serve until cancelled; what comes before waits."""
        await self._infers.run()

    async def drain(self) -> None:
        """Refuse what comes from now on and wait until all that was accepted is answered."""
        self._is_draining = True
        await self._infers.drain()

    def publish_event(self, event: GatewayEvent) -> None:
        """Tell whoever listens; QoS 0, dropped when the broker is away or slow. Never raises."""
        if not self._request_events and isinstance(event, _REQUESTS):
            return
        message = event_message(self._topics, event)
        if message is None:
            return
        try:
            self._connection.publish(message)
        except (Overloaded, TooLarge) as error:
            _LOG.warning("mqtt event dropped", extra={"fields": {"topic": message.topic, "reason": error}})

    def _accept(self, message: Message) -> None:
        """Take a message from the connection: into the lane, or refused."""
        topic = self._topics.parse(message.topic)
        if not isinstance(topic, InferTopic):
            return
        if message.retain:
            self._answers.refuse("retained", f"{message.topic[:200]!r}: retained messages are never obeyed")
            return
        self._rouse()
        exchange = self._answers.begin(topic, message, arrived_s=self._clock())
        try:
            self._answers.check(exchange, max_payload_bytes=self._limits.max_payload_bytes)
            if self._is_draining:
                raise Overloaded("the node is stopping; try again in a moment")
            self._infers.put(exchange, size=len(message.payload), sender=sender_of(exchange.reply_topic))
        except GatewayError as error:
            self._refuse(exchange, error)

    def _refuse(self, exchange: Exchange, error: GatewayError) -> None:
        self._answers.send(exchange, self._answers.refusal(exchange, error))

    async def _serve(self, exchange: Exchange) -> None:
        content_type = JSON
        try:
            answer, content_type = await self._infer(exchange)
        except GatewayError as error:
            answer = self._answers.refusal(exchange, error)
        except Exception:  # noqa: BLE001 - an edge: the defect is told and logged, the daemon goes on
            _LOG.exception("mqtt request failed", extra={"fields": {"topic": exchange.message.topic}})
            answer = encode_error(Internal(), id=exchange.id)
        self._answers.send(exchange, answer, content_type=content_type)

    async def _infer(self, exchange: Exchange) -> tuple[bytes, str]:
        if not isinstance(exchange.topic, InferTopic):
            raise TypeError(exchange.topic)
        payload = exchange.message.payload
        if b'"reply_to"' in payload:
            payload = await self._without_envelope(exchange)
        body = self._repeats.decode(payload, exchange.message.content_type)
        exchange.id = body.id
        exchange.is_admitted = True
        model = exchange.topic.model_ref_text
        return encode_reply(await self._api.infer(model, body, arrived_s=exchange.arrived_s), body)

    async def _without_envelope(self, exchange: Exchange) -> bytes:
        """Take `reply_to`, by which a 3.1.1 client asks for its answer, out of a JSON payload. Raises: BadRequest, Forbidden."""
        payload = exchange.message.payload
        document = (
            await asyncio.to_thread(parsed_object, payload) if len(payload) > LONG_BYTES else parsed_object(payload)
        )
        if document is None:
            return payload
        self._answers.take_envelope(exchange, document, keeps_id=True)
        return compact(document)
