"""Thousands of malformed datagrams at a real daemon, while one device that behaves keeps its registration.

    python -m bench.fuzz_lwm2m_daemon [--count 20000] [--seed N] [--per-second 1000]

Every update of that device must be answered with 2.04; the daemon must be as it was afterwards, its memory grown by no more than
what the CoAP library keeps of each request for its exchange lifetime (247 s, RFC 7252 section 4.8.2: some 4 KB each).
`bench.insane_coap` makes the datagrams.
"""

import asyncio
import sys
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.besieged import SOCKETS, Device, Seen, add_luck, besieged, listed, options_of, strangers, unharmed
from bench.common import Report, Server, free_port
from bench.insane_coap import datagram

KEPT_KIB = 4.0
"""What a request costs until its exchange is forgotten."""


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


async def fuzz(
    port: int, numbers: Sequence[int], seed: int, *, per_second: float
) -> tuple[Counter[str], Counter[str], Seen]:
    """Send the datagrams from several sockets; return how many of each family, the answers' codes, and the device's luck."""
    sent: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    wires = await strangers(port, answered)
    device = Device((await strangers(port, Counter(), 1))[0])

    def send(number: int) -> None:
        family, content = datagram(number, seed)
        sent[family] += 1
        wires[number % SOCKETS].send(content)

    seen = await besieged(device, await device.register(), numbers, send, per_second=per_second)
    return sent, answered, seen


def refused(port: int) -> float:
    """Return how many refusals of the LwM2M server the metrics count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(each.split()[-1]) for each in lines if "refused" in each and 'lwm2m"' in each and each[0] != "#")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-lwm2m-daemon.json."""
    options = options_of("bench.fuzz_lwm2m_daemon", argv)
    made, numbers = Report("fuzz-lwm2m-daemon"), range(options.count)
    with unharmed(made, ("memory_kib_per_datagram", KEPT_KIB), options.count, Daemon) as daemon:
        sent, answered, seen = asyncio.run(fuzz(daemon.coap_port, numbers, options.seed, per_second=options.per_second))
        made.add("refusals_counted", refused(daemon.port), (">=", 1))
    made.add("datagrams", sum(sent.values()), (">=", 10_000))
    made.add("answers", sum(answered.values()))
    add_luck(made, seen)
    listed("sent", sent)
    listed("answered", answered)
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
