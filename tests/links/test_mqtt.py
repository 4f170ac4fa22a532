import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from gatewayd.core.device import Born, DeviceEvent, Lost, PushPhase, PushReport, Report, Slot, SlotState
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import DeviceRefused, DeviceTimeout, DeviceUnreachable
from gatewayd.core.names import DeviceId, Digest, ModelName, PushId
from gatewayd.core.push import Offer
from gatewayd.links.mqtt import MqttDeviceLink
from gatewayd.services.ports import DeviceLink
from gatewayd.wire import mqttdevice as protocol
from gatewayd.wire.manifest import sign_manifest
from gatewayd.wire.mqtt import Handler, LateHandler, Message
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage, ResultFrame, SampleFrame
from gatewayd.wire.topics import Topics
from tests.api_values import CAPABILITIES, DEVICE, PUSH
from tests.broker import Broker
from tests.mqtt_client import PATIENCE_S, Client, Inbox, Refusals, options, running
from tests.signing import KEY, KEYS, manifest_of

TOPICS = Topics("gatewayd", "edge-1")
CAM, OTHER = DeviceId("cam-7"), DeviceId("mic-1")
REPORT = Report(CAPABILITIES, (Slot(0, SlotState.EMPTY),), 0.5)
LONG_S = 30.0


@dataclass
class Ticking:
    """A clock that moves 10 ms each time it is read."""

    now_s: float = 100.0

    def __call__(self) -> float:
        self.now_s += 0.01
        return self.now_s


@dataclass
class Site:
    """A link, and a client that plays its devices."""

    link: MqttDeviceLink
    devices: Client
    downs: Inbox
    events: "asyncio.Queue[DeviceEvent]"
    refusals: Refusals
    answers: dict[str, Callable[[bytes], tuple[str, bytes]]] = field(default_factory=dict)

    def up(self, kind: str, payload: bytes, *, device: str = CAM, retain: bool = False, qos: int = 1) -> None:
        self.devices.publish(Message(f"{TOPICS.base}/device/{device}/up/{kind}", payload, qos=qos, retain=retain))

    async def event(self) -> DeviceEvent:
        return await asyncio.wait_for(self.events.get(), PATIENCE_S)

    def down(self, message: Message) -> None:
        """Play the device: note the message, answer it when told how."""
        self.downs(message)
        answer = self.answers.get(message.topic.rpartition("/")[2])
        if answer is not None:
            self.up(*answer(message.payload))


@asynccontextmanager
async def site(broker: Broker) -> AsyncIterator[Site]:
    gateway = Client(options(broker.port, name="gw"))
    devices = Client(options(broker.port, name="devices", version="3.1.1"))
    events: asyncio.Queue[DeviceEvent] = asyncio.Queue()
    refusals = Refusals()
    link = MqttDeviceLink(gateway, TOPICS, on_event=events.put_nowait, on_refused=refusals, clock=Ticking())
    here = Site(link, devices, Inbox(), events, refusals)
    devices.subscribe(TOPICS.device_down(CAM, "+"), here.down)
    async with running(gateway, devices):
        yield here


def result(request: int, **changes: object) -> bytes:
    frame = ResultFrame(request, FrameStatus.OK, compute_us=1500, energy_nj=2500, sample=9, content=b"out")
    return protocol.encode_result(replace(frame, **changes))  # type: ignore[arg-type]  # fields by name


def number_of(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "little")


async def run(link: DeviceLink, timeout_s: float = LONG_S) -> bytes:
    done = await link.run_model(CAM, slot=1, version=3, content=b"in", sensor=0, timeout_s=timeout_s)
    return done.output


async def test_a_run_is_measured_and_answered(broker: Broker) -> None:
    async with site(broker) as here:
        here.answers["run"] = lambda payload: ("result", result(number_of(payload)))
        done = await here.link.run_model(CAM, slot=1, version=3, content=b"in", sensor=0, timeout_s=LONG_S)
        asked = protocol.decode_down("run", (await here.downs.next()).payload, KEYS)
    assert (done.output, done.compute_s, done.energy_uj, done.sample) == (b"out", 0.0015, 2.5, 9)
    assert done.elapsed_s == pytest.approx(0.01)
    assert isinstance(asked, protocol.RunFrame)
    assert (asked.slot, asked.version, asked.content) == (1, 3, b"in")


async def test_a_run_on_a_sensor_sends_no_content(broker: Broker) -> None:
    async with site(broker) as here:
        here.answers["run"] = lambda payload: ("result", result(number_of(payload)))
        await here.link.run_model(CAM, slot=0, version=1, content=None, sensor=2, timeout_s=LONG_S)
        asked = protocol.decode_down("run", (await here.downs.next()).payload, KEYS)
    assert isinstance(asked, protocol.RunFrame)
    assert (asked.sensor, asked.content) == (2, None)


