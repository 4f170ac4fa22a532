"""How long a model travels over CoAP: the real link and the real simulated board, over links that delay, limit and lose.

`make bench-push`. Rows marked `real` run in real time, board and relay in processes of their own; rows marked `virtual` run the
same code, sockets included, in one process on a clock that jumps from timer to timer (`bench/virtual.py`): there computing takes
no time; `s-push` and `s-pull` are such rows of a stock client (`bench/push_stock.py`). Beside each: what stop-and-wait with the
same timer (a stock client that fetches has CoAP's own) would take in theory.
"""

import argparse
import asyncio
import hashlib
import json
import math
import random
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Self

from aiocoap import Context, Message  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above

from bench.common import Report
from bench.memory_board import KEY, manifest_of, memory_device
from bench.push_gateway import UNTUNED, PushGateway, push_gateway
from bench.push_stock import one_stock
from bench.relay import LINKS
from bench.virtual import run_virtual
from gatewayd.core.names import Digest
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.registration import Terms
from gatewayd.sim.relay import Link
from gatewayd.wire.manifest import sign_manifest

SIZES = (54_000, 98_000, 333_000)
LOSSES = (0.0, 0.01, 0.05, 0.10)
_COAP_BYTES, _ANSWER_BYTES = 22, 14
"""Heads of a block and of its answer in CoAP: 4 + token 4 + options; measured on this link, a byte or two off."""
_RETRANSMITS, _JITTER = 4, 1.25
_LIFETIME_S = 86_400


@dataclass(frozen=True, slots=True)
class Row:
    """One measured push."""

    kind: str
    link: str
    loss: float
    size_bytes: int
    seconds: float
    air_bytes: int
    theory_s: float
    failures: tuple[str, ...] = ()


def theory_s(link: Link, size_bytes: int, loss: float, ack_s: float) -> float:
    """Return the mean time of stop-and-wait: every exchange until one is not lost, waiting ACK_TIMEOUT doubled each time.

    Giving up after the last repetition is left out. Source: RFC 7252, section 4.2; the jitter's mean is 1.25.
    """
    blocks = math.ceil(size_bytes / link.block_bytes)
    exchange_s = link.exchange_s(link.block_bytes + _COAP_BYTES, _ANSWER_BYTES)
    fails = 1 - (1 - loss) ** 2
    waits_s = sum(fails ** (tries + 1) * ack_s * _JITTER * 2**tries for tries in range(_RETRANSMITS))
    return float(blocks * (exchange_s + waits_s))


def options(port: int, link: Link, loss: float, *, seed: int, device: str = "board-0") -> Lwm2mOptions:
    """Return how a board attaches."""
    return Lwm2mOptions(
        "127.0.0.1",
        port,
        Terms(device, _LIFETIME_S),
        link.name,
        loss=loss,
        seed=seed,
        block_exponent=link.block_bytes.bit_length() - 5,
    )


async def one_virtual(
    link: Link, loss: float, size_bytes: int, *, seed: int, line: LineLimits | None
) -> tuple[float, int] | str:
    """Push once to one board, all in this loop; return seconds and bytes on air."""
    random.seed(seed)  # what aiocoap draws: tokens and the jitter of its timers
    content = random.randbytes(size_bytes)
    async with push_gateway(line) as gateway, asyncio.TaskGroup() as tasks:
        device = memory_device(options(gateway.port, link, loss, seed=seed), link)
        tasks.create_task(device.run(), name="board")
        await gateway.born("board-0")
        before = device.air_bytes()
        try:
            seconds = await gateway.push("board-0", content)
        except RuntimeError as failure:
            return str(failure).rpartition("ended: ")[2]
        finally:
            device.stop()
        return seconds, device.air_bytes() - before


