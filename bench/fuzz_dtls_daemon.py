"""Malformed DTLS datagrams and floods of first messages at a real daemon, while one device updates over its association.

    python -m bench.fuzz_dtls_daemon [--count 20000] [--seed N] [--per-second 1000]

Every update of that device must be answered with 2.04, and the daemon be as it was. `bench.insane_dtls` makes what is sent.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.common import BUILD, Report, Server, free_port
from bench.fuzz_lwm2m_daemon import ANSWER_S, UPDATE_PAUSE_S, Device, Seen, Wire
from bench.insane_dtls import Client, Recorded, datagram

IDENTITY, KEY = "id-1", b"secret-1" * 2
SOCKETS, FLOODING = 8, 64
KEPT_KIB = 1.0
"""What a malformed datagram may cost: nothing is remembered of it; the rest is what one allocator or other keeps."""
_BURST = 20


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


async def fuzz(port: int, numbers: Sequence[int], seed: int, *, per_second: float) -> tuple[Counter[str], int, Seen]:
    """Send the datagrams; return how many of each family, how many answers came, and the device's luck."""
    loop = asyncio.get_running_loop()
    answered: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    seen, over = Seen(), asyncio.Event()

    async def strangers(count: int) -> list[Wire]:
        made = [
            await loop.create_datagram_endpoint(lambda: Wire(answered), remote_addr=("127.0.0.1", port))
            for _ in range(count)
        ]
        return [wire for _, wire in made]

    _, secured = await loop.create_datagram_endpoint(SecuredWire, remote_addr=("127.0.0.1", port))
    secured.begin()
    async with asyncio.timeout(ANSWER_S):
        await secured.is_secured.wait()
    device = Device(secured)
    location = await device.register()
    recorded = Recorded(tuple(secured.sent[:-1]), tuple(secured.sent[-1:]))
    hello, wires, flood = secured.sent[0], await strangers(SOCKETS), await strangers(FLOODING)

    async def behave() -> None:
        while not over.is_set():
            await device.update(location, seen)
            await asyncio.sleep(UPDATE_PAUSE_S)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(behave(), name="device")
        for position, number in enumerate(numbers):
            family, content = datagram(recorded, number, seed)
            sent[family] += 1
            wires[number % SOCKETS].send(content)
            flood[number % FLOODING].send(hello)
            sent["first messages without a cookie"] += 1
            if position % _BURST == _BURST - 1:
                await asyncio.sleep(2 * _BURST / per_second)
        await asyncio.sleep(ANSWER_S)
        over.set()
    return sent, sum(answered.values()), seen


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-dtls-daemon.json."""
    parser = argparse.ArgumentParser(prog="bench.fuzz_dtls_daemon")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--per-second", type=float, default=1000.0)
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    made = Report("fuzz-dtls-daemon")
    with tempfile.TemporaryDirectory(prefix="fuzz-dtls-") as folder, Daemon(Path(folder)) as daemon:
        before_bytes = daemon.pss_bytes()
        numbers = range(options.count // 2)
        sent, answers, seen = asyncio.run(fuzz(daemon.dtls_port, numbers, options.seed, per_second=options.per_second))
        daemon.wait_ready()
        grown_kib = (daemon.pss_bytes() - before_bytes) / 1024
        made.add("datagrams", sum(sent.values()), (">=", 10_000))
        made.add("answers", answers)
        made.add("updates_answered", seen.good, (">=", 10))
        made.add("updates_not_answered", sum(seen.bad.values()), ("<=", 0))
        made.add("update_slowest_ms", max(seen.took_s, default=ANSWER_S) * 1000, ("<=", ANSWER_S * 1000))
        made.add("memory_kib_per_datagram", grown_kib / max(1, options.count), ("<=", KEPT_KIB))
    log = (BUILD / "gatewayd-fuzzed-dtls.log").read_text(errors="replace")
    made.add("tracebacks_logged", log.count("Traceback"), ("<=", 0))
    print("sent: " + ", ".join(f"{name} {count}" for name, count in sorted(sent.items())))
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
