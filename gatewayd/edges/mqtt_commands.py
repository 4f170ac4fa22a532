"""The MQTT edge's commands: `cmd/<verb>`, in order per subject, obeyed once, acknowledged when they are on the disk.

A command comes by a connection of its own, whose session the broker keeps: what was not acknowledged when we vanished
comes again, and what was carried out already is answered from its record. docs/mqtt.md tells senders what they may rely on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import BaseModel

from gatewayd.api.verb import AnyVerb, Caller
from gatewayd.core.command import CommandId, Effect, Obeyed, Receipt, Work, command_id
from gatewayd.core.errors import BadRequest, DeadlineExceeded, GatewayError, Internal, NodeError, Overloaded
from gatewayd.core.record import record
from gatewayd.edges.mqtt_answers import LONG_BYTES, Answers, Exchange, compact, parsed_object
from gatewayd.edges.subject_lane import SubjectLane
from gatewayd.wire.cbor import decode_cbor
from gatewayd.wire.mqtt import Connection, Message
from gatewayd.wire.tensors import CBOR, encode_error
from gatewayd.wire.topics import CommandTopic, Topics

_LOG = logging.getLogger(__name__)

_EPOCH_OF_THE_PROGRAM = 1_735_689_600.0  # 2025: a clock before it was never set


class CommandApi(Protocol):
    """What this edge needs of the verb table."""

    def verb(self, name: str) -> AnyVerb:
        """Return the verb. Raises: NotFound."""

    async def call(self, name: str, arguments: bytes | Mapping[str, object], caller: Caller, /) -> BaseModel:
        """Run a verb. Raises: any GatewayError."""


class Obedience(Protocol):
    """Who remembers commands (services/once.py)."""

    async def obey(self, command: CommandId, effect: Effect, work: Work, *, is_redelivered: bool = False) -> Obeyed:
        """Carry out what was not yet, and return the answer. Raises: any GatewayError."""


@record
class CommandLimits:
    """What is taken. Over `max_payload_bytes` is refused with an answer; `in_flight` run at once, `waiting` more wait.

    Past them the next is answered with `overloaded`, at once.
    """

    max_payload_bytes: int = 12 * 2**20
    max_queued_bytes: int = 48 * 2**20
    in_flight: int = 8
    waiting: int = 120


@dataclass(slots=True)
class _Command:
    """A command on its way. `name` tells it from others of its sender, None: it has none, and repetitions are new."""

    exchange: Exchange
    acknowledge: Callable[[], None]
    verb: str
    arguments: bytes | Mapping[str, object] = b""
    name: bytes | None = None
    expires_at: float | None = None

    @property
    def identity(self) -> tuple[str, str, bytes | None, bytes]:
        """What makes another command the same one."""
        return self.verb, self.exchange.reply_topic, self.name, self.exchange.message.payload


class MqttCommands:
    """Serves commands. `caller` is who they are taken for: the broker has checked them, and does not say who they are.

    `on_answered(verb, outcome)` counts: done, refused, repeated, or an error's code. `clock` is monotonic, `wall_clock` only
    judges `expires_at`.
    """

    def __init__(
        self,
        api: CommandApi,
        once: Obedience,
        connection: Connection,
        topics: Topics,
        *,
        caller: Caller,
        answers: Answers,
        on_answered: Callable[[str, str], None] = lambda _verb, _outcome: None,
        limits: CommandLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._once = once
        self._topics = topics
        self._caller = caller
        self._answers = answers
        self._on_answered = on_answered
        self._limits = chosen = limits or CommandLimits()
        self._clock = clock
        self._wall_clock = wall_clock
        self._intake: asyncio.Queue[_Command] = asyncio.Queue(chosen.in_flight + chosen.waiting)
        self._lane = SubjectLane[_Command](
            "mqtt-command",
            self._serve,
            in_flight=chosen.in_flight,
            waiting=chosen.waiting,
            max_bytes=chosen.max_queued_bytes,
        )
        self._is_draining = False
        # The named ones that wait or run: what the broker sends anew after a reconnect joins them.
        self._at_work: dict[tuple[str, str, bytes | None, bytes], _Command] = {}
        connection.subscribe_late(topics.command_filter, self._accept)

    async def run(self) -> None:
        """Serve until cancelled; what comes before waits."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_in(), name="mqtt-intake")
            group.create_task(self._lane.run(), name="mqtt-commands")

    async def drain(self) -> None:
        """Take nothing more, and wait until all that was accepted is answered.

        What comes from now on is not acknowledged, so that it comes again at the next start; of QoS 0 it is refused.
        """
        self._is_draining = True
        await self._intake.join()
        await self._lane.drain()

    def _accept(self, message: Message, acknowledge: Callable[[], None]) -> None:
        """Take a message from the connection."""
        topic = self._topics.parse(message.topic)
        if not isinstance(topic, CommandTopic):
            acknowledge()
            return
        if message.retain:
            self._answers.refuse("retained", f"{message.topic[:200]!r}: retained messages are never obeyed")
            acknowledge()
            return
        if self._is_draining and message.qos:
            return
        exchange = self._answers.begin(topic, message, arrived_s=self._clock())
        command = _Command(exchange, acknowledge, topic.verb)
        try:
            self._answers.check(exchange, max_payload_bytes=self._limits.max_payload_bytes)
            if self._is_draining:
                raise Overloaded("the node is stopping; try again in a moment")
            if self._intake.full():
                raise Overloaded(f"{self._intake.qsize()} commands wait already; try again later")
            self._intake.put_nowait(command)
        except GatewayError as error:
            self._end(command, self._answers.refusal(exchange, error), error.code)

    async def _take_in(self) -> None:
        """Read commands one by one, so that they keep their order, and put them into the lane."""
        while True:
            command = await self._intake.get()
            try:
                subjects = await self._read(command)
                if self._joins(command):
                    continue
                self._lane.put(command, size=len(command.exchange.message.payload), subjects=subjects)
                if command.name is not None:
                    self._at_work[command.identity] = command
            except GatewayError as error:
                self._end(command, self._answers.refusal(command.exchange, error), error.code)
            finally:
                self._intake.task_done()

    def _joins(self, command: _Command) -> bool:
        """Whether this is one that is at work, delivered anew: then it is acknowledged with that one, and answered once."""
        twin = self._at_work.get(command.identity)
        if twin is None or not command.exchange.message.is_redelivered:
            return False
        first, second = twin.acknowledge, command.acknowledge

        def acknowledge_both() -> None:
            first()
            second()

        twin.acknowledge = acknowledge_both
        return True

    async def _read(self, command: _Command) -> frozenset[str]:
        """Take the envelope off the payload; return what the command is about. Raises: any CallerError."""
        exchange = command.exchange
        verb, payload = self._api.verb(command.verb), exchange.message.payload
        is_cbor = exchange.message.content_type == CBOR
        read = _cbor_object if is_cbor else parsed_object
        document = await asyncio.to_thread(read, payload) if len(payload) > LONG_BYTES else read(payload)
        command.arguments, command.name = payload, exchange.message.correlation
        if document is None:
            return _subjects(verb, {})
        before = len(document)
        has_own_id = "id" in verb.arguments.model_fields  # names what the verb is about, not the command
        self._answers.take_envelope(exchange, document, keeps_id=has_own_id)
        command.expires_at = _moment(document.pop("expires_at", None))
        if is_cbor:
            command.arguments = document
        elif len(document) != before:
            command.arguments = compact(document)
        if exchange.id is not None and not has_own_id:
            command.name = exchange.id.encode()
        return _subjects(verb, document)

    async def _serve(self, command: _Command) -> None:
        exchange = command.exchange
        try:
            answer, outcome = await self._obey(command)
        except GatewayError as error:
            answer, outcome = self._answers.refusal(exchange, error), error.code
        except Exception:  # noqa: BLE001 - an edge: the defect is told and logged, the daemon goes on
            _LOG.exception("mqtt command failed", extra={"fields": {"topic": exchange.message.topic}})
            answer, outcome = encode_error(Internal(), id=exchange.id), Internal.code
        self._end(command, answer, outcome)

    async def _obey(self, command: _Command) -> tuple[bytes, str]:
        """Return the answer and what is counted."""
        exchange, verb = command.exchange, self._api.verb(command.verb)
        if command.name is None or verb.effect is Effect.NOTHING:
            return await self._call(command, None), "done"
        work = Work(
            run=lambda receipt: self._call(command, receipt),
            encode=lambda result: _encoded(result, exchange.id),
            refusal=lambda error: encode_error(error, id=exchange.id),
        )
        identity = command_id(
            reply_topic=exchange.reply_topic, name=command.name, verb=verb.name, payload=exchange.message.payload
        )
        obeyed = await self._once.obey(identity, verb.effect, work, is_redelivered=exchange.message.is_redelivered)
        outcome = "repeated" if obeyed.is_repeated else "refused" if obeyed.is_refused else "done"
        return obeyed.answer or _without_answer(exchange.id), outcome

    async def _call(self, command: _Command, receipt: Receipt | None) -> bytes:
        self._check_expiry(command)
        caller = self._caller if receipt is None else replace(self._caller, receipt=receipt)
        result = await self._api.call(command.verb, command.arguments, caller)
        return _encoded(result, command.exchange.id)

    def _check_expiry(self, command: _Command) -> None:
        """Refuse what nobody wants any more. Raises: DeadlineExceeded; NodeError when the clock cannot tell."""
        message, waited_s = command.exchange.message, self._clock() - command.exchange.arrived_s
        if message.expiry_s is not None and waited_s >= message.expiry_s:
            raise DeadlineExceeded(f"the message expired: it waited {waited_s:.1f} s of its {message.expiry_s} s")
        if command.expires_at is None:
            return
        now = self._wall_clock()
        if now < _EPOCH_OF_THE_PROGRAM:
            raise NodeError("expires_at: the node's clock was never set, so it cannot tell; send it without expires_at")
        if now >= command.expires_at:
            raise DeadlineExceeded(f"the command expired {now - command.expires_at:.1f} s ago by the node's clock")

    def _end(self, command: _Command, answer: bytes, outcome: str) -> None:
        """Acknowledge (what was done is on the disk), then answer."""
        if self._at_work.get(command.identity) is command:
            del self._at_work[command.identity]
        command.acknowledge()
        self._answers.send(command.exchange, answer)
        self._on_answered(command.verb, outcome)


