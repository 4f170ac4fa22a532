"""Thousands of malformed LwM2M messages through every reader: records, or the one error, soon and without growth?

    python -m bench.fuzz_lwm2m [--count 20000] [--seed N] [--only NUMBER]

What counts: nothing raised but BadRequest and TooLarge, nothing that keeps the event loop (the longest reading is given as CPU
time of its thread), no memory kept. `bench.insane_lwm2m` makes the messages; the same ones can be put into datagrams.
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
from bench.insane_lwm2m import Case, case
from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.wire.lwm2m.formats import decode
from gatewayd.wire.lwm2m.linkformat import parse_links
from gatewayd.wire.lwm2m.objects import MODEL, SOFTWARE, STANDARD
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.registration import parse_registration, parse_update
from gatewayd.wire.lwm2m.reports import read_connectivity, read_device, read_report, read_software_all
from gatewayd.wire.lwm2m.states import read_model_slot
from gatewayd.wire.lwm2m.values import Record

SLOWEST_MS = 50.0
"""A callback of the event loop that takes longer is a defect anywhere in this project."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WARM_UP = 2000


@dataclass
class Fuzzed:
    """What came of the messages."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    slowest: Case | None = None
    grown_bytes: int = 0


def fuzz(numbers: Sequence[int], seed: int) -> Fuzzed:
    """Read each message. What is raised beside the two errors goes through, with the message's number printed."""
    found = Fuzzed()
    memory_bytes = 0
    for position, number in enumerate(numbers):
        if position == min(_WARM_UP, len(numbers) // 2):
            memory_bytes = _memory_bytes()
        _one(case(number, seed), seed, found)
    found.grown_bytes = max(0, _memory_bytes() - memory_bytes)
    return found


def read(message: Case) -> int:
    """Read a message as the server does; return how many things were in it. Raises: BadRequest, TooLarge."""
    match message.kind:
        case "links":
            return len(parse_links(message.payload))
        case "register":
            return len(parse_registration(message.query, message.payload).objects)
        case "update":
            return int(parse_update(message.query, message.payload).changes_objects)
    records = decode(message.format, message.path, message.payload, STANDARD)
    _believe(records)
    return len(records)


def _believe(records: tuple[Record, ...]) -> None:
    """Go on with what was read as a birth and a push do."""
    read_device(records)
    read_connectivity(records)
    read_software_all(records)
    readings = Readings(records)
    for instance in readings.instances(MODEL)[:8]:
        read_model_slot(readings, instance)
    if readings.instances(SOFTWARE) or readings.instances(MODEL):
        read_report(records)


def _one(message: Case, seed: int, found: Fuzzed) -> None:
    started_s = time.thread_time()
    try:
        outcome = "read" if read(message) else "read, nothing in it"
    except (BadRequest, TooLarge) as error:
        outcome = type(error).__name__
    except BaseException:
        print(f"message {message.number} of seed {seed} ({message.family}) broke a reader", file=sys.stderr)
        raise
    elapsed_ms = (time.thread_time() - started_s) * 1000
    found.outcomes[f"{message.family}: {outcome}"] += 1
    if elapsed_ms > found.slowest_ms:
        found.slowest_ms, found.slowest = elapsed_ms, message


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table, write build/bench/fuzz-lwm2m.json. A message that breaks something ends it with its traceback."""
    parser = argparse.ArgumentParser(prog="bench.fuzz_lwm2m")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, default=None, help="the number of one message")
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    numbers = range(options.count) if options.only is None else [options.only]
    found = fuzz(numbers, options.seed)
    print("\n".join(f"{name}: {count}" for name, count in sorted(found.outcomes.items())))
    if found.slowest is not None:
        slowest = found.slowest
        print(f"slowest: {slowest.number} ({slowest.family}, {slowest.format.name}, {len(slowest.payload)} bytes)")
    made = Report("fuzz-lwm2m")
    made.add("seed", options.seed)
    made.add("messages", len(numbers), (">=", 10_000))
    made.add("refused", sum(count for name, count in found.outcomes.items() if "read" not in name))
    made.add("slowest_ms_of_cpu", found.slowest_ms, ("<=", SLOWEST_MS))
    made.add("memory_growth_mib", found.grown_bytes / 2**20, ("<=", 16))
    made.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