def virtual_row(name: str, loss: float, size_bytes: int, *, seeds: int, line: LineLimits | None = None) -> Row:
    """Return the median of several seeds."""
    link = LINKS[name]
    ran = [run_virtual(one_virtual(link, loss, size_bytes, seed=seed, line=line)) for seed in range(1, seeds + 1)]
    found, failures = (
        [each for each in ran if not isinstance(each, str)],
        [each for each in ran if isinstance(each, str)],
    )
    seconds, air_bytes = sorted(found)[len(found) // 2] if found else (math.nan, 0)
    ack_s = 2.0 if line is UNTUNED else 1.5 * link.exchange_s(link.block_bytes + _COAP_BYTES, _ANSWER_BYTES)
    expected_s = theory_s(link, size_bytes, loss, ack_s)
    return Row("virtual", name, loss, size_bytes, seconds, air_bytes, expected_s, tuple(failures))


class Child:
    """A process of this benchmark that prints its port first and answers lines with JSON."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.first = self._out.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._process.wait(10)
        self._out.close()

    def tally(self) -> dict[str, int]:
        """Return what a relay counted."""
        self._in.write("\n")
        self._in.flush()
        counted: dict[str, int] = json.loads(self._out.readline())
        return counted


async def pushed_real(gateway: PushGateway, devices: int, size_bytes: int) -> float:
    """Push to all boards at once; return the seconds until the last byte of the last one."""
    content = random.randbytes(size_bytes)  # another one each round: what a board holds already is not sent
    async with asyncio.TaskGroup() as tasks:
        pushes = [
            tasks.create_task(gateway.push(f"board-{index}", content), name=f"push-{index}") for index in range(devices)
        ]
    return max(each.result() for each in pushes)


async def real(name: str, size_bytes: int, *, devices: int = 1, rounds: int = 1) -> tuple[float, int]:
    """Push in real time, boards and relay in processes of their own; return the median seconds and bytes on air of one round."""
    with ExitStack() as children:
        async with push_gateway() as gateway:
            upstream = f"127.0.0.1:{gateway.port}"
            relay = children.enter_context(Child("bench.relay", "--link", name, "--upstream", upstream))
            where = ["--gateway", f"127.0.0.1:{relay.first}", "--block", str(LINKS[name].block_bytes)]
            children.enter_context(Child("bench.push_boards", "--devices", str(devices), *where))
            async with asyncio.timeout(60):
                for index in range(devices):
                    await gateway.born(f"board-{index}")
            before = relay.tally()
            seconds = [await pushed_real(gateway, devices, size_bytes) for _ in range(rounds)]
            after = relay.tally()
    air_bytes = sum(after[way] - before[way] for way in ("bytes_up", "bytes_down"))
    return statistics.median(seconds), air_bytes // rounds


async def bare(size_bytes: int, *, rounds: int) -> float:
    """PUT the same package to the same kind of board with nothing but aiocoap; return the median seconds of the transfers."""
    with Child("bench.push_boards", "--devices", "1", "--gateway", "127.0.0.1:9") as boards:
        context = await Context.create_client_context(transports=["udp6"])
        seconds = []
        for version in range(1, rounds + 1):
            content = random.Random(version).randbytes(size_bytes)
            seconds.append(await _bare_put(context, boards.first, content, version))
        await context.shutdown()
    return statistics.median(seconds)


async def _bare_put(context: Context, at: str, content: bytes, version: int) -> float:
    manifest = manifest_of(Digest(hashlib.sha256(content).hexdigest()), len(content), version=version)

    async def ask(code: int, path: str, payload: bytes = b"", content_format: int | None = None) -> None:
        message = Message(code=code, uri=f"coap://{at}{path}", payload=payload, content_format=content_format)
        answer = await context.request(message).response
        if not answer.code.is_successful():
            raise RuntimeError(f"{path}: {answer.code} {answer.payload!r}")

    slot = (version + 1) % 2
    await ask(Code.PUT, f"/26242/{slot}/13", str(version).encode(), 0)
    await ask(Code.PUT, f"/26242/{slot}/18", sign_manifest(manifest, KEY), 42)
    began_s = time.monotonic()
    await ask(Code.PUT, f"/9/{slot}/2", content, 42)
    took_s = time.monotonic() - began_s
    for path in (f"/9/{slot}/10", f"/26242/{slot}/16"):
        await ask(Code.POST, path)
    return took_s


def measure(report: Report, *, is_quick: bool, part: str) -> list[Row]:
    """Run one part or everything; put the goals' figures into the report and return the table."""
    rows = _virtual_rows(report, is_quick=is_quick) if part in {"all", "links"} else []
    if part in {"all", "timers"}:
        _timers(report, is_quick=is_quick)
        _in_theory(report)
    if part in {"all", "real"}:
        rows += _real_rows(report, is_quick=is_quick)
    return rows


def _virtual_rows(report: Report, *, is_quick: bool) -> list[Row]:
    rows = [virtual_row(name, loss, size, seeds=1 if is_quick else 3) for name, loss, size in _combinations(is_quick)]
    for row in rows:
        report.add(f"{row.link}_{row.loss:.0%}_{row.size_bytes // 1000}kB_s".replace("%", "pct"), row.seconds)
    rows += _stock_rows(sizes=SIZES[:1] if is_quick else SIZES[1:])
    # A client that fetches has its own timers, and gives up where five datagrams in a row are lost: that is not ours to mend.
    written, fetched = (
        sum(len(row.failures) for row in rows if (row.kind == "s-pull") is way) for way in (False, True)
    )
    report.add("virtual_pushes_that_failed", written, ("<=", 0))
    report.add("virtual_fetches_of_a_stock_client_that_failed", fetched)
    slow = [row.seconds / row.theory_s for row in rows if row.link == "nb-iot" and row.kind == "virtual"]
    report.add("nb_iot_beside_stop_and_wait_theory_worst", max(slow), ("<=", 1.1))
    return rows


def _stock_rows(*, sizes: tuple[int, ...]) -> list[Row]:
    """Push to a client that keeps nothing of a broken transfer, where blocks are slow and are lost: written to, and fetching."""
    rows = []
    for name, loss, size, way in product(("nb-iot", "802.15.4"), LOSSES[2:], sizes, ("push", "pull")):
        link = LINKS[name]
        random.seed(size)
        ran = run_virtual(one_stock(link, loss, random.randbytes(size), way=way, seed=1))
        failures = (ran,) if isinstance(ran, str) else ()
        seconds, air_bytes = (math.nan, 0) if isinstance(ran, str) else ran
        exchange_s = link.exchange_s(link.block_bytes + _COAP_BYTES, _ANSWER_BYTES)
        expected_s = theory_s(link, size, loss, 1.5 * exchange_s if way == "push" else 2.0)
        rows.append(Row(f"s-{way}", name, loss, size, seconds, air_bytes, expected_s, failures))
    return rows


def _combinations(is_quick: bool) -> list[tuple[str, float, int]]:  # noqa: FBT001 - of this file's own
    sizes, losses = (SIZES[:1], LOSSES[::2]) if is_quick else (SIZES, LOSSES)
    names = [name for name in LINKS if name != "loopback"]  # takes no time on a clock without computing
    return [(name, loss, size) for name in names for loss in losses for size in sizes]


def _timers(report: Report, *, is_quick: bool) -> None:
    """Compare the tuned timer with the default one."""
    for name in ("rtt30", "wifi", "ble", "802.15.4"):
        seeds = 3 if is_quick else 5
        tuned = virtual_row(name, 0.05, SIZES[0], seeds=seeds)
        default = virtual_row(name, 0.05, SIZES[0], seeds=seeds, line=UNTUNED)
        report.add(f"tuned_to_default_timer_5pct_{name}", tuned.seconds / default.seconds, ("<=", 0.3))


def _in_theory(report: Report) -> None:
    """What the code does when computing takes no time: blocks per round trip, and whether pushes wait for each other."""
    link, size = LINKS["rtt30"], SIZES[0]
    row = virtual_row("rtt30", 0.0, size, seeds=1)
    report.add(
        "virtual_blocks_per_round_trip", math.ceil(size / link.block_bytes) * link.rtt_s / row.seconds, (">=", 0.9)
    )
    one_s = virtual_row("ble", 0.0, size, seeds=1).seconds
    many_s = run_virtual(many_virtual(LINKS["ble"], size, devices=50))
    report.add("virtual_ble_50_pushes_beside_one", many_s / one_s, ("<=", 1.15))


async def many_virtual(link: Link, size_bytes: int, *, devices: int) -> float:
    """Push to many boards at once, each on a link of its own; return the seconds of the slowest."""
    async with push_gateway() as gateway, asyncio.TaskGroup() as tasks:
        boards = [
            memory_device(options(gateway.port, link, 0.0, seed=index, device=f"board-{index}"), link)
            for index in range(devices)
        ]
        for index, board in enumerate(boards):
            tasks.create_task(board.run(), name=f"board-{index}")
        for index in range(devices):
            await gateway.born(f"board-{index}")
        slowest_s = await pushed_real(gateway, devices, size_bytes)
        for board in boards:
            board.stop()
        return slowest_s


def _real_rows(report: Report, *, is_quick: bool) -> list[Row]:
    rows = []
    for name in ("loopback", "rtt30", "wifi"):
        for size in SIZES[:1] if is_quick else SIZES:
            seconds, air_bytes = asyncio.run(real(name, size, rounds=3))
            rows.append(Row("real", name, 0.0, size, seconds, air_bytes, theory_s(LINKS[name], size, 0.0, 2.0)))
            blocks = math.ceil(size / LINKS[name].block_bytes)
            if name == "rtt30":
                goal = (">=", 0.9) if size == SIZES[0] else None
                report.add(f"real_blocks_per_round_trip_{size // 1000}kB", blocks * LINKS[name].rtt_s / seconds, goal)
    _against_bare(report, rounds=3 if is_quick else 5)
    _many(report, devices=50)
    return rows


def _against_bare(report: Report, *, rounds: int) -> None:
    """Interleave the link with a bare PUT, on loopback, without a relay's process between: the board's own is in both."""
    size, ratios = SIZES[-1], []
    for _ in range(rounds):
        alone_s = asyncio.run(bare(size, rounds=1))
        linked_s = asyncio.run(direct(size))
        ratios.append(alone_s / linked_s)
    report.add("loopback_rate_beside_bare_aiocoap", statistics.median(ratios), (">=", 0.9))


async def direct(size_bytes: int) -> float:
    """Push in real time over loopback to a board in a process of its own, nothing between."""
    with ExitStack() as children:
        async with push_gateway() as gateway:
            where = ["--gateway", f"127.0.0.1:{gateway.port}"]
            children.enter_context(Child("bench.push_boards", "--devices", "1", *where))
            await gateway.born("board-0")
            return await gateway.push("board-0", random.randbytes(size_bytes))


def _many(report: Report, *, devices: int) -> None:
    """Many boards at once, each on a link of its own that limits it."""
    one_s, _ = asyncio.run(real("ble", SIZES[0]))
    many_s, _ = asyncio.run(real("ble", SIZES[0], devices=devices))
    report.add("real_ble_one_push_s", one_s)
    report.add(f"real_ble_{devices}_pushes_beside_one", many_s / one_s, ("<=", 1.15))


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(
        f"{'':8}{'link':<10}{'loss':>5}{'bytes':>9}{'seconds':>10}{'theory':>10}{'ratio':>7}{'on air':>10}{'air/byte':>9}"
    )
    for row in rows:
        ratio = f"{row.seconds / row.theory_s:7.2f}" if row.theory_s else f"{'-':>7}"
        air = f"{row.air_bytes:>10,}{row.air_bytes / row.size_bytes:9.2f}"
        seconds = f"{row.seconds:10.2f}{row.theory_s:10.2f}"
        failed = f"   failed {len(row.failures)}: {', '.join(set(row.failures))}" if row.failures else ""
        print(f"{row.kind:<8}{row.link:<10}{row.loss:>5.0%}{row.size_bytes:>9,}{seconds}{ratio}{air}{failed}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="54 KB, two losses, one seed: a minute instead of five")
    parts = ("all", "links", "timers", "real")
    parser.add_argument(
        "--part", choices=parts, default="all", help="only the table of links, the timers, or real time"
    )
    arguments = parser.parse_args()
    report = Report("push" if arguments.part == "all" else f"push-{arguments.part}")
    show(measure(report, is_quick=arguments.quick, part=arguments.part))
    report.finish()


if __name__ == "__main__":
    main()
