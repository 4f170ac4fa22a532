"""What one inference on a device costs over CoAP: round trips of 100 ms, results read or notified, with loss.

`make bench-runs`. The real link and the real simulated board, sockets and relay included, on a clock that jumps from timer to
timer (`bench/virtual.py`): computing takes no time, so what is left is the link's. `read`: the board does not observe, as before
results were notified.
"""

import asyncio
import statistics
import sys
from dataclasses import dataclass

from bench.common import Report
from bench.memory_board import memory_device
from bench.push_gateway import push_gateway
from bench.virtual import run_virtual
from gatewayd.core.names import DeviceId
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.registration import Terms
from gatewayd.sim.relay import Link

_LINK = Link("100 ms", 0.1, 0.0, 1024, 28)
_LOSSES = (0.0, 0.05, 0.10)
_RUNS, _SEEDS = 100, (1, 2, 3)
_BOARD = DeviceId("board-0")


@dataclass(frozen=True, slots=True)
class Row:
    """Median and 95th percentile of the round trips of one run, and bytes on air for each."""

    median: float
    p95: float
    air_bytes: float


async def _measured(loss: float, seed: int, *, observes: bool) -> tuple[list[float], int]:
    """Return the seconds of each run, the first included, and the bytes on air of all."""
    loop = asyncio.get_running_loop()
    async with push_gateway() as gateway:
        options = Lwm2mOptions(
            "127.0.0.1", gateway.port, Terms(_BOARD, 86_400), _LINK.name, loss=loss, seed=seed, observes=observes
        )
        device = memory_device(options, _LINK)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(device.run(), name="board")
            await gateway.born(_BOARD)
            await gateway.push(_BOARD, bytes(2048))
            taken, before = [], device.air_bytes()
            for _ in range(_RUNS):
                began_s = loop.time()
                await gateway.link.run_model(_BOARD, slot=0, version=1, content=b"in", sensor=0, timeout_s=60)
                taken.append(loop.time() - began_s)
            device.stop()
            await running
    return taken, device.air_bytes() - before


def _row(loss: float, *, observes: bool) -> Row:
    found = [run_virtual(_measured(loss, seed, observes=observes)) for seed in _SEEDS]
    trips = sorted(seconds / _LINK.rtt_s for taken, _ in found for seconds in taken)
    air = sum(air for _, air in found) / len(trips)
    return Row(statistics.median(trips), trips[int(0.95 * len(trips))], air)


def main() -> int:
    """Print a table; return the exit code."""
    report = Report("runs")
    print(f"{'loss':>5} {'result':<9} {'round trips':>11} {'p95':>6} {'bytes on air':>12}")
    for loss in _LOSSES:
        for how, observes in (("read", False), ("notified", True)):
            row = _row(loss, observes=observes)
            print(f"{loss:>5.0%} {how:<9} {row.median:>11.2f} {row.p95:>6.2f} {row.air_bytes:>12.0f}")
            name = f"{how}_{loss * 100:.0f}pct"
            goal = ("<=", 2.1) if observes and loss == 0.0 else None
            report.add(f"{name}_round_trips", row.median, goal)
            report.add(f"{name}_round_trips_p95", row.p95)
            report.add(f"{name}_air_bytes", row.air_bytes)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
