"""Clients that misbehave, all at once, while one that behaves is counted.

    python -m bench.hostile_http [--connections N]

Opens thousands of connections that never finish their heads, announces a gigabyte, sends sizes that lie and garbage, and
meanwhile asks for inferences over one connection. Every request of that one must be answered with 200, every misbehaving
client with one clear error or a closed connection, and the daemon must be as it was afterwards.
"""

import argparse
import asyncio
import json
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.common import Report
from bench.node import MIB, Gateway, models

HEAD = b"POST /v2/models/kws/infer HTTP/1.1\r\nHost: localhost\r\n"
LIES = (
    b"Content-Length: 1073741824\r\n\r\n{",
    b"Inference-Header-Content-Length: 99999\r\nContent-Length: 2\r\n\r\n{}",
    b'Content-Length: 28\r\nContent-Type: application/json\r\n\r\n{"inputs":[{"name":"input_1"}',
    b"Content-Length: 5\r\n\r\n{]}[{",
    b"Content-Length: -5\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    b"\x00\xff\x00\r\n\r\n",
)
PATIENCE_S = 20.0


@dataclass
class Seen:
    """What happened to whom."""

    refused: Counter[str] = field(default_factory=Counter)
    good: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0


async def slow(port: int, seen: Seen, held: list[asyncio.StreamWriter]) -> None:
    """Begin a request and never end it; note what one is told."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError) as error:
        seen.refused[f"not connected: {type(error).__name__}"] += 1
        return
    held.append(writer)
    try:
        writer.write(HEAD)
        async with asyncio.timeout(1.0):
            head = await reader.read(200)
    except TimeoutError:
        seen.refused["held open"] += 1
    except ConnectionError:
        seen.refused["closed"] += 1
    else:
        seen.refused[head[9:12].decode(errors="replace") or "closed"] += 1


async def liar(port: int, lie: bytes, seen: Seen) -> None:
    """Send one lie and note the status."""
    for _ in range(50):  # 503 while all connections are taken: come again
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + lie)
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = (await reader.read(65536))[9:12].decode(errors="replace")
        except (ConnectionError, TimeoutError):
            status = "closed"
        writer.close()
        if status != "503":
            seen.refused[f"lie {status}"] += 1
            return
        await asyncio.sleep(0.5)
    seen.refused["lie never heard"] += 1


async def behave(port: int, whole: bytes, seen: Seen, stop: asyncio.Event) -> None:
    """Ask over one connection until told to stop, and count the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not stop.is_set():
        started_s = time.monotonic()
        writer.write(whole)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        seen.good[int(head[9:12])] += 1
        seen.slowest_s = max(seen.slowest_s, time.monotonic() - started_s)
    writer.close()


async def attack(port: int, connections: int, whole: bytes) -> Seen:
    """Do it all."""
    seen, stop, held = Seen(), asyncio.Event(), list[asyncio.StreamWriter]()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(behave(port, whole, seen, stop), name="one that behaves")
        async with asyncio.TaskGroup() as bad:
            for number in range(connections):
                bad.create_task(slow(port, seen, held), name=f"slow-{number}")
                if number % 200 == 0:
                    await asyncio.sleep(0.01)
        for writer in held:
            writer.close()
        for lie in LIES:
            await liar(port, lie, seen)
        stop.set()
    return seen


def main() -> int:
    """Run it and write the report; exit code 1 when a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, args.connections + 500), hard))
    report = Report("hostile-http")
    kws = models()[0]
    with tempfile.TemporaryDirectory() as folder, Gateway(Path(folder)) as gateway:
        gateway.admit(kws)
        before = gateway.pss_bytes()
        seen = asyncio.run(attack(gateway.port, args.connections, kws.json_request()))
        report.add("grown_mib", (gateway.pss_bytes() - before) / MIB, ("<=", 30))
    report.add("good_answered", seen.good[200], (">=", 1))
    report.add("good_lost", seen.good.total() - seen.good[200], ("<=", 0))
    report.add("good_slowest_ms", seen.slowest_s * 1000)
    for what, count in sorted(seen.refused.items()):
        report.add(what.replace(" ", "_"), count)
    report.add(
        "without_an_answer", sum(seen.refused[each] for each in seen.refused if "not connected" in each), ("<=", 0)
    )
    report.finish()
    print(json.dumps(seen.refused))
    return 0 if all(report.met().values()) else 1


if __name__ == "__main__":
    sys.exit(main())
