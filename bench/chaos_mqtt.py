"""Commands over MQTT through everything that can go wrong: each is obeyed once, and none that was acknowledged is lost.

    python -m bench.chaos_mqtt [--commands N] [--seed N] [--forget]

A real daemon and a real mosquitto with a proxy between them (`bench.chaos_proxy`) that duplicates, drops, half-opens and
resets; the broker restarts, the daemon is killed (SIGKILL), retained commands are planted. The commands move aliases: each
move is a row with the command's name in it, so that one obeyed twice is seen. The state lies in memory (/dev/shm):
processes are killed here, power is cut in `prove-files` and `prove-registry`. `--forget` switches the daemon's memory
of commands off: the proof then has to fail.
"""

import argparse
import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos_driver import Driver
from bench.chaos_proxy import Faults, Proxy
from bench.common import ROOT, Report
from gatewayd.adapters.store import open_store
from gatewayd.core.model import Signature, Structure, Variant, Version
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.tensor import DType, TensorSpec
from tests.broker import Broker

NODE = "chaos"
MODELS = 6
SUBSCRIPTIONS = 3  # inferences and devices on the first connection, commands on the second
_PATIENCE_S = 90.0


@dataclass
class Found:
    """What the proof looks at in the end, over all phases."""

    commands: int = 0
    twice: int = 0
    lost: int = 0
    retained: int = 0
    retained_twice: int = 0
    stolen: int = 0
    other_answers: int = 0
    kills: int = 0
    broker_restarts: int = 0
    back_s: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was obeyed twice, lost or obeyed that must not be."""
        return not (
            self.twice or self.lost or self.retained or self.retained_twice or self.stolen or self.other_answers
        )


@dataclass
class Plan:
    """One phase: how many commands, by which version of MQTT, and how often something is killed."""

    commands: int
    version: str = "5"
    kill_every_s: float = 10.0
    restart_every_s: float = 20.0
    seed: int = 1
    forget: bool = False
    calm_s: float = 12.0
    faults: Faults = field(default_factory=Faults)


class Daemon:
    """The daemon as a child process that is killed and started again."""

    def __init__(self, config: Path, log: Path, *, forget: bool) -> None:
        module = "bench.chaos_daemon" if forget else "gatewayd"
        self._command = [sys.executable, "-m", module, "run", "--config", str(config)]
        self._log = log.open("ab")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start; it serves when its subscriptions stand."""
        self._child = subprocess.Popen(self._command, stderr=self._log, stdout=self._log, cwd=ROOT)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def end(self) -> int:
        """SIGTERM; return the exit code."""
        assert self._child is not None
        self._child.terminate()
        try:
            return self._child.wait(30)
        finally:
            self._log.close()


async def run_phase(plan: Plan, folder: Path, found: Found) -> None:
    """Run one phase in `folder` and add what came of it to `found`."""
    broker = Broker(
        folder, lines=["persistence_location " + str(folder) + "/", "persistence true", "max_queued_messages 0"]
    )
    broker.start()
    proxy = Proxy(broker.port, seed=plan.seed, faults=plan.faults)
    began = time.monotonic()
    try:
        async with proxy.running():
            config = _config(folder, proxy.port, version=plan.version)
            (folder / "data").mkdir()
            await _models(folder / "data")
            daemon = Daemon(config, folder / "daemon.log", forget=plan.forget)
            daemon.start()
            await _subscribed(proxy, since=began)
            driver = Driver(
                broker.port,
                f"gatewayd/{NODE}",
                total=plan.commands,
                models=MODELS,
                seed=plan.seed,
                is_v5=plan.version == "5",
            )
            try:
                await _rage(plan, broker, proxy, daemon, driver, found)
            except AssertionError as error:
                error.add_note((folder / "daemon.log").read_text()[-4000:])
                raise
            finally:
                driver.close()
                daemon.end()
    finally:
        broker.stop()
    found.seconds += time.monotonic() - began
    _judge(folder, proxy, driver, found)


