"""A thousand light devices on one MQTT connection: they follow the device protocol, and freeze where they are told to."""

import random
import threading
from collections import Counter
from dataclasses import dataclass, replace

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from gatewayd.core.device import Capabilities, EnergySource, PushPhase, Report, Slot, SlotState
from gatewayd.core.names import DeviceId
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.mqttdevice import FrameStatus, OfferMessage, ResultFrame

CHUNK_BYTES = 512
_EMPTY = (Slot(0, SlotState.EMPTY), Slot(1, SlotState.EMPTY))
_CAPABILITIES = Capabilities(
    board="bench", cpu="cortex-m4", clock_mhz=120, ram_bytes=655_360, flash_bytes=2_097_152, runtime="tflm",
    runtime_version="0", runtime_abi=3, arena_bytes=131_072, slot_bytes=131_072, chunk_bytes=CHUNK_BYTES,
    energy_source=EnergySource.MAINS, operators=None, sensors=(),
)  # fmt: skip


@dataclass
class FakeDevice:
    """One device. It answers `patience` more messages of a push, then it is silent; `is_dead` is never heard again."""

    id: DeviceId
    patience: int
    is_dead: bool = False
    offer: OfferMessage | None = None
    phase: PushPhase = PushPhase.WANT
    offset: int = 0
    received: int = 0
    slots: tuple[Slot, ...] = _EMPTY

    def may_answer(self) -> bool:
        """Count one message."""
        self.patience -= 1
        return not self.is_dead and self.patience >= 0


class Fleet:
    """Plays all devices; `keys` are those that sign offers."""

    def __init__(self, base: str, count: int, keys: dict[bytes, bytes], *, seed: int, dead: int) -> None:
        chance = random.Random(seed)
        self.devices = {f"dev-{n}": FakeDevice(DeviceId(f"dev-{n}"), chance.randint(0, 18)) for n in range(count)}
        self._dead = set(chance.sample(sorted(self.devices), dead))
        self._base = base
        self._keys = keys
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="fleet")
        self._client.max_queued_messages_set(0)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{base}/device/+/down/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._message

    def connect(self, port: int) -> None:
        """Connect and let every device be born."""
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._subscribed.wait(10)
        for device in self.devices.values():
            self._birth(device)

    def close(self) -> None:
        """Leave without a word."""
        self._client.disconnect()
        self._client.loop_stop()

    def thaw(self) -> None:
        """Let every device answer for good, but those that are dead from now on."""
        with self._lock:
            for device in self.devices.values():
                device.patience = 1_000_000
                device.is_dead = device.id in self._dead

    def standing(self) -> Counter[str]:
        """Count the devices by where their push stands."""
        with self._lock:
            return Counter(each.phase.value if each.offer else "nothing heard" for each in self.devices.values())

    def bytes_received(self) -> int:
        """Return how many bytes of models came, all together."""
        return sum(device.received for device in self.devices.values())

    def dead(self) -> set[str]:
        """Return those that never answer again after `thaw`."""
        return self._dead

    def _message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        *_, name, _, kind = message.topic.split("/")
        with self._lock:
            device = self.devices[name]
            if kind == "ping":
                self._up(device, "pong", bytes(message.payload), qos=0)
            elif device.may_answer():
                self._take(device, wire.decode_down(kind, bytes(message.payload), self._keys))

    def _take(self, device: FakeDevice, message: wire.DownMessage) -> None:
        match message:
            case OfferMessage():
                self._offered(device, message)
            case wire.ChunkFrame() if device.offer is not None and message.offset == device.offset:
                device.offset += len(message.content)
                device.received += len(message.content)
                self._stand(device)
            case wire.Activate() if device.phase is PushPhase.TESTED:
                device.phase = PushPhase.TRIAL
                self._hold(device, SlotState.TRIAL)
                self._report(device)
            case wire.RunFrame() if device.offer is not None and device.offer.self_test is not None:
                frame = ResultFrame(message.request, FrameStatus.OK, 100, 0, 0, device.offer.self_test.expected)
                self._up(device, "result", wire.encode_result(frame), qos=0)
            case wire.Accept() if device.phase is PushPhase.TRIAL:
                device.phase = PushPhase.ACCEPTED
                self._hold(device, SlotState.ACTIVE)
                self._report(device)
            case _:
                pass

    def _offered(self, device: FakeDevice, offer: OfferMessage) -> None:
        known = device.offer
        if known is None or known.push != offer.push:
            device.offer, device.phase, device.offset = offer, PushPhase.WANT, 0
        self._stand(device)

    def _stand(self, device: FakeDevice) -> None:
        """Say where it stands; after the last byte it goes through the checks by itself, as far as its patience goes."""
        if device.offer is not None and device.phase is PushPhase.WANT and device.offset == device.offer.transfer_bytes:
            for phase in (PushPhase.WRITTEN, PushPhase.VERIFIED, PushPhase.TESTED):
                device.phase = phase
                self._report(device)
                if not device.may_answer():
                    return
            return
        if device.phase in {PushPhase.WRITTEN, PushPhase.VERIFIED}:
            device.phase = PushPhase.TESTED
        self._report(device)

    def _report(self, device: FakeDevice) -> None:
        if device.offer is None:
            return
        length = min(CHUNK_BYTES, device.offer.transfer_bytes - device.offset)
        payload = wire.encode_push_report(device.offer.push, device.phase, offset=device.offset, length=length)
        self._up(device, "push", payload)

    def _hold(self, device: FakeDevice, state: SlotState) -> None:
        if device.offer is not None:
            held = Slot(0, state, device.offer.model, device.offer.version, device.offer.digest)
            device.slots = (held, *device.slots[1:])
            self._birth(device)

    def _birth(self, device: FakeDevice) -> None:
        capabilities = replace(_CAPABILITIES)
        self._up(device, "status", wire.encode_status(Report(capabilities, device.slots)), retain=True)

    def _up(self, device: FakeDevice, kind: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._client.publish(f"{self._base}/device/{device.id}/up/{kind}", payload, qos=qos, retain=retain)
