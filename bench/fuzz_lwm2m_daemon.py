"""Thousands of malformed datagrams at a real daemon, while one device that behaves keeps its registration.

    python -m bench.fuzz_lwm2m_daemon [--count 20000] [--seed N] [--per-second 1000]

Every update of that device must be answered with 2.04; the daemon must be as it was afterwards, its memory grown by no more than
what the CoAP library keeps of each request for its exchange lifetime (247 s, RFC 7252 section 4.8.2: some 4 KB each).
`bench.insane_coap` makes the datagrams.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bench.common import BUILD, Report, Server, free_port
from bench.insane_coap import ACK, CON, CONTENT_FORMAT, POST, URI_PATH, URI_QUERY, coap, datagram

SOCKETS = 8
ANSWER_S = 2.0
UPDATE_PAUSE_S = 0.1
KEPT_KIB = 4.0
"""What a request costs until its exchange is forgotten."""
_BURST = 20
_CREATED, _CHANGED, _NOT_FOUND = 0x41, 0x44, 0x84
_LOCATION_PATH = 8
_FIRST_RESPONSE = 0x40


class Daemon(Server):
    """gatewayd with its LwM2M server open to newcomers."""

    def __init__(self, folder: Path) -> None:
        port, self.coap_port = free_port(), free_port()
        config = folder / "gatewayd.yaml"
        config.write_text(
            f"node: {{name: bench, data_dir: {folder / 'data'}}}\nmqtt: {{port: {free_port()}}}\nhttp: {{port: {port}}}\n"
            f"coap: {{port: {self.coap_port}}}\nlwm2m: {{newcomers_per_s: 1000}}\nlog: {{level: error}}\n"
        )
        command: list[str | Path] = [sys.executable, "-m", "gatewayd", "run", "--config", config]
        super().__init__("gatewayd-fuzzed", command, port=port, ready_path="/readyz")


class Wire(asyncio.DatagramProtocol):
    """A UDP socket that counts what it is answered, and hands it on."""

    def __init__(self, answered: Counter[str]) -> None:
        self._answered = answered
        self.transport: asyncio.DatagramTransport | None = None
        self.heard: asyncio.Queue[bytes] = asyncio.Queue(1000)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - there is one peer
        """See asyncio."""
        code = data[1] if len(data) > 1 else 0
        self._answered[f"{code >> 5}.{code & 31:02d}"] += 1
        if not self.heard.full():
            self.heard.put_nowait(data)

    def send(self, content: bytes) -> None:
        """Send one datagram."""
        if self.transport is not None:
            self.transport.sendto(content)


@dataclass
class Seen:
    """What the device that behaves was answered."""

    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)


class Device:
    """Registers once and updates until it is told to stop; answers whatever it is asked with 4.04."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._mid = 0

    async def register(self) -> bytes:
        """Return the registration's name."""
        options = [
            (URI_PATH, b"rd"),
            (CONTENT_FORMAT, b"\x28"),
            (URI_QUERY, b"ep=well-behaved"),
            (URI_QUERY, b"lwm2m=1.1"),
        ]
        answer = await self._ask(options, b"</1/0>,</3/0>")
        if answer is None or answer[1] != _CREATED:
            raise RuntimeError(f"the device could not register: {answer!r}")
        return _last_location(answer)

    async def update(self, location: bytes, seen: Seen) -> None:
        """Send one update and note its answer."""
        started_s = time.monotonic()
        answer = await self._ask([(URI_PATH, b"rd"), (URI_PATH, location)], b"")
        if answer is not None and answer[1] == _CHANGED:
            seen.good += 1
            seen.took_s.append(time.monotonic() - started_s)
        else:
            seen.bad["silence" if answer is None else f"{answer[1] >> 5}.{answer[1] & 31:02d}"] += 1

    async def _ask(self, options: Sequence[tuple[int, bytes]], payload: bytes) -> bytes | None:
        self._mid += 1
        token = self._mid.to_bytes(4, "big")
        self._wire.send(coap(CON, POST, self._mid, token, options, payload))
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    answer = await self._wire.heard.get()
                    if answer[4 : 4 + (answer[0] & 15)] == token and answer[1] >= _FIRST_RESPONSE:
                        return answer
                    self._turn_down(answer)
        except TimeoutError:
            return None

    def _turn_down(self, question: bytes) -> None:
        if 0 < question[1] < _FIRST_RESPONSE:
            mid, token = int.from_bytes(question[2:4], "big"), question[4 : 4 + (question[0] & 15)]
            self._wire.send(coap(ACK, _NOT_FOUND, mid, token))