async def _rage(plan: Plan, broker: Broker, proxy: Proxy, daemon: Daemon, driver: Driver, found: Found) -> None:
    chance = random.Random(plan.seed + 1)
    kill_at = time.monotonic() + chance.expovariate(1 / plan.kill_every_s)
    restart_at = time.monotonic() + chance.expovariate(1 / plan.restart_every_s)
    plant_at = 0.0
    deadline = time.monotonic() + _PATIENCE_S
    left = -1
    async with _ticking(driver):
        while not driver.is_done:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            if driver.sent - len(driver.waiting) != left:
                left, deadline = driver.sent - len(driver.waiting), now + _PATIENCE_S
            assert now < deadline, f"stuck: {len(driver.waiting)} unanswered of {driver.sent}"
            if now > plant_at:
                driver.plant()
                plant_at = now + 2
            if now > kill_at:
                daemon.kill()
                await asyncio.sleep(chance.random())
                daemon.start()
                found.kills += 1
                kill_at = now + chance.expovariate(1 / plan.kill_every_s)
            if now > restart_at:
                found.back_s.append(await _restart(broker, proxy, chance))
                found.broker_restarts += 1
                restart_at = time.monotonic() + chance.expovariate(1 / plan.restart_every_s)
        await _calm(proxy, driver, plan.calm_s)


async def _restart(broker: Broker, proxy: Proxy, chance: random.Random) -> float:
    """Restart the broker while nothing else happens; return how long it took until all subscriptions stood again."""
    proxy.faults.is_quiet = True
    await _whole(proxy)  # what a kill or a reset has begun is not to be measured
    await asyncio.to_thread(broker.stop, signal.SIGKILL if chance.random() < 0.2 else signal.SIGTERM)
    await asyncio.sleep(3 * chance.random())
    await asyncio.to_thread(broker.start)
    listening = time.monotonic()
    back = await _subscribed(proxy, since=listening)
    proxy.faults.is_quiet = False
    return back - listening


async def _calm(proxy: Proxy, driver: Driver, calm_s: float) -> None:
    """Let what is under way arrive: what was published once has no second chance but the broker's."""
    proxy.faults.is_quiet = True
    quiet_since, left = time.monotonic(), -1
    while time.monotonic() - quiet_since < calm_s:
        await asyncio.sleep(0.1)
        if len(driver.unanswered()) != left:
            quiet_since, left = time.monotonic(), len(driver.unanswered())
        if not left:
            return


async def _whole(proxy: Proxy) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while proxy.subscriptions() < SUBSCRIPTIONS:
        await asyncio.sleep(0.01)
        assert time.monotonic() < deadline, "the gateway did not come back"


async def _subscribed(proxy: Proxy, *, since: float) -> float:
    """Wait until all subscriptions stand; return when the last of them did."""
    await _whole(proxy)
    return max(since, proxy.seen.subscribed_at[-1])


@asynccontextmanager
async def _ticking(driver: Driver) -> AsyncIterator[None]:
    async def tick() -> None:
        while True:
            driver.tick()
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(tick(), name="driver")
        try:
            yield
        finally:
            task.cancel()


def _judge(folder: Path, proxy: Proxy, driver: Driver, found: Found) -> None:
    with sqlite3.connect(folder / "data" / "gatewayd.sqlite") as store:
        rows = dict(store.execute("SELECT why, count(*) FROM alias_moves GROUP BY why").fetchall())
    found.commands += driver.sent
    found.twice += sum(count > 1 for why, count in rows.items() if why.startswith("cmd-"))
    answered = {name for name in driver.finished if name not in rows}
    refused = {name.decode() for name in proxy.seen.refused}
    acknowledged = {name.decode() for name in proxy.seen.acknowledged} - rows.keys() - refused
    found.lost += len(answered | acknowledged)
    kept = [count for why, count in rows.items() if why.startswith("kept-")]
    found.retained += len(kept) if driver.is_v5 else 0
    found.retained_twice += sum(count > 1 for count in kept)
    found.stolen += sum(why.startswith("evil-") for why in rows)
    found.other_answers += driver.counts["other_answers"]
    for name, count in (driver.counts + proxy.seen.counts).items():
        found.counts[name] = found.counts.get(name, 0) + count
    found.counts["planted"] = found.counts.get("planted", 0) + len(driver.retained)
    found.counts["once_unanswered"] = found.counts.get("once_unanswered", 0) + len(driver.unanswered())


