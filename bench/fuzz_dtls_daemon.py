"""Malformed DTLS datagrams and floods of first messages at a real daemon, while one device updates over its association.

    python -m bench.fuzz_dtls_daemon [--count 20000] [--seed N] [--per-second 1000]

Every update of that device must be answered with 2.04, and the daemon be as it was. `bench.insane_dtls` makes what is sent.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.besieged import (
    ANSWER_S,
    SOCKETS,
    Device,
    Seen,
    Wire,
    add_luck,
    besieged,
    listed,
    options_of,
    strangers,
    unharmed,
)
from bench.common import Report, Server, free_port
from bench.insane_dtls import Client, Recorded, datagram

IDENTITY, KEY = "id-1", b"secret-1" * 2
FLOODING = 64
KEPT_KIB = 1.0
"""What a malformed datagram may cost: nothing is remembered of it; the rest is what one allocator or other keeps."""


class Daemon(Server):
    """gatewayd with one key for DTLS."""

    def __init__(self, folder: Path) -> None:
        port, self.dtls_port = free_port(), free_port()
        keys = folder / "keys"
        keys.write_text(f"well-behaved {IDENTITY} {KEY.hex()}\n")
        config = folder / "gatewayd.yaml"
        config.write_text(
            f"node: {{name: bench, data_dir: {folder / 'data'}}}\nmqtt: {{port: {free_port()}}}\nhttp: {{port: {port}}}\n"
            f"coap: {{enabled: false}}\nlwm2m: {{credentials_file: {keys}, dtls_port: {self.dtls_port}}}\nlog: {{level: error}}\n"
        )
        command: list[str | Path] = [sys.executable, "-m", "gatewayd", "run", "--config", config]
        super().__init__("gatewayd-fuzzed-dtls", command, port=port, ready_path="/readyz")


class SecuredWire(Wire):
    """A UDP socket with an association on it; `sent` is what went out, as it was."""

    def __init__(self) -> None:
        super().__init__(Counter())
        self.client = Client(IDENTITY, KEY)
        self.sent: list[bytes] = []
        self.is_secured = asyncio.Event()

    def begin(self) -> None:
        """Make a handshake."""
        self._out(self.client.step())

    def datagram_received(self, data: bytes, addr: object) -> None:
        """See asyncio."""
        if self.client.is_over:
            for content in self.client.open(data):
                super().datagram_received(content, addr)
            return
        self._out(self.client.step(data))
        self._look()

    def _look(self) -> None:
        if self.client.is_over:
            self.is_secured.set()

    def send(self, content: bytes) -> None:
        """Send one message under the association."""
        self._out([self.client.seal(content)])

    def _out(self, datagrams: Sequence[bytes]) -> None:
        for each in datagrams:
            self.sent.append(each)
            super().send(each)


async def fuzz(
    port: int, numbers: Sequence[int], seed: int, *, per_second: float
) -> tuple[Counter[str], Counter[str], Seen]:
    """Send two datagrams per number: one malformed, one that begins a handshake. Returns as `bench.fuzz_lwm2m_daemon.fuzz`."""
    loop = asyncio.get_running_loop()
    sent: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    _, secured = await loop.create_datagram_endpoint(SecuredWire, remote_addr=("127.0.0.1", port))
    secured.begin()
    async with asyncio.timeout(ANSWER_S):
        await secured.is_secured.wait()
    device = Device(secured)
    location = await device.register()
    recorded, hello = Recorded(tuple(secured.sent[:-1]), tuple(secured.sent[-1:])), secured.sent[0]
    wires, flood = await strangers(port, answered), await strangers(port, answered, FLOODING)

    def send(number: int) -> None:
        family, content = datagram(recorded, number, seed)
        wires[number % SOCKETS].send(content)
        flood[number % FLOODING].send(hello)
        sent.update([family, "first messages without a cookie"])

    seen = await besieged(device, location, numbers, send, per_second=per_second / 2)
    return sent, answered, seen


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-dtls-daemon.json."""
    options = options_of("bench.fuzz_dtls_daemon", argv)
    made, numbers = Report("fuzz-dtls-daemon"), range(options.count // 2)
    with unharmed(made, ("memory_kib_per_datagram", KEPT_KIB), options.count, Daemon) as daemon:
        sent, answered, seen = asyncio.run(fuzz(daemon.dtls_port, numbers, options.seed, per_second=options.per_second))
    made.add("datagrams", sum(sent.values()), (">=", 10_000))
    made.add("answers", sum(answered.values()))
    add_luck(made, seen)
    listed("sent", sent)
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
