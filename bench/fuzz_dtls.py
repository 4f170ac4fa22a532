"""Thousands of malformed DTLS datagrams at the server's end, without a socket, while devices keep their associations.

    python -m bench.fuzz_dtls [--count 20000] [--seed N]

They come from strangers, from the addresses of devices that have an association (forged), and into handshakes under way; a tenth
are first messages without a cookie from new addresses. What counts: nothing is raised, every device that behaves goes on and can
still make a handshake, no memory is kept, and no datagram takes the loop long. `bench.insane_dtls` makes them.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.common import Report
from bench.insane_dtls import Client, Recorded, datagram, record
from gatewayd.adapters.dtls import MAX_HANDSHAKES, Address, DtlsSessions

SLOWEST_MS = 50.0
MOST_MIB = 24
"""256 handshakes under way take 10 MB, the 64 associations of this run 3; both are full after some 200,000 datagrams."""
KEYS = {"id-1": b"secret-1" * 2, "id-2": b"secret-2" * 2, "id-3": b"secret-3" * 2}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WARM_UP, _LOOK_EVERY = 2000, 250


@dataclass
class Fuzzed:
    """What came of it."""

    families: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    heard: int = 0
    handshakes: int = 0
    handshakes_failed: int = 0
    lost: int = 0
    slowest_ms: float = 0.0
    grown_bytes: int = 0


class Devices:
    """Devices that behave: two keep an association, one makes a new one again and again."""

    def __init__(self, server: DtlsSessions) -> None:
        self._server = server
        self._kept = {("192.0.2.1", 1000): "id-1", ("192.0.2.2", 1000): "id-2"}
        self._clients: dict[Address, Client] = {}
        self.recorded = Recorded((), ())
        for address, identity in self._kept.items():
            self._clients[address], self.recorded = self._shaken(address, identity)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where those with an association are."""
        return tuple(self._kept)

    def speak(self, found: Fuzzed) -> None:
        """Have each say something under its association, and count who is not heard."""
        for address, client in self._clients.items():
            heard = self._server.receive(client.seal(b"still here"), address)
            if heard.messages == [b"still here"] and heard.identity == self._kept[address]:
                found.heard += 1
            else:
                found.lost += 1

    def begin(self, found: Fuzzed, number: int) -> None:
        """Have a device begin anew, from an address that nobody spoke from; the network repeats what it says, and brings back."""
        past: list[bytes] = []

        def receive(content: bytes) -> list[bytes]:
            past.append(content)
            address = ("198.51.100.7", number)
            again = [content] * (number % 3) + past[: number % 4]
            first = self._server.receive(content, address).replies
            return first + [reply for each in again for reply in self._server.receive(each, address).replies]

        try:
            client, _ = record(receive, "id-3", KEYS["id-3"])
        except RuntimeError:
            found.handshakes_failed += 1
            return
        found.handshakes += client.is_over

    def _shaken(self, address: Address, identity: str) -> tuple[Client, Recorded]:
        return record(lambda content: self._server.receive(content, address).replies, identity, KEYS[identity])


def fuzz(numbers: Sequence[int], seed: int) -> Fuzzed:
    """Send each datagram, from one of many addresses."""
    found = Fuzzed()
    server = DtlsSessions(KEYS, most=64, clock=time.monotonic)
    devices = Devices(server)
    memory_bytes = 0
    for position, number in enumerate(numbers):
        if position == min(_WARM_UP, len(numbers) // 2):
            memory_bytes = _memory_bytes()
        family, content = datagram(devices.recorded, number, seed)
        _one(server, content, _address(number, devices.addresses), found)
        found.families[family] += 1
        if number % 10 == 0:
            _one(server, devices.recorded.flights[0], ("203.0.113.5", number), found)
        if position % _LOOK_EVERY == 0:
            devices.speak(found)
            devices.begin(found, number)
    found.grown_bytes = max(0, _memory_bytes() - memory_bytes)
    return found


def _address(number: int, devices: Sequence[Address]) -> Address:
    """A third is forged: in the name of who has an association. The rest are strangers, some of whom come back."""
    if number % 3 == 0:
        return devices[number // 3 % len(devices)]
    return ("203.0.113.9", 1024 + number % (4 * MAX_HANDSHAKES))


def _one(server: DtlsSessions, content: bytes, address: Address, found: Fuzzed) -> None:
    started_s = time.thread_time()
    found.answers += len(server.receive(content, address).replies)
    found.slowest_ms = max(found.slowest_ms, (time.thread_time() - started_s) * 1000)


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-dtls.json."""
    parser = argparse.ArgumentParser(prog="bench.fuzz_dtls")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    found = fuzz(range(options.count), options.seed)
    print("\n".join(f"{name}: {count}" for name, count in sorted(found.families.items())))
    made = Report("fuzz-dtls")
    made.add("seed", options.seed)
    made.add("datagrams", sum(found.families.values()), (">=", 10_000))
    made.add("answers", found.answers)
    made.add("messages_of_devices_heard", found.heard, (">=", 10))
    made.add("messages_of_devices_lost", found.lost, ("<=", 0))
    made.add("handshakes_made", found.handshakes, (">=", 10))
    made.add("handshakes_failed", found.handshakes_failed, ("<=", 0))
    made.add("slowest_ms_of_cpu", found.slowest_ms, ("<=", SLOWEST_MS))
    made.add("memory_growth_mib", found.grown_bytes / 2**20, ("<=", MOST_MIB))
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
