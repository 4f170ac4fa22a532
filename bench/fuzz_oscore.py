"""Forged, replayed and damaged OSCORE messages, and floods of ids that nobody has, at a real daemon beside one that behaves.

    python -m bench.fuzz_oscore [--count 20000] [--seed N] [--per-second 1000]

Every update of the device under its context must be answered with 2.04, the daemon be as it was, and every message be counted.
The material is what the device really sent. The same number and seed give the same message.
"""

import asyncio
import json
import random
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.besieged import SOCKETS, Device, Seen, Wire, add_luck, besieged, listed, options_of, strangers, unharmed
from bench.common import Report, Server, free_port
from bench.insane_coap import CON, POST, coap
from gatewayd.wire.oscore.context import Asked, Material, SecurityContext
from gatewayd.wire.oscore.header import Header, decode_header, encode_header

NAME = "well-behaved"
KEPT_KIB = 4.0
"""As for plain messages: what a request costs until its exchange is forgotten (247 s). Source: RFC 7252, section 4.8.2."""
_OSCORE, _HEAD = 9, 4


class Daemon(Server):
    """gatewayd that takes nothing from devices but OSCORE."""

    def __init__(self, folder: Path) -> None:
        self.http_port, self.coap_port = free_port(), free_port()
        config = folder / "gatewayd.yaml"
        config.write_text(
            f"node: {{name: bench, data_dir: {folder / 'data'}}}\nmqtt: {{port: {free_port()}}}\n"
            f"http: {{port: {self.http_port}}}\ncoap: {{enabled: false}}\nlog: {{level: error}}\n"
            f"lwm2m: {{host: 0.0.0.0, port: {self.coap_port}, dtls: never}}\n"
        )
        command: list[str | Path] = [sys.executable, "-m", "gatewayd", "run", "--config", config]
        super().__init__("gatewayd-fuzzed-oscore", command, port=self.http_port, ready_path="/readyz")

    def credentials(self) -> SecurityContext:
        """Have them made; return the device's end of the context."""
        body = json.dumps({"device": NAME, "kind": "oscore", "snippets": []}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/api/devices/credentials/new", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - our own loopback address
            made = json.load(answer)["oscore"]
        names = ("master_secret", "master_salt", "sender_id", "recipient_id")
        return SecurityContext(Material(*(bytes.fromhex(made[name]) for name in names)))

    def refused(self) -> Counter[str]:
        """Return what was refused, by code."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        counted: Counter[str] = Counter()
        for line in lines:
            if line.startswith("gatewayd_inputs_refused_total{"):
                counted[line.partition('code="')[2].partition('"')[0]] += int(float(line.split()[-1]))
        return counted


class ProtectedWire(Wire):
    """A UDP socket whose messages are protected; `sent` is what went out."""

    def __init__(self, context: SecurityContext) -> None:
        super().__init__(Counter())
        self._context = context
        self._number = 0
        self._asked: dict[bytes, Asked] = {}
        self.sent: list[bytes] = []

    def send(self, content: bytes) -> None:
        """Protect a message, and send it."""
        length = _HEAD + (content[0] & 15)
        if content[1] != POST:  # an answer: it is not protected, and counts as none
            return
        sealed, asked = self._context.seal_question(self._number, content[1:2] + content[length:])
        self._number += 1
        self._asked[content[_HEAD:length]] = asked
        mid, token = int.from_bytes(content[2:4], "big"), content[_HEAD:length]
        self.sent.append(coap(CON, POST, mid, token, [(_OSCORE, sealed.option)], sealed.payload))
        super().send(self.sent[-1])

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Open an answer, and hand it on as a plain one."""
        length = _HEAD + (data[0] & 15)
        asked = self._asked.pop(data[_HEAD:length], None)
        if asked is None:
            return
        option, _, payload = data[length:].partition(b"\xff")
        inner = self._context.open_answer(asked, decode_header(option[1:]), payload)
        super().datagram_received(data[:1] + inner[:1] + data[2:length] + inner[1:], addr)


Make = Callable[[bytes, bytes, bytes, random.Random], tuple[bytes, bytes]]
"""Of a real option, payload and kid: another option and payload."""


def _flipped(option: bytes, payload: bytes, kid: bytes, rng: random.Random) -> tuple[bytes, bytes]:  # noqa: ARG001 - a `Make`
    damaged = bytearray(payload)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return encode_header(Header(rng.randbytes(5), kid)), bytes(damaged)


FAMILIES: dict[str, Make] = {
    "replayed": lambda option, payload, _, __: (option, payload),
    "forged": lambda _, payload, kid, rng: (
        encode_header(Header(rng.randbytes(rng.randint(1, 5)), kid)), rng.randbytes(len(payload)),
    ),
    "bits flipped": _flipped,
    "cut": lambda _, payload, kid, rng: (encode_header(Header(rng.randbytes(5), kid)), payload[: rng.randrange(12)]),
    "unknown id": lambda _, payload, __, rng: (
        encode_header(Header(rng.randbytes(2), rng.randbytes(rng.randint(0, 7)))), payload,
    ),
    "id context": lambda _, payload, kid, rng: (encode_header(Header(b"\1", kid, rng.randbytes(8))), payload),
    "no option": lambda _, payload, __, rng: (rng.randbytes(rng.randint(0, 40)), payload),
    "another length": lambda option, payload, _, rng: (option[: rng.randrange(len(option))], payload),
}  # fmt: skip


def message(material: Sequence[tuple[bytes, bytes]], kid: bytes, number: int, seed: int) -> tuple[str, bytes]:
    """Return the family and the datagram of one."""
    rng = random.Random(f"{seed}/{number}")
    family = list(FAMILIES)[number % len(FAMILIES)]
    option, payload = FAMILIES[family](*rng.choice(material), kid, rng)
    code = POST if number % 16 else rng.randrange(1, 8)
    return family, coap(rng.choice((0, 1)), code, number & 0xFFFF, rng.randbytes(4), [(_OSCORE, option)], payload)


async def fuzz(
    port: int, context: SecurityContext, numbers: Sequence[int], seed: int, *, per_second: float
) -> tuple[Counter[str], Counter[str], Seen]:
    """Send the messages; return how many of each family, the answers' codes, and the device's luck."""
    sent: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    wires, address = await strangers(port, answered), ("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    _, protected = await loop.create_datagram_endpoint(lambda: ProtectedWire(context), remote_addr=address)
    device = Device(protected)
    location = await device.register()
    material = [_parts(each) for each in protected.sent]

    def send(number: int) -> None:
        family, content = message(material, context.material.sender_id, number, seed)
        sent[family] += 1
        wires[number % SOCKETS].send(content)

    seen = await besieged(device, location, numbers, send, per_second=per_second)
    return sent, answered, seen


def _parts(datagram: bytes) -> tuple[bytes, bytes]:
    """Return the option's value and the payload of a message that the device sent."""
    option, _, payload = datagram[_HEAD + (datagram[0] & 15) :].partition(b"\xff")
    return option[1:], payload


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-oscore.json."""
    options = options_of("bench.fuzz_oscore", argv)
    made, numbers = Report("fuzz-oscore"), range(options.count)
    with unharmed(made, ("memory_kib_per_message", KEPT_KIB), options.count, Daemon) as daemon:
        fuzzing = fuzz(daemon.coap_port, daemon.credentials(), numbers, options.seed, per_second=options.per_second)
        sent, answered, seen = asyncio.run(fuzzing)
        refused = daemon.refused()
    made.add("messages", sum(sent.values()), (">=", 10_000))
    made.add("answers", sum(answered.values()))
    made.add("refusals_counted", sum(refused.values()), (">=", 0.9 * sum(sent.values())))
    add_luck(made, seen)
    listed("sent", sent)
    listed("answered", answered)
    listed("refused", refused)
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