async def test_a_sample_and_a_ping(broker: Broker) -> None:
    def sample(payload: bytes) -> tuple[str, bytes]:
        frame = SampleFrame(number_of(payload), FrameStatus.OK, energy_nj=500, sample=4, content=b"raw")
        return "sample", protocol.encode_sample_result(frame)

    async with site(broker) as here:
        here.answers["sample"] = sample
        here.answers["ping"] = lambda payload: ("pong", payload)
        taken = await here.link.read_sensor(CAM, sensor=1, timeout_s=LONG_S)
        assert (taken.content, taken.sample, taken.energy_uj) == (b"raw", 4, 0.5)
        assert await here.link.ping(CAM, timeout_s=LONG_S) == pytest.approx(0.01)


def _dropped(payload: bytes, reason: str = "") -> tuple[str, bytes]:
    asked = protocol.decode_down("drop", payload, {})
    assert isinstance(asked, protocol.DropMessage)
    assert (asked.model, asked.version, asked.digest, asked.is_last) == (ModelName("kws"), 2, "a" * 64, True)
    return "drop", protocol.encode_drop_answer(protocol.DropFrame(asked.request, reason))


async def test_a_drop_is_answered_or_refused(broker: Broker) -> None:
    drop = Drop(CAM, 0, ModelName("kws"), 2, Digest("a" * 64), is_last=True, who="ann", why="", asked_at=0.0)
    async with site(broker) as here:
        here.answers["drop"] = _dropped
        await here.link.drop_model(drop, timeout_s=LONG_S)
        here.answers["drop"] = lambda payload: _dropped(payload, "a push needs it")
        with pytest.raises(DeviceRefused, match="cam-7 keeps kws@2: a push needs it"):
            await here.link.drop_model(drop, timeout_s=LONG_S)


@pytest.mark.parametrize("status", [FrameStatus.REFUSED, FrameStatus.FAILED])
async def test_a_device_s_no_carries_its_reason(broker: Broker, status: FrameStatus) -> None:
    async with site(broker) as here:
        here.answers["run"] = lambda payload: ("result", result(number_of(payload), status=status, reason="no slot 1"))
        with pytest.raises(DeviceRefused, match=f"cam-7 {status.name.lower()}: no slot 1"):
            await run(here.link)


async def test_silence_is_a_timeout_and_a_late_answer_is_ignored(broker: Broker) -> None:
    async with site(broker) as here:
        with pytest.raises(DeviceTimeout, match=r"'run' within 0\.05 s"):
            await run(here.link, timeout_s=0.05)
        number = number_of((await here.downs.next()).payload)
        here.up("result", result(number))
        here.up("status", protocol.encode_status(REPORT))
        assert isinstance(await here.event(), Born)
    assert here.refusals == []


async def test_an_answer_of_another_device_or_to_another_request_is_ignored(broker: Broker) -> None:
    async with site(broker) as here, asyncio.TaskGroup() as group:
        asked = group.create_task(run(here.link))
        number = number_of((await here.downs.next()).payload)
        here.up("result", result(number, content=b"forged"), device=OTHER)
        here.up("result", result(number + 1, content=b"stray"))
        here.up("result", result(number, content=b"true"))
        here.up("result", result(number, content=b"repeated"))
        assert await asked == b"true"


async def test_a_device_that_goes_away_fails_its_requests_at_once(broker: Broker) -> None:
    async with site(broker) as here, asyncio.TaskGroup() as group:
        asked = group.create_task(_error_of(run(here.link)))
        await here.downs.next()
        here.up("status", protocol.encode_offline(), device=OTHER)
        assert isinstance(await here.event(), Lost)
        assert not asked.done()
        here.up("status", protocol.encode_offline())
        assert isinstance(await asked, DeviceUnreachable)


async def test_losing_the_broker_fails_what_was_asked_at_once(broker: Broker) -> None:
    async with site(broker) as here, asyncio.TaskGroup() as group:
        asked = group.create_task(_error_of(run(here.link)))
        await here.downs.next()
        broker.restart()
        error = await asyncio.wait_for(asked, PATIENCE_S)
        assert isinstance(error, DeviceUnreachable)
        assert "broker" in str(error)


async def test_without_a_broker_a_device_is_unreachable_at_once(broker: Broker) -> None:
    gateway = Client(options(broker.port))
    link = MqttDeviceLink(gateway, TOPICS, on_event=lambda _: None, on_refused=Refusals(), clock=Ticking())
    with pytest.raises(DeviceUnreachable, match="broker"):
        await link.ping(CAM, timeout_s=LONG_S)


async def test_a_gateway_that_comes_later_learns_who_is_there(broker: Broker) -> None:
    device = Client(options(broker.port, name="device"))
    async with running(device):
        topic = f"{TOPICS.base}/device/cam-7/up/status"
        device.publish(Message(topic, protocol.encode_status(REPORT), qos=1, retain=True))
    async with site(broker) as here:
        assert await here.event() == Born(CAM, DEVICE.link, REPORT)
        here.up("status", b"", retain=True)
        event = await here.event()
    assert isinstance(event, Lost)
    assert event.device == CAM


