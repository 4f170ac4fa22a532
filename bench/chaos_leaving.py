"""Devices are taken out while the daemon is killed: each once, whole, and with the answer that is true.

    python -m bench.chaos_leaving [--rounds N] [--seed N] [--forget]

`devices.revoke` and `devices.forget` change files and rows. A real daemon gets one over MQTT, is killed (SIGKILL) within
milliseconds of it and started again; the broker delivers the command anew. Its answer has to say what was taken, also when most
of it was taken before the kill; and nothing of the device may be left that should be gone. `--forget` switches the daemon's
memory of commands off: the proof then has to fail.
"""

import argparse
import json
import queue
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.chaos_mqtt import Daemon
from bench.common import Connection, Report, free_port
from gatewayd.core.device import Report as DeviceReport
from gatewayd.core.device import Slot, SlotState
from gatewayd.wire.mqttdevice import encode_status
from tests.api_values import CAPABILITIES
from tests.broker import Broker

BASE = "gatewayd/leaving"
LONGEST_S = 0.02
"""A kill comes at most so long after the command: about the time that one takes."""
_PATIENCE_S = 30.0
_ANSWERS_S = 2.0  # without an answer for so long the sender gives its command again, under its name


class Operator:
    """Who gives the commands; `answers` come from the broker."""

    def __init__(self, port: int) -> None:
        self.answers: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe([("reply/#", 1), (f"{BASE}/event/device", 1)])
        self._client.on_message = lambda _client, _data, message: self.answers.put(
            (message.topic, bytes(message.payload))
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        """Go away."""
        self._client.disconnect()
        self._client.loop_stop()

    def birth(self, device: str) -> None:
        """Have a device come; the gateway has heard of it when this returns."""
        status = encode_status(DeviceReport(CAPABILITIES, (Slot(0, SlotState.EMPTY),), 0.5))
        self._client.publish(f"{BASE}/device/{device}/up/status", status, 1, retain=True)
        while True:
            told = self.answers.get(timeout=_PATIENCE_S)[1]
            if f'"{device}"'.encode() in told and b'"online":true' in told:
                return

    def give(self, verb: str, device: str) -> None:
        """Publish a command once; it is at the broker when this returns."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho left it so
        properties.ResponseTopic = f"reply/{device}"
        properties.CorrelationData = b"1"
        force = {"force": True} if verb == "devices.forget" else {}
        payload = json.dumps({"device": device} | force).encode()
        self._client.publish(f"{BASE}/cmd/{verb}", payload, 1, properties=properties).wait_for_publish(_PATIENCE_S)

    def answer(self, device: str) -> dict[str, Any] | None:
        """Wait for what the command was answered; None: an answer can get lost where the acknowledgement did not."""
        until_s = time.monotonic() + _ANSWERS_S
        while (left_s := until_s - time.monotonic()) > 0:
            with suppress(queue.Empty):
                topic, payload = self.answers.get(timeout=left_s)
                if topic == f"reply/{device}":
                    answer: dict[str, Any] = json.loads(payload)
                    return answer
        return None

    def asked_until_answered(self, verb: str, device: str, counted: Counter[str]) -> dict[str, Any]:
        """Wait for the answer to what was given, which is given again until there is one."""
        while (answer := self.answer(device)) is None:
            counted["sent_again"] += 1
            self.give(verb, device)
        return answer


def ready(port: int) -> None:
    """Wait until the daemon serves."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with Connection(port) as connection:
                if connection.ask(b"GET", "/readyz")[0] == 200:
                    return
        except ConnectionError:
            pass
        assert time.monotonic() < until_s, "the daemon did not come up"
        time.sleep(0.02)


def call(port: int, verb: str, arguments: dict[str, object]) -> None:
    """Call a verb over HTTP."""
    with Connection(port) as connection:
        status, answer = connection.ask(b"POST", f"/api/{verb.replace('.', '/')}", json.dumps(arguments).encode())
        assert status == 200, answer


def left_over(data: Path, device: str, verb: str) -> str:
    """Return what of the device is left that the verb takes; "": nothing."""
    credentials = json.loads((data / "credentials" / "credentials.json").read_text())
    for kind, name in (("users", "name"), ("keys", "device"), ("oscore", "device")):
        if any(each[name] == device for each in credentials.get(kind, [])):
            return f"one of its {kind}"
    with sqlite3.connect(data / "gatewayd.sqlite") as store:
        row = store.execute("SELECT approved, revoked FROM devices WHERE device = ?", (device,)).fetchone()
    return "" if row in ({None} if verb == "devices.forget" else {None, (0, 1)}) else f"a row: {row}"


def rage(folder: Path, *, rounds: int, seed: int, forget: bool) -> Counter[str]:
    """Take `rounds` devices out, each with a kill; return what was counted."""
    chance, counted, port = random.Random(seed), Counter[str](), free_port()
    config, data = folder / "gatewayd.yaml", folder / "data"
    broker = Broker(folder)
    broker.start()
    config.write_text(
        f"node: {{name: leaving, data_dir: {data}}}\nmqtt: {{port: {broker.port}}}\nhttp: {{port: {port}}}\n"
        "coap: {enabled: false}\nlwm2m: {enabled: false}\nlog: {level: error}\n"
    )
    daemon, operator = Daemon(config, folder / "daemon.log", forget=forget), Operator(broker.port)
    daemon.start()
    try:
        ready(port)
        for number in range(rounds):
            device, verb = f"board-{number}", chance.choice(("devices.revoke", "devices.forget"))
            call(port, "devices.credentials.new", {"device": device, "snippets": []})
            if chance.random() < 0.7:  # the others have credentials only
                operator.birth(device)
                call(port, "devices.approve", {"device": device})
            counted["rounds"] += 1
            operator.give(verb, device)
            time.sleep(chance.random() * LONGEST_S)
            daemon.kill()
            daemon.start()
            ready(port)
            answer = operator.asked_until_answered(verb, device, counted)
            counted["answered_wrong"] += answer.get("credentials") is not True
            operator.give(verb, device)
            again = operator.asked_until_answered(verb, device, counted)
            counted["repeated_otherwise"] += again != answer
            if "error" in answer:
                print(verb, device, answer)
            if what := left_over(data, device, verb):
                print(verb, device, "is left:", what)
                counted["left_over"] += 1
        with sqlite3.connect(data / "gatewayd.sqlite") as store:
            counted["delivered_anew"] = store.execute("SELECT count(*) FROM commands WHERE tries > 0").fetchone()[0]
    finally:
        operator.close()
        daemon.end()
        broker.stop()
    return counted


def main() -> int:
    """Run it; return the exit code: with `--forget` 0 means that the proof noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--forget", action="store_true", help="switch the daemon's memory of commands off")
    args = parser.parse_args()
    print(f"{args.rounds} devices taken out, seed {args.seed}", flush=True)
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own in there, for the speed
    with tempfile.TemporaryDirectory(dir=memory if memory.exists() else None) as folder:
        found = rage(Path(folder), rounds=args.rounds, seed=args.seed, forget=args.forget)
    if args.forget:
        wrong = found["answered_wrong"] + found["repeated_otherwise"]
        print(f"without memory: {wrong} of {found['rounds']} answered otherwise")
        return 0 if wrong else 1
    report = Report("chaos-leaving")
    report.add("rounds", found["rounds"], (">=", 200))
    for name in ("delivered_anew", "sent_again"):
        report.add(name, found[name])
    report.add("answered_wrong", found["answered_wrong"], ("==", 0))
    report.add("repeated_otherwise", found["repeated_otherwise"], ("==", 0))
    report.add("left_over", found["left_over"], ("==", 0))
    report.finish()
    return 1 if any(found[name] for name in ("answered_wrong", "repeated_otherwise", "left_over")) else 0


if __name__ == "__main__":
    sys.exit(main())
