"""One device that behaves, while a daemon is sent what is malformed: what the fuzzers of daemons over UDP have in common.

Every update of the device must be answered with 2.04, and the daemon be as it was afterwards.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from bench.common import BUILD, Report, Server
from bench.insane_coap import ACK, CON, CONTENT_FORMAT, POST, URI_PATH, URI_QUERY, coap

SOCKETS = 8
ANSWER_S = 2.0
_UPDATE_PAUSE_S = 0.1
_BURST = 20
_CREATED, _CHANGED, _NOT_FOUND = 0x41, 0x44, 0x84
_LOCATION_PATH = 8
_FIRST_RESPONSE = 0x40

D = TypeVar("D", bound=Server)


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


async def strangers(port: int, answered: Counter[str], count: int = SOCKETS) -> list[Wire]:
    """Return so many sockets to a port of this machine; `answered` counts the codes of what they are answered."""
    loop, address = asyncio.get_running_loop(), ("127.0.0.1", port)
    made = [await loop.create_datagram_endpoint(lambda: Wire(answered), remote_addr=address) for _ in range(count)]
    return [wire for _, wire in made]


async def besieged(
    device: Device, location: bytes, numbers: Sequence[int], send: Callable[[int], None], *, per_second: float
) -> Seen:
    """Have each number sent at that rate while the device updates; return its luck."""
    seen, over = Seen(), asyncio.Event()

    async def behave() -> None:
        while not over.is_set():
            await device.update(location, seen)
            await asyncio.sleep(_UPDATE_PAUSE_S)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(behave(), name="device")
        for position, number in enumerate(numbers):
            send(number)
            if position % _BURST == _BURST - 1:
                await asyncio.sleep(_BURST / per_second)
        await asyncio.sleep(ANSWER_S)
        over.set()
    return seen


def options_of(program: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and tell the seed: `count`, `seed`, `per_second`."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--per-second", type=float, default=1000.0)
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    return options


@contextmanager
def unharmed(made: Report, kept: tuple[str, float], count: int, start: Callable[[Path], D]) -> Iterator[D]:
    """Run a daemon, and add how it is afterwards: ready, KiB larger per message (`kept`: the figure and its goal), its log."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, start(Path(folder)) as daemon:
        before_bytes = daemon.pss_bytes()
        yield daemon
        daemon.wait_ready()
        figure, most_kib = kept
        made.add(figure, (daemon.pss_bytes() - before_bytes) / 1024 / max(1, count), ("<=", most_kib))
    log = (BUILD / f"{daemon.name}.log").read_text(errors="replace")
    made.add("tracebacks_logged", log.count("Traceback"), ("<=", 0))


def add_luck(made: Report, seen: Seen) -> None:
    """Add what the device that behaves was answered."""
    made.add("updates_answered", seen.good, (">=", 10))
    made.add("updates_not_answered", sum(seen.bad.values()), ("<=", 0))
    made.add("update_slowest_ms", max(seen.took_s, default=ANSWER_S) * 1000, ("<=", ANSWER_S * 1000))
    print(f"the device's other answers: {dict(seen.bad)}")


def listed(what: str, counts: Counter[str]) -> None:
    """Print how many there were of each."""
    print(f"{what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