async def _models(data: Path) -> None:
    """Write models with two versions each straight into the store; nothing on the node runs them, and nothing has to."""
    spec = TensorSpec("x", DType.INT8, (1, 4))
    structure = Structure((), (spec,), (spec,), macs=1, weights_bytes=1)
    variant = Variant("tflite-int8", Digest("0" * 64), 1, structure, ())
    signature = Signature((spec,), (spec,))
    async with open_store(data / "gatewayd.sqlite") as store:
        for model in range(MODELS):
            for number in (1, 2):
                version = Version(ModelName(f"m{model}"), number, signature, (variant,), 1.7e9, "")
                await store.add_version(version, moves=[])


def _config(folder: Path, broker_port: int, *, version: str) -> Path:
    path = folder / "gatewayd.yaml"
    path.write_text(
        f"node: {{name: {NODE}, data_dir: {folder / 'data'}}}\n"
        f'mqtt: {{port: {broker_port}, version: "{version}", keepalive_s: 5, commands_kept: 1000000}}\n'
        "http: {port: 0}\ncoap: {enabled: false}\nlwm2m: {enabled: false}\nlog: {level: warning}\n"
    )
    return path


def chaos(plans: list[Plan]) -> Found:
    """Run phases one after the other; return what came of them."""
    found = Found()
    memory = Path("/dev/shm")  # noqa: S108 - see above
    for plan in plans:
        place = memory if memory.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="gatewayd-chaos-", dir=place) as name:
            asyncio.run(run_phase(plan, Path(name), found))
    return found


def main() -> int:
    """Run; return 0 when it ran, whatever it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=105_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument(
        "--forget", action="store_true", help="switch the memory of commands off: the proof has to fail"
    )
    arguments = parser.parse_args()
    print(f"{arguments.commands} commands, seed {arguments.seed}{', forgetful' if arguments.forget else ''}")
    most = arguments.commands * 3 // 4
    shares = [("5", most), ("3.1.1", arguments.commands - most)]
    plans = [
        Plan(count, version=version, seed=arguments.seed + index, forget=arguments.forget)
        for index, (version, count) in enumerate(shares)
    ]
    found = chaos(plans)
    _report(found, forget=arguments.forget).finish()
    return 0


def _report(found: Found, *, forget: bool) -> Report:
    report = Report("chaos_mqtt_forgetful" if forget else "chaos_mqtt")
    report.add("commands", found.commands, (">=", 100_000))
    report.add("executed_twice", found.twice, (">=", 1) if forget else ("<=", 0))
    report.add("acknowledged_and_lost", found.lost, ("<=", 0))
    report.add("retained_obeyed_on_5", found.retained, ("<=", 0))
    report.add("retained_obeyed_twice_on_311", found.retained_twice, ("<=", 0))
    report.add("stolen_names_obeyed", found.stolen, (">=", 1) if forget else ("<=", 0))
    report.add("repetitions_answered_otherwise", found.other_answers, (">=", 1) if forget else ("<=", 0))
    report.add("daemon_kills", found.kills)
    report.add("broker_restarts", found.broker_restarts)
    if found.back_s:
        report.add("subscriptions_back_worst_s", max(found.back_s), ("<=", 2.0))
    report.add("seconds", found.seconds)
    for name, count in sorted(found.counts.items()):
        report.add(f"count_{name}", count)
    return report


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