def _last_location(answer: bytes) -> bytes:
    """Return the last Location-Path of an answer; its options are short ones."""
    at, number, found = 4 + (answer[0] & 15), 0, b""
    while at < len(answer) and answer[at] != 0xFF:
        number += answer[at] >> 4
        length = answer[at] & 15
        at += 1
        if length == 13:
            length, at = 13 + answer[at], at + 1
        if number == _LOCATION_PATH:
            found = answer[at : at + length]
        at += length
    return found


async def fuzz(
    port: int, numbers: Sequence[int], seed: int, *, per_second: float
) -> tuple[Counter[str], Counter[str], Seen]:
    """Send the datagrams from several sockets; return how many of each family, the answers' codes, and the device's luck."""
    loop = asyncio.get_running_loop()
    sent: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    seen = Seen()

    async def opened(counts: Counter[str]) -> Wire:
        _, wire = await loop.create_datagram_endpoint(lambda: Wire(counts), remote_addr=("127.0.0.1", port))
        return wire

    wires = [await opened(answered) for _ in range(SOCKETS)]
    device = Device(await opened(Counter()))
    location = await device.register()
    over = asyncio.Event()

    async def behave() -> None:
        while not over.is_set():
            await device.update(location, seen)
            await asyncio.sleep(UPDATE_PAUSE_S)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(behave(), name="device")
        for position, number in enumerate(numbers):
            family, content = datagram(number, seed)
            sent[family] += 1
            wires[number % SOCKETS].send(content)
            if position % _BURST == _BURST - 1:
                await asyncio.sleep(_BURST / per_second)
        await asyncio.sleep(ANSWER_S)
        over.set()
    return sent, answered, seen


def refused(port: int) -> float:
    """Return how many refusals of the LwM2M server the metrics count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(each.split()[-1]) for each in lines if "refused" in each and 'lwm2m"' in each and each[0] != "#")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-lwm2m-daemon.json."""
    parser = argparse.ArgumentParser(prog="bench.fuzz_lwm2m_daemon")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--per-second", type=float, default=1000.0)
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    made = Report("fuzz-lwm2m-daemon")
    with tempfile.TemporaryDirectory(prefix="fuzz-lwm2m-") as folder, Daemon(Path(folder)) as daemon:
        before_bytes = daemon.pss_bytes()
        numbers = range(options.count)
        sent, answered, seen = asyncio.run(fuzz(daemon.coap_port, numbers, options.seed, per_second=options.per_second))
        daemon.wait_ready()
        grown_kib = (daemon.pss_bytes() - before_bytes) / 1024
        made.add("datagrams", sum(sent.values()), (">=", 10_000))
        made.add("answers", sum(answered.values()))
        made.add("refusals_counted", refused(daemon.port), (">=", 1))
        made.add("updates_answered", seen.good, (">=", 10))
        made.add("updates_not_answered", sum(seen.bad.values()), ("<=", 0))
        made.add("update_slowest_ms", max(seen.took_s, default=ANSWER_S) * 1000, ("<=", ANSWER_S * 1000))
        made.add("memory_kib_per_datagram", grown_kib / max(1, options.count), ("<=", KEPT_KIB))
    log = (BUILD / "gatewayd-fuzzed.log").read_text(errors="replace")
    made.add("tracebacks_logged", log.count("Traceback"), ("<=", 0))
    print("sent: " + ", ".join(f"{name} {count}" for name, count in sorted(sent.items())))
    print("answered: " + ", ".join(f"{name} {count}" for name, count in sorted(answered.items())))
    print(f"the device's other answers: {dict(seen.bad)}")
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
