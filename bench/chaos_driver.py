"""The senders of `bench.chaos_mqtt`: they publish commands that move aliases, repeat them, and keep what they were answered.

One paho client straight at the broker; it knows gatewayd by docs/mqtt.md only.
"""

import json
import queue
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

REPLIES = "reply/chaos"
WINDOW = 200
REPEAT_S = 4.0

_NAME = re.compile(rb"(?:cmd|evil|kept)-[0-9]+")


@dataclass(slots=True)
class Sent:
    """A command on its way. `repeats` false: it is published once and never again."""

    name: str
    payload: bytes
    by_correlation: bool
    repeats: bool
    at: float
    answers: set[bytes] = field(default_factory=set)


class Driver:
    """Sends `total` commands, about `models`, at most `WINDOW` unanswered. `tick` is to be called every few milliseconds."""

    def __init__(self, port: int, base: str, *, total: int, models: int, seed: int, is_v5: bool) -> None:
        self.total, self.is_v5 = total, is_v5
        self.sent = 0
        self.waiting: dict[str, Sent] = {}
        self.finished: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.retained: set[str] = set()
        self._once: dict[str, Sent] = {}
        self._recent: list[Sent] = []
        self._base, self._models = base, models
        self._random = random.Random(seed)
        self._answers: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        version = paho.MQTTv5 if is_v5 else paho.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"driver-{seed}", protocol=version)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{REPLIES}/#", 1)
        self._client.on_message = self._answered
        self._client.connect("127.0.0.1", port, keepalive=10)
        self._client.loop_start()

    def close(self) -> None:
        """Go away."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_done(self) -> bool:
        """Whether every command that is repeated was answered."""
        return self.sent >= self.total and not self.waiting

    def tick(self) -> None:
        """Take answers, repeat what has none, send more."""
        while not self._answers.empty():
            self._take(*self._answers.get())
        now = time.monotonic()
        for each in [each for each in self.waiting.values() if now - each.at > REPEAT_S]:
            each.at = now
            self.counts["repeats_unanswered"] += 1
            self._publish(each)
        while self.sent < self.total and len(self.waiting) < WINDOW:
            self._send(now)

    def unanswered(self) -> set[str]:
        """Return the commands that were published once and got no answer (yet)."""
        return set(self._once)

    def plant(self) -> None:
        """Publish a command with the retain flag: on 5 it must not be obeyed, neither now nor after a reconnect."""
        name = f"kept-{len(self.retained)}"
        self.retained.add(name)
        self._client.publish(self._topic, self._payload(name, {"id": name}), qos=1, retain=True)

    @property
    def _topic(self) -> str:
        return f"{self._base}/cmd/models.alias"

    def _payload(self, why: str, more: dict[str, str]) -> bytes:
        model = f"m{self._random.randrange(self._models)}"
        version = self._random.randrange(1, 3)
        return json.dumps({"model": model, "alias": "canary", "version": version, "why": why, **more}).encode()

    def _send(self, now: float) -> None:
        name, dice = f"cmd-{self.sent}", self._random.random()
        self.sent += 1
        by_correlation = self.is_v5 and self._random.random() < 0.5
        more = {} if by_correlation else {"id": name, "reply_to": f"{REPLIES}/{name}"}
        each = Sent(name, self._payload(name, more), by_correlation, repeats=dice >= 0.1, at=now)
        (self.waiting if each.repeats else self._once)[name] = each
        self._publish(each)
        if 0.1 <= dice < 0.15:
            self.counts["sent_twice"] += 1
            self._publish(each)

    def _publish(self, each: Sent, payload: bytes | None = None) -> None:
        properties = None
        if each.by_correlation:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho left it so
            properties.ResponseTopic = f"{REPLIES}/{each.name}"
            properties.CorrelationData = each.name.encode()
        self.counts["published"] += 1
        self._client.publish(self._topic, payload or each.payload, qos=1, properties=properties)

    def _answered(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        self._answers.put((message.topic.encode(), bytes(message.payload)))

    def _take(self, topic: bytes, answer: bytes) -> None:
        found = _NAME.search(topic)
        name = found[0].decode() if found else ""
        is_conflict = b'"conflict"' in answer and b"another command" in answer
        if is_conflict:
            self.counts["conflicts"] += 1
            return
        is_error = b'"error"' in answer and b'"code"' in answer
        if is_error:
            self.counts[f"error_{json.loads(answer)['error']['code']}"] += 1
        each = self.waiting.pop(name, None) or self._once.pop(name, None)
        if each is None:
            self.counts["answers_again"] += 1
            if name in self.finished and self.finished[name] != answer and not is_error:
                self.counts["other_answers"] += 1
            return
        if is_error:
            if each.repeats:  # refused for a reason that passes: try again under the same name
                self.waiting[name] = each
            return
        self.finished[name] = answer
        self._tease(each)

    def _tease(self, each: Sent) -> None:
        """Repeat, late, something that was answered; or give its name to another command."""
        self._recent.append(each)
        if len(self._recent) < 50:
            return
        late = self._recent.pop(self._random.randrange(len(self._recent)))
        dice = self._random.random()
        if dice < 0.05:
            self.counts["repeats_answered"] += 1
            self._publish(late)
        elif dice < 0.06:
            self.counts["stolen_names"] += 1
            self._publish(late, late.payload.replace(b'"why": "cmd', b'"why": "evil'))
