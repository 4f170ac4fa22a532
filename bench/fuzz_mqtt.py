"""Bad payloads over MQTT: every one gets one error, and the daemon's memory stays where it is.

    python -m bench.fuzz_mqtt [--count N] [--seed N]

Inferences and commands with JSON bombs, deep nesting, text that is no UTF-8, wrong types, numbers of a thousand digits,
CBOR that announces 256 MB, raw tensors of a wrong length, names that are none. A real daemon, a real mosquitto.
"""

import argparse
import json
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cbor2
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.common import BUILD, Report, Server, free_port
from tests.broker import Broker

BASE = "gatewayd/fuzz"
REPLIES = "reply/fuzz"
JSON, CBOR, RAW = "application/json", "application/cbor", "application/octet-stream"
WINDOW = 16
ANNOUNCED = 256 * 2**20
_PATIENCE_S = 60.0
TENSOR: dict[str, object] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


@dataclass(frozen=True)
class Bad:
    """A message that must be refused."""

    topic: str
    payload: bytes
    content_type: str | None


def bad_message(chance: random.Random) -> Bad:
    """Return one of the kinds, made at random."""
    return chance.choice(KINDS)(chance)


def _infer(payload: bytes, content_type: str | None = JSON) -> Bad:
    return Bad("infer/nothing", payload, content_type)