def _cbor_object(payload: bytes) -> dict[str, object] | None:
    """Read arguments in CBOR, where files are bytes. Raises: BadRequest."""
    document = decode_cbor(payload)
    if not isinstance(document, dict):
        raise BadRequest("arguments: must be a map")
    return document


def _subjects(verb: AnyVerb, arguments: Mapping[str, object]) -> frozenset[str]:
    """Return what a command is about: commands about the same thing run in the order they came.

    An inference changes nothing and may take long: it holds up nobody. A verb that names nothing is about its own kind.
    """
    if verb.effect is Effect.NOTHING and not verb.is_read:
        return frozenset()
    found = {f"{kind}:{_stem(arguments[kind])}" for kind in ("model", "device", "push", "upload") if kind in arguments}
    uploads = arguments.get("uploads")
    if isinstance(uploads, list):
        found |= {f"upload:{each}" for each in uploads[:16] if isinstance(each, str)}
    if not found and not verb.is_read:
        found.add(f"kind:{verb.name.partition('.')[0]}")
    return frozenset(found)


def _stem(value: object) -> str:
    """Return the name without alias or version."""
    return value.partition("@")[0].partition(":")[0][:128] if isinstance(value, str) else repr(value)[:128]


def _moment(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**40:
        raise BadRequest("expires_at: must be a time in seconds since 1970 (UTC)")
    return float(value)


def _encoded(result: object, name: str | None) -> bytes:
    if not isinstance(result, BaseModel):
        raise TypeError(type(result))
    if name is None:
        return result.model_dump_json().encode()
    return compact({"id": name} | result.model_dump(mode="json"))


def _without_answer(name: str | None) -> bytes:
    said = "carried out before; its answer was too long to be kept"
    return compact({"id": name, "repeated": True, "message": said})
