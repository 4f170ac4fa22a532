"""What a bad model does to a good one: one that kills its worker on every call, and one that is stuck for a second.

Real workers whose engine does what its input says (tests/saboteur.py). The good model is asked at a steady rate, alone and
beside the bad one in turns; the lag of the event loop is measured meanwhile.
"""

import asyncio
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

from bench.common import Report
from gatewayd.adapters.eager_loop import EagerLoop
from gatewayd.adapters.worker_seat import WorkerLimits
from gatewayd.adapters.workers import Workers
from gatewayd.core.errors import GatewayError
from gatewayd.core.model import Variant
from tests.saboteur import Order, order, saboteur, saboteur_variant

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS", "4"))
RATE = 200.0
_KILLS_PER_S = 50.0


class Bench:
    def __init__(self, workers: Workers, good: Variant, bad: Variant) -> None:
        self.workers, self.good, self.bad = workers, good, bad

    async def quiet(self) -> None:
        await asyncio.Event().wait()

    async def killer(self, *, is_released: bool) -> None:
        """Ask the bad model 50 times a second; `is_released` lets it out of quarantine each time, so that it really kills."""
        while True:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ask_bad(Order.CRASH), name="bad")
                tasks.create_task(asyncio.sleep(1 / _KILLS_PER_S), name="pace")
            if is_released:
                self.workers.release(self.bad.digest)

    async def stuck(self) -> None:
        """Keep the bad model stuck, a second at a time."""
        while True:
            await self._ask_bad(Order.SLEEP, 1.0)

    async def _ask_bad(self, what: Order, argument: float = 0.0) -> None:
        with suppress(GatewayError):
            await self.workers.run(self.bad, order(what, argument), timeout_s=5)

    async def latencies_ms(self) -> list[float]:
        """Ask the good model at a steady rate for a while."""
        samples, due = [], time.perf_counter()
        for _ in range(int(SECONDS * RATE)):
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            await self.workers.run(self.good, order(Order.COUNT), timeout_s=5)
            samples.append((time.perf_counter() - started) * 1e3)
        return samples


async def lag_ms(into: list[float]) -> None:
    """Note how late the loop wakes a sleeper."""
    while True:
        started = time.perf_counter()
        await asyncio.sleep(0.005)
        into.append((time.perf_counter() - started - 0.005) * 1e3)


async def measured() -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = replace(WorkerLimits(), memory_limit_bytes=None, is_eager=True)
        async with (
            Workers(
                lambda digest: folder / digest, (saboteur(folder),), clock=time.monotonic, limits=limits
            ) as workers,
            asyncio.TaskGroup() as tasks,
        ):
            bench = Bench(workers, saboteur_variant(folder, "good"), saboteur_variant(folder, "bad"))
            await workers.preload(bench.good, timeout_s=20)
            neighbours = {
                "quiet": bench.quiet,
                "killer": lambda: bench.killer(is_released=False),
                "killer_never_quarantined": lambda: bench.killer(is_released=True),
                "stuck": bench.stuck,
            }
            for _ in range(ROUNDS):
                for what, neighbour in neighbours.items():
                    workers.release(bench.bad.digest)
                    lags: list[float] = []
                    task = tasks.create_task(neighbour(), name=what)
                    watch = tasks.create_task(lag_ms(lags), name="lag")
                    samples = await bench.latencies_ms()
                    task.cancel()
                    watch.cancel()
                    for figure, value in (
                        ("p50_ms", median(samples)),
                        ("p99_ms", quantiles(samples, n=100)[-1]),
                        ("lag_p99_ms", quantiles(lags, n=100)[-1]),
                    ):
                        figures.setdefault(f"{what}_{figure}", []).append(value)
    return figures


def main() -> None:
    with asyncio.Runner(loop_factory=EagerLoop) as runner:
        runs = runner.run(measured())
    report = Report("isolation")
    for name, values in runs.items():
        report.add(name, median(values), ("<=", 5.0) if name == "stuck_lag_p99_ms" else None)
    for name, what, figure, bound in (
        ("killer_p99_ratio", "killer", "p99_ms", 2.0),
        ("killer_never_quarantined_p99_ratio", "killer_never_quarantined", "p99_ms", None),
        ("stuck_p50_ratio", "stuck", "p50_ms", 1.3),
        ("stuck_lag_ratio", "stuck", "lag_p99_ms", None),
    ):
        ratio = median(a / b for a, b in zip(runs[f"{what}_{figure}"], runs[f"quiet_{figure}"], strict=True))
        report.add(name, ratio, ("<=", bound) if bound else None)
    report.finish()


if __name__ == "__main__":
    main()
