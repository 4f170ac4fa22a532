"""`make bench-lwm2m`: the daemon with 1,000 devices over LwM2M: its loop, its memory, and how soon it answers.

The whole daemon runs in this process, so that its event loop can be watched from within; the devices are `bench.lwm2m_fleet`, a
process of its own, over loopback. Loop delay is how late a callback comes that was due 5 ms after the one before.
"""

import argparse
import asyncio
import gc
import json
import logging
import re
import statistics
import sys
import tempfile
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import ROOT, Report
from gatewayd import daemon
from gatewayd.config import Config, parse_config

PROBE_S = 0.005
PROFILE = """
board: stock
cpu: cortex-m4
clock_mhz: 64
ram_bytes: 262144
flash_bytes: 1048576
runtime: stock
macs_per_s: 10000000
energy_nj_per_mac: 1.0
invoke_s: 0.001
source: made up for a benchmark
lwm2m: {endpoint: "stock-*", slot_bytes: 131072, arena_bytes: 131072, block_bytes: 256}
"""


class Probe:
    """Measures how late the loop is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.late_ms: list[float] = []
        self._due_s = 0.0
        self._again()

    def _again(self) -> None:
        self._due_s = self._loop.time() + PROBE_S
        self._loop.call_at(self._due_s, self._rang)

    def _rang(self) -> None:
        self.late_ms.append((self._loop.time() - self._due_s) * 1000)
        self._again()

    def take(self) -> tuple[float, float, float]:
        """Return p50, p99 and the worst since the last time, in ms."""
        cuts = statistics.quantiles(self.late_ms, n=100)
        worst = max(self.late_ms)
        self.late_ms.clear()
        return cuts[49], cuts[98], worst


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def made_config(folder: Path) -> Config:
    (folder / "profiles").mkdir()
    (folder / "profiles" / "stock.yaml").write_text(PROFILE)
    text = (
        f"node: {{name: bench, data_dir: {folder / 'data'}}}\nhttp: {{port: 0}}\ncoap: {{port: 0}}\nlog: {{level: warning}}\n"
        f"devices: {{join: open, max_devices: 3000, profiles_dir: {folder / 'profiles'}}}\n"
        "lwm2m: {max_registrations: 3000, newcomers_per_s: 5000}\npushes: {automatic: false, max_concurrent: 16}\n"
        "mqtt: {port: 1}\n"
    )
    (folder / "gatewayd.yaml").write_text(text)
    return parse_config(text, source="bench", folder=folder)


class Ports(logging.Handler):
    """Reads the ports from the line that says that the daemon is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.found: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "ready" and not self.found.done():
            words = " ".join(f"{key}={value}" for key, value in vars(record).items() if isinstance(value, int | dict))
            self.found.set_result({key: int(value) for key, value in re.findall(r"'?(\w+_port)'?[=:] ?(\d+)", words)})


def add_models(http_port: int) -> None:
    for version in (1, 2):
        files = [
            b64encode(each.read_bytes()).decode()
            for each in sorted((ROOT / f"models/speaker/v{version}").glob("*.tflite"))
        ]
        labels = [f"speaker-{number}" for number in range(1, 10)]
        body = {"model": "speaker", "files": files, "labels": labels, "preprocessing": "lpc12@1"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{http_port}/api/models/add",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
            assert answer.status == 200


async def measure(arguments: argparse.Namespace, report: Report, ports: dict[str, int]) -> None:
    await asyncio.to_thread(add_models, ports["http_port"])
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.lwm2m_fleet", str(ports["coap_port"]), str(ports["http_port"]),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    stdin, stdout = child.stdin, child.stdout
    assert stdin is not None
    assert stdout is not None

    async def told(*words: object) -> dict[str, Any]:
        stdin.write((" ".join(map(str, words)) + "\n").encode())
        return dict(json.loads(await stdout.readline()))

    gc.collect()
    gc.freeze()
    before_mb, probe = rss_mb(), Probe()
    report.add("register_seconds", (await told("register", arguments.devices))["seconds"])
    await asyncio.sleep(3)
    report.add("registering_loop_delay_p99_ms", probe.take()[1])
    registered_mb = rss_mb()
    report.add("memory_per_device_kb", (registered_mb - before_mb) * 1024 / arguments.devices)

    calm = await told("calm", arguments.seconds, 10)
    p50, p99, worst = probe.take()
    report.add("updates_while_pushing", calm["updates"])
    report.add("pushes_while_updating", calm["pushes"])
    report.add("loop_delay_p50_ms", p50)
    report.add("loop_delay_p99_ms", p99, ("<=", 20))
    report.add("loop_delay_worst_ms", worst)

    calm_mb = rss_mb()
    flood = await told("flood", arguments.rate, arguments.seconds)
    report.add("flood_answered_share", flood["answered"] / flood["sent"], (">=", 0.999))
    report.add("flood_p50_ms", flood["p50_ms"])
    report.add("flood_p99_ms", flood["p99_ms"])
    report.add("flood_p99_over_p50", flood["p99_ms"] / flood["p50_ms"], ("<=", 10))
    report.add("flood_loop_delay_p99_ms", probe.take()[1])
    flooded_mb = rss_mb()
    await told("flood", arguments.rate, arguments.seconds / 2)
    report.add("memory_of_the_first_flood_mb", flooded_mb - calm_mb)
    report.add("memory_of_the_second_flood_mb", rss_mb() - flooded_mb, ("<=", 5))
    report.add("answer_after_100_vanished_ms", (await told("vanish", 100))["next_answer_ms"], ("<=", 1000))
    stdin.close()
    await child.wait()


async def run(arguments: argparse.Namespace) -> None:
    report = Report("lwm2m")
    with tempfile.TemporaryDirectory() as folder:
        ports = Ports()
        logger = logging.getLogger("gatewayd.daemon")
        logger.addHandler(ports)
        logger.setLevel(logging.INFO)
        serve: Callable[[Config, Path], Any] = daemon._serve  # noqa: SLF001 - the daemon without its own event loop
        served = asyncio.get_running_loop().create_task(
            serve(made_config(Path(folder)), Path(folder) / "gatewayd.yaml"), name="daemon"
        )
        await measure(arguments, report, await ports.found)
        served.cancel()
        await asyncio.gather(served, return_exceptions=True)
    report.finish()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=1000)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