async def test_what_is_forgotten_is_no_longer_at_the_broker(broker: Broker) -> None:
    async with site(broker) as here:
        here.up("status", protocol.encode_status(REPORT), retain=True)
        assert isinstance(await here.event(), Born)
        here.link.forget(CAM, wholly=True)
        assert isinstance(await here.event(), Lost)
    async with site(broker) as here:
        here.up("pong", bytes(4))
        here.up("push", protocol.encode_push_report(PushId(7), PushPhase.WANT, offset=1024, length=512))
        assert isinstance(await here.event(), PushReport)


async def test_reports_of_a_push_are_events(broker: Broker) -> None:
    async with site(broker) as here:
        here.up("push", protocol.encode_push_report(PushId(7), PushPhase.WANT, offset=1024, length=512))
        assert await here.event() == PushReport(CAM, PushId(7), PushPhase.WANT, 1024, 512)


@pytest.mark.parametrize(
    ("device", "kind", "payload", "words"),
    [
        ("cam 7", "status", protocol.encode_offline(), "device id"),
        ("cam-7", "status", b"{", "status"),
        ("cam-7", "push", b'{"push":7,"phase":"nonsense"}', "phase"),
        ("cam-7", "result", b"\x00", "result"),
        ("cam-7", "nonsense", b"", "nonsense"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_counted(
    broker: Broker, device: str, kind: str, payload: bytes, words: str
) -> None:
    async with site(broker) as here:
        here.up(kind, payload, device=device)
        here.up("status", protocol.encode_status(REPORT))
        assert isinstance(await here.event(), Born)
    [(where, code, message)] = here.refusals
    assert (where, code) == ("mqtt-device", "bad_request")
    assert words in message


async def test_only_the_status_may_lie_at_the_broker(broker: Broker) -> None:
    device = Client(options(broker.port, name="device"))
    report = protocol.encode_push_report(PushId(7), PushPhase.TESTED)
    async with running(device):
        device.publish(Message(f"{TOPICS.base}/device/cam-7/up/push", report, qos=1, retain=True))
    async with site(broker) as here:
        here.up("status", protocol.encode_status(REPORT))
        assert isinstance(await here.event(), Born)
    assert "retained" in here.refusals[0][2]


async def test_what_a_push_sends_arrives_in_order(broker: Broker) -> None:
    told = OfferMessage(PUSH.id, PUSH.model, 1, PUSH.digest, 4, 12000, 3, ("SOFTMAX",), None)
    manifest = manifest_of(told)
    offer = Offer(PUSH.id, manifest, sign_manifest(manifest, KEY))
    async with site(broker) as here:
        here.link.send_offer(CAM, offer)
        here.link.send_chunk(CAM, PUSH.id, offset=2, content=b"ab")
        here.link.send_activate(CAM, PUSH.id)
        here.link.send_accept(CAM, PUSH.id)
        here.link.send_cancel(CAM, PUSH.id, "enough")
        received = [await here.downs.next() for _ in range(5)]
    decoded = [protocol.decode_down(message.topic.rpartition("/")[2], message.payload, KEYS) for message in received]
    assert decoded == [
        told,
        protocol.ChunkFrame(PUSH.id, 2, b"ab"),
        protocol.Activate(PUSH.id),
        protocol.Accept(PUSH.id),
        protocol.Cancel(PUSH.id, "enough"),
    ]
    assert {message.qos for message in received} == {1}


async def _error_of(asked: Awaitable[bytes]) -> Exception | None:
    try:
        await asked
    except DeviceUnreachable as error:
        return error
    return None


@dataclass
class Ear:
    """A connection that only hears what a test says."""

    heard: list[Callable[[Message], None]] = field(default_factory=list)
    connected: bool = True

    def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1, retained: bool = True) -> None:
        assert topic_filter
        assert (qos, retained) == (1, True)
        self.heard.append(handler)

    def subscribe_late(self, topic_filter: str, handler: LateHandler) -> None:
        raise AssertionError((topic_filter, handler))

    def on_connected(self, callback: Callable[[], None]) -> None:
        raise AssertionError(callback)

    def on_lost(self, callback: Callable[[], None]) -> None:
        self.lost = callback

    def publish(self, message: Message) -> None:
        raise AssertionError(message)


def test_a_device_that_never_stops_talking_is_cut_short_and_others_are_heard() -> None:
    ear, refusals, events = Ear(), Refusals(), list[DeviceEvent]()
    MqttDeviceLink(ear, TOPICS, on_event=events.append, on_refused=refusals, clock=lambda: 100.0)
    report = protocol.encode_push_report(PushId(7), PushPhase.WRITTEN)
    for device, count in ((CAM, 5000), (OTHER, 10)):
        for _ in range(count):
            ear.heard[0](Message(TOPICS.device_up(device, "push"), report))
    assert sum(event.device == CAM for event in events) == 4000
    assert sum(event.device == OTHER for event in events) == 10
    assert len(refusals) == 1000
