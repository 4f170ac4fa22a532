"""The soak of the node's runtime (tests/soak.py) at full length: no failure, no growth."""

import asyncio
import os
import time
from statistics import median, quantiles

from bench.common import Report
from tests.soak import soak


def main() -> None:
    """Run with the numbers of the environment and report."""
    requests, swaps = int(os.environ.get("REQUESTS", "1000000")), int(os.environ.get("SWAPS", "1000"))
    started = time.monotonic()
    run = asyncio.run(soak(requests, swaps))
    for failure in run.failures[:5]:
        print("failed:", failure)
    report = Report("soak-node")
    report.add("requests", run.served + len(run.failures))
    report.add("swaps", run.swaps)
    report.add("failures", len(run.failures), ("<=", 0))
    report.add("memory_growth_percent", 100 * run.growth, ("<=", 1.0))
    report.add("memory_mb", run.memory_bytes[-1] / 1e6)
    latencies_ms = [1000 * each for each in run.latencies_s if each]
    report.add("p50_ms", median(latencies_ms))
    report.add("p99_ms", quantiles(latencies_ms, n=100)[-1])
    report.add("took_s", time.monotonic() - started)
    report.finish()


if __name__ == "__main__":
    main()