def _bomb(chance: random.Random) -> Bad:
    deep = chance.choice([10, 1000, 100_000, 400_000])
    opened, shut = chance.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"inputs":[', b"]}")])
    payload = opened * (deep // len(opened)) + (b"1" + shut * (deep // len(opened)) if chance.random() < 0.5 else b"")
    if chance.random() < 0.5:
        return _infer(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + payload)
    return Bad("cmd/models.alias", b'{"model":' + payload, JSON)


def _numbers(chance: random.Random) -> Bad:
    text = chance.choice(["1" * 5000, "-" + "9" * 400, "1e999", "NaN", "Infinity", "1.5e-999999", "0x10", "01"])
    data = [text] * chance.choice([1, 4, 50])
    return _infer(
        json.dumps({"inputs": [{**TENSOR, "shape": [3], "data": "@"}]}).replace('"@"', f"[{','.join(data)}]").encode()
    )


def _types(chance: random.Random) -> Bad:
    wrong: object = chance.choice(
        [None, True, -1, 2.5, "x" * 300, [], {}, [[]], {"a": {}}, [None] * 50, ANNOUNCED, [ANNOUNCED] * 4]
    )
    key = chance.choice([*TENSOR, "inputs", "device", "outputs"])
    if key in TENSOR:
        return _infer(json.dumps({"inputs": [{**TENSOR, key: wrong}], "unknown": 1}).encode())
    return _infer(json.dumps({"inputs": [TENSOR], "unknown": 1, key: wrong}).encode())


def _not_utf_8(chance: random.Random) -> Bad:
    payload = bytearray(json.dumps({"inputs": [TENSOR], "id": "0123456789"}).encode())
    for _ in range(chance.randrange(1, 6)):
        payload[chance.randrange(1, len(payload) - 1)] = chance.randrange(0x80, 0x100)
    return _infer(bytes(payload)) if chance.random() < 0.5 else Bad("cmd/devices.approve", bytes(payload), JSON)


def _cut(chance: random.Random) -> Bad:
    whole = json.dumps({"inputs": [TENSOR] * 20}).encode()
    return _infer(whole[: chance.randrange(1, len(whole) - 1)])


def _noise(chance: random.Random) -> Bad:
    return _infer(chance.randbytes(chance.choice([1, 50, 5000])), chance.choice([JSON, CBOR]))


def _cbor(chance: random.Random) -> Bad:
    whole = cbor2.dumps({"inputs": [{**TENSOR, "data": b"1234"}], "id": "q"})
    announced = ANNOUNCED.to_bytes(4)
    lies = [b"\x5a", b"\x7a", b"\x9a", b"\xba"]
    payload = chance.choice(
        [
            whole[: chance.randrange(1, len(whole))],
            chance.choice(lies) + announced,
            b"\xa1\x66inputs" + chance.choice(lies) + announced + b"\x01" * 50,
            b"\x81" * 50_000,
            b"\xbf" + whole[1:] + b"\xff",
            b"\xc2\x5a" + (100_000).to_bytes(4) + b"\xff" * 100_000,
            b"\xc4\x82\x1b" + b"\x7f" * 8 + b"\x03",
            whole,
        ]
    )
    return _infer(payload, CBOR) if chance.random() < 0.7 else Bad("cmd/models.add", payload, CBOR)


def _raw(chance: random.Random) -> Bad:
    return _infer(chance.randbytes(chance.choice([1, 3, 4096, 900_000])), RAW)


def _too_large(chance: random.Random) -> Bad:
    return Bad(
        chance.choice(["infer/nothing", "cmd/models.add"]), b"{" + bytes(2**20 + 10), chance.choice([JSON, None])
    )


def _content_type(chance: random.Random) -> Bad:
    kind = chance.choice(["text/plain", "application/xml", "x" * 5000, "*/*", ";", "application/json5"])
    return _infer(json.dumps({"inputs": [TENSOR]}).encode(), kind)


def _names(chance: random.Random) -> Bad:
    name = chance.choice(
        ["Not A Model", "x" * 900, "kws@0", "kws@-1", "a:b:c", "..", "%00", "kws@99999999999", "é" * 50]
    )
    return Bad(f"{chance.choice(['infer', 'cmd'])}/{name}", json.dumps({"inputs": [TENSOR]}).encode(), JSON)


def _arguments(chance: random.Random) -> Bad:
    wrong: object = chance.choice([None, True, [], {}, "", "x" * 10_000, -1, 2**70, {"$ref": "#"}, [[[]]]])
    verb, key = chance.choice(
        [
            ("models.alias", "version"), ("models.alias", "model"), ("push", "device"), ("pushes.cancel", "push"),
            ("devices.approve", "device"), ("models.list", "model "), ("upload.begin", "size_bytes"), ("models.add", "files"),
        ]
    )  # fmt: skip
    return Bad(f"cmd/{verb}", json.dumps({key: wrong, "nonsense": wrong}).encode(), JSON)


def _envelope(chance: random.Random) -> Bad:
    key, wrong = chance.choice(
        [
            ("id", []), ("id", "\x07"), ("id", "x" * 5000), ("id", {"a": 1}), ("expires_at", "soon"), ("expires_at", -5),
            ("expires_at", 1.0), ("reply_to", "gatewayd/fuzz/cmd/status"), ("reply_to", "a/#"), ("reply_to", 7),
        ]
    )  # fmt: skip
    return Bad("cmd/models.back", json.dumps({"model": "kws", "alias": "stable", key: wrong}).encode(), JSON)


def _announced_elsewhere(chance: random.Random) -> Bad:
    tensor = {**TENSOR, "shape": chance.choice([[ANNOUNCED], [2**15, 2**13], [2**62, 2**62], [1] * 9])}
    if chance.random() < 0.5:
        tensor = {key: value for key, value in tensor.items() if key != "data"}
        tensor["parameters"] = {"binary_data_size": ANNOUNCED}
    return _infer(json.dumps({"inputs": [tensor]}).encode())


KINDS: tuple[Callable[[random.Random], Bad], ...] = (
    _bomb, _numbers, _types, _not_utf_8, _cut, _noise, _cbor, _raw, _too_large, _content_type, _names, _arguments, _envelope,
    _announced_elsewhere,
)  # fmt: skip


@dataclass
class Found:
    """What came back."""

    sent: int = 0
    without_error: int = 0
    unanswered: int = 0
    answered_twice: int = 0
    codes: Counter[str] | None = None


class Fuzzer:
    """Sends bad messages, a few at a time, and counts what comes back to each."""

    def __init__(self, port: int, *, seed: int) -> None:
        self._chance = random.Random(seed)
        self._answers: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="fuzzer", protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(100)
        self._is_online = threading.Event()
        self._client.on_message = lambda _client, _userdata, message: self._heard(message)
        subscribed = queue.SimpleQueue[int]()
        self._client.on_subscribe = lambda *_: subscribed.put(1)
        self._client.on_connect = lambda client, *_: client.subscribe([(f"{REPLIES}/+", 1), (f"{BASE}/status", 1)])
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        subscribed.get(timeout=_PATIENCE_S)
        # HTTP may be ready before the broker has the daemon's subscriptions; the status tells that they stand.
        if not self._is_online.wait(_PATIENCE_S):
            raise TimeoutError("the daemon did not say over MQTT that it is online")
        self.found = Found(codes=Counter())
        self._answered: Counter[int] = Counter()
        self._number = 0

    def _heard(self, message: paho.MQTTMessage) -> None:
        if message.topic.startswith(f"{REPLIES}/"):
            self._answers.put((int(message.topic.rpartition("/")[2]), bytes(message.payload)))
        elif json.loads(message.payload)["state"] == "online":
            self._is_online.set()

    def close(self) -> None:
        """Go away."""
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, count: int) -> None:
        """Send so many, and wait for their answers."""
        waiting: dict[int, Bad] = {}
        for _ in range(count):
            bad = bad_message(self._chance)
            self._number += 1
            waiting[self._number] = bad
            self._publish(self._number, bad)
            while len(waiting) >= WINDOW:
                self._take(waiting)
        while waiting:
            self._take(waiting)
        self.found.sent += count

    def settle(self) -> None:
        """Count what is answered more than once."""
        time.sleep(0.5)
        while not self._answers.empty():
            self._answered[self._answers.get()[0]] += 1
        self.found.answered_twice = sum(count > 1 for count in self._answered.values())

    def _publish(self, number: int, bad: Bad) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho left it so
        properties.ResponseTopic = f"{REPLIES}/{number}"
        properties.CorrelationData = str(number).encode()
        if bad.content_type is not None:
            properties.ContentType = bad.content_type
        self._client.publish(f"{BASE}/{bad.topic}", bad.payload, qos=1, properties=properties)

    def _take(self, waiting: dict[int, Bad]) -> None:
        try:
            number, answer = self._answers.get(timeout=_PATIENCE_S)
        except queue.Empty:
            self.found.unanswered += len(waiting)
            print("unanswered:", [(bad.topic, bad.payload[:80]) for bad in waiting.values()][:5])
            waiting.clear()
            return
        self._answered[number] += 1
        bad = waiting.pop(number, None)
        if bad is None:
            return
        document = json.loads(answer)
        if "error" in document:
            assert self.found.codes is not None
            self.found.codes[document["error"]["code"]] += 1
        else:
            self.found.without_error += 1
            print("no error:", bad.topic, bad.payload[:200], answer[:200])


def fuzz(folder: Path, *, count: int, seed: int) -> tuple[Found, int, int]:
    """Return what was found, and the daemon's memory (PSS, bytes) before and after."""
    broker = Broker(folder)
    broker.start()
    port, config = free_port(), folder / "gatewayd.yaml"
    config.write_text(
        f"node: {{name: fuzz, data_dir: {folder / 'data'}}}\nmqtt: {{port: {broker.port}}}\n"
        f"http: {{port: {port}}}\ncoap: {{enabled: false}}\nlwm2m: {{enabled: false}}\nlog: {{level: error}}\n"
    )
    command: list[str | Path] = [sys.executable, "-m", "gatewayd", "run", "--config", config]
    try:
        with Server("fuzz-mqtt", command, port=port, ready_path="/readyz") as daemon:
            fuzzer = Fuzzer(broker.port, seed=seed)
            try:
                fuzzer.send(count // 4)  # buffers and caches grow to their size
                before = daemon.pss_bytes()
                fuzzer.send(count - count // 4)
                fuzzer.settle()
                return fuzzer.found, before, daemon.pss_bytes()
            finally:
                fuzzer.close()
    finally:
        broker.stop()


def main() -> int:
    """Run; return 0 when it ran, whatever it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    arguments = parser.parse_args()
    print(f"{arguments.count} bad payloads, seed {arguments.seed}")
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gatewayd-fuzz-") as name:
        found, before, after = fuzz(Path(name), count=arguments.count, seed=arguments.seed)
    report = Report("fuzz_mqtt")
    report.add("bad_payloads", found.sent, (">=", 10_000))
    report.add("without_error", found.without_error, ("<=", 0))
    report.add("unanswered", found.unanswered, ("<=", 0))
    report.add("answered_twice", found.answered_twice, ("<=", 0))
    report.add("memory_before_mib", before / 2**20)
    report.add("memory_grown_mib", (after - before) / 2**20, ("<=", 8))
    for code, count in sorted((found.codes or {}).items()):
        report.add(f"code_{code}", count)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
