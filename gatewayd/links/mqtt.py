"""Devices reached over MQTT: the gateway's end of docs/device-protocol-mqtt.md, over a connection it is handed.

Bytes become values in `wire.mqttdevice`; here answers find the request they belong to, and everything else that a device
says becomes a `DeviceEvent`. Which devices are known, let in or approved is not this file's business.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar, assert_never

from gatewayd.core.budget import Allowance, Budget, can_spend, spent
from gatewayd.core.device import Born, DeviceEvent, Lost, PushReport, RunResult, SampleResult
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import BadRequest, DeviceRefused, DeviceTimeout, DeviceUnreachable, Overloaded, RateLimited
from gatewayd.core.names import DeviceId, PushId, parse_device_id
from gatewayd.core.push import Offer
from gatewayd.core.record import record
from gatewayd.wire import mqttdevice as protocol
from gatewayd.wire.mqtt import Connection, Message
from gatewayd.wire.mqttdevice import DropFrame, DropMessage, FrameStatus, PongFrame, ResultFrame, SampleFrame, UpMessage
from gatewayd.wire.topics import DeviceUp, Topics

_MAX_PENDING = 4096  # four in flight for each device of a full gateway; a future and a dict entry each
_U32 = 2**32
# What one device may say: protects the loop from firmware gone wild. A push and answers at full speed stay far below.
_MAY_SAY = Allowance(per_s=2000.0, most=4000.0)
_MAX_SPEAKERS = 10_000  # protects memory: as many as a gateway may have devices; who was not heard longest is forgotten

Answer = ResultFrame | SampleFrame | PongFrame | DropFrame
F = TypeVar("F", ResultFrame, SampleFrame, PongFrame, DropFrame)


@record
class _Pending:
    device: DeviceId
    answer: "asyncio.Future[tuple[Answer, float]]"


class MqttDeviceLink:
    """Satisfies `services.ports.DeviceLink`. `on_event` and `on_refused(where, code, message)` must return at once.

    `clock` is monotonic, in seconds. All sends raise Overloaded when the connection's queue is full.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        *,
        on_event: Callable[[DeviceEvent], None],
        on_refused: Callable[[str, str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._on_event = on_event
        self._on_refused = on_refused
        self._clock = clock
        self._pending: dict[int, _Pending] = {}
        self._said: OrderedDict[DeviceId, Budget] = OrderedDict()
        # Milliseconds, so that an answer to what an earlier process asked finds nobody.
        self._last_number = int(clock() * 1000) % _U32
        connection.subscribe(topics.device_up_filter, self._receive)
        connection.on_lost(self._broker_lost)

    async def run_model(
        self,
        device: DeviceId,
        *,
        slot: int,
        version: int,
        content: bytes | None,
        sensor: int,
        timeout_s: float,
        below: bytes | None = None,
        is_trial: bool = False,  # noqa: ARG002 - the device has the queue
    ) -> RunResult:
        """See `services.ports.DeviceLink`."""
        if content is not None and len(content) > protocol.MAX_DATA_BYTES:
            raise DeviceRefused(f"{len(content)} bytes of input; the device protocol carries {protocol.MAX_DATA_BYTES}")

        def encode(number: int) -> bytes:
            return protocol.encode_run(number, slot=slot, version=version, sensor=sensor, content=content, below=below)

        frame, elapsed_s = await self._ask(device, "run", encode, expected=ResultFrame, timeout_s=timeout_s)
        _check_status(device, frame.status, frame.reason)
        has_sample = below is not None and frame.has_sample
        return RunResult(frame.content, frame.compute_s, frame.energy_uj, frame.sample, elapsed_s, has_sample)

    async def read_sensor(self, device: DeviceId, *, sensor: int, timeout_s: float) -> SampleResult:
        """See `services.ports.DeviceLink`."""

        def encode(number: int) -> bytes:
            return protocol.encode_sample(number, sensor)

        frame, elapsed_s = await self._ask(device, "sample", encode, expected=SampleFrame, timeout_s=timeout_s)
        _check_status(device, frame.status, frame.reason)
        return SampleResult(frame.content, frame.sample, frame.energy_uj, elapsed_s)

    async def drop_model(self, drop: Drop, *, timeout_s: float) -> None:
        """See `services.ports.DeviceLink`."""

        def encode(number: int) -> bytes:
            return protocol.encode_drop(DropMessage(number, drop.model, drop.version, drop.digest, drop.is_last))

        frame, _ = await self._ask(drop.device, "drop", encode, expected=DropFrame, timeout_s=timeout_s)
        if frame.reason:
            raise DeviceRefused(f"device {drop.device} keeps {drop.model}@{drop.version}: {frame.reason}")

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        """See `services.ports.DeviceLink`."""
        asked = self._ask(device, "ping", protocol.encode_ping, expected=PongFrame, timeout_s=timeout_s)
        _, elapsed_s = await asked
        return elapsed_s

    def send_offer(self, device: DeviceId, offer: Offer) -> None:
        """See `services.ports.DeviceLink`."""
        self._send(device, "offer", protocol.encode_offer(offer.push, offer.signed), qos=1)

    def send_chunk(self, device: DeviceId, push: PushId, *, offset: int, content: bytes) -> None:
        """See `services.ports.DeviceLink`."""
        self._send(device, "chunk", protocol.encode_chunk(push, offset, content), qos=1)

    def send_activate(self, device: DeviceId, push: PushId) -> None:
        """See `services.ports.DeviceLink`."""
        self._send(device, "activate", protocol.encode_activate(push), qos=1)

    def send_accept(self, device: DeviceId, push: PushId) -> None:
        """See `services.ports.DeviceLink`."""
        self._send(device, "accept", protocol.encode_accept(push), qos=1)

    def send_cancel(self, device: DeviceId, push: PushId, reason: str) -> None:
        """See `services.ports.DeviceLink`."""
        self._send(device, "cancel", protocol.encode_cancel(push, reason), qos=1)

    def forget(self, device: DeviceId, *, wholly: bool) -> None:  # noqa: ARG002 - such a device tells itself what it holds
        """Clear what the broker retains of a device, so that it does not come back to life with the next connection."""
        self._connection.publish(Message(self._topics.device_up(device, "status"), b"", qos=1, retain=True))

    def _send(self, device: DeviceId, kind: str, payload: bytes, *, qos: int) -> None:
        self._connection.publish(Message(self._topics.device_down(device, kind), payload, qos=qos))

    async def _ask(
        self, device: DeviceId, kind: str, encode: Callable[[int], bytes], *, expected: type[F], timeout_s: float
    ) -> tuple[F, float]:
        """Send a request; return the answer and the seconds between the two."""
        if not self._connection.connected:
            raise DeviceUnreachable(f"device {device}: the gateway has no connection to the MQTT broker")
        number = self._next_number()
        pending = _Pending(device, asyncio.get_running_loop().create_future())
        self._pending[number] = pending
        asked_s = self._clock()
        try:
            self._send(device, kind, encode(number), qos=0)
            async with asyncio.timeout(timeout_s):
                frame, answered_s = await pending.answer
        except TimeoutError as error:
            raise DeviceTimeout(f"device {device}: no answer to {kind!r} within {timeout_s:g} s") from error
        finally:
            del self._pending[number]
        if not isinstance(frame, expected):
            raise DeviceRefused(f"device {device}: answered {kind!r} with a {type(frame).__name__}")
        return frame, answered_s - asked_s

    def _next_number(self) -> int:
        if len(self._pending) >= _MAX_PENDING:
            raise Overloaded(f"{_MAX_PENDING} requests wait for devices; try again later")
        self._last_number = (self._last_number + 1) % _U32
        while self._last_number in self._pending:
            self._last_number = (self._last_number + 1) % _U32
        return self._last_number

    def _receive(self, message: Message) -> None:
        topic = self._topics.parse(message.topic)
        if not isinstance(topic, DeviceUp):
            return
        heard_s = self._clock()
        try:
            device = parse_device_id(topic.device_text)
            self._check_rate(device, heard_s)
            heard = _decoded(topic.kind, message, device)
        except (BadRequest, RateLimited) as error:
            self._on_refused("mqtt-device", error.code, f"{message.topic[:200]!r}: {error}")
            return
        self._handle(device, heard, heard_s)

    def _check_rate(self, device: DeviceId, now_s: float) -> None:
        """Raises: RateLimited when the device says more than anybody has to say: what is dropped it repeats."""
        before = self._said.pop(device, None)
        is_allowed = can_spend(before, 1.0, _MAY_SAY, now_s=now_s)
        self._said[device] = spent(before, float(is_allowed), _MAY_SAY, now_s=now_s)
        if len(self._said) > _MAX_SPEAKERS:
            self._said.popitem(last=False)
        if not is_allowed:
            raise RateLimited(f"more than {_MAY_SAY.per_s:g} messages a second from {device}")

    def _handle(self, device: DeviceId, heard: UpMessage, heard_s: float) -> None:
        match heard:
            case ResultFrame() | SampleFrame() | DropFrame():
                self._answer(device, heard.request, (heard, heard_s))
            case PongFrame():
                self._answer(device, heard.token, (heard, heard_s))
            case Lost():
                self._fail_pending(device)
                self._on_event(heard)
            case Born() | PushReport():
                self._on_event(heard)
            case _:
                assert_never(heard)

    def _answer(self, device: DeviceId, number: int, answer: tuple[Answer, float]) -> None:
        """Hand an answer to who asked; late answers, repeated ones and those of another device find nobody."""
        pending = self._pending.get(number)
        if pending is not None and pending.device == device and not pending.answer.done():
            pending.answer.set_result(answer)

    def _fail_pending(self, device: DeviceId) -> None:
        for pending in self._pending.values():
            if pending.device == device and not pending.answer.done():
                pending.answer.set_exception(DeviceUnreachable(f"device {device} went away while it was asked"))

    def _broker_lost(self) -> None:
        """Let nobody wait for an answer that cannot come: it was asked for by QoS 0 on a connection that is gone."""
        for pending in self._pending.values():
            if not pending.answer.done():
                text = f"device {pending.device}: the connection to the MQTT broker broke while it was asked"
                pending.answer.set_exception(DeviceUnreachable(text))


def _decoded(kind: str, message: Message, device: DeviceId) -> UpMessage:
    """Read what a device said. Only its status may lie at the broker: anything else would be of another time."""
    if kind == "status" and not message.payload:
        return Lost(device, "its status was removed from the broker")
    if message.retain and kind != "status":
        raise BadRequest("is retained; only up/status may be")
    return protocol.decode_up(kind, message.payload, device)


def _check_status(device: DeviceId, status: FrameStatus, reason: str) -> None:
    if status is not FrameStatus.OK:
        raise DeviceRefused(f"device {device} {status.name.lower()}: {reason or 'no reason given'}")
