"""Does the simulator agree with the real daemon? The same scenarios, told to `gatewayd simulate` and played on real processes.

On the real side: a daemon with its store and HTTP edge, mosquitto, and simulated boards over real MQTT and CoAP, asked at the
same seeded moments; where each request ran is read from the daemon's decision log. On the other: the command `gatewayd simulate`
on a file made from the boards' true figures. What the machine adds (HTTP, broker, Python, flash files) is measured once, on other
boards and links than those of the scenarios, and told to the simulator as `overheads`; nothing is fitted per scenario.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.agreement_calibration import calibrated
from bench.agreement_cases import CASES, Case, Machine, scenario_text
from bench.agreement_real import Lateness, Moved, Rig, Seen, asked, target_of
from bench.common import BUILD, ROOT, Report
from gatewayd.core.replay import Logged
from gatewayd.simulate.scenario import parse_scenario
from gatewayd.simulate.world import World
from tests.broker import Broker

# A scenario during which the machine stood still for so long, or whose timers were so late on average, is played again, so often.
_STALL_S, _LATE_MS, _REPEATS = 1.0, 4.0, 1
HEAD = (
    f"{'scenario':<44}{'asked':>5}{'agree':>8}{'on dev':>7}{'sim':>5}{'lost':>6}{'sim':>4}"
    f"{'real ms':>9}{'sim ms':>9}{'ratio':>7}{'late':>6}"
)


@dataclass(frozen=True)
class Simulated:
    """What `gatewayd simulate` said: each request's place (None: unserved) and ms, and each push's start and end."""

    places: list[str | None]
    latencies_ms: list[float | None]
    pushes: list[tuple[str, float, float]]


@dataclass(frozen=True)
class Played:
    """What was seen on real processes."""

    seen: list[Seen]
    moves: list[Moved]
    logged: dict[str, Logged]
    lateness: Lateness

    @property
    def is_disturbed(self) -> bool:
        """Whether the machine did something else meanwhile: it stood still, or was late all the time."""
        return self.lateness.most_s > _STALL_S or self.lateness.mean_ms > _LATE_MS


@dataclass(frozen=True)
class Compared:
    """One scenario on both sides. Latencies are means over the requests that both served, in ms."""

    case: Case
    requests: int
    agreeing: int
    real_ms: float
    simulated_ms: float
    on_device: tuple[int, int]
    unserved: tuple[int, int]
    real_pushes: list[tuple[str, float, float | None]]
    simulated_pushes: list[tuple[str, float, float]]
    undecided: int
    late_ms: float
    repeats: int

    @property
    def share(self) -> float:
        """The share of requests that ran at the same place."""
        return self.agreeing / self.requests

    @property
    def ratio(self) -> float:
        """Simulated mean latency over the real one."""
        return self.simulated_ms / self.real_ms if self.real_ms else 1.0


def simulated(path: Path, robustness: float) -> Simulated:
    """Run the command on a file."""
    lines = path.with_suffix(".jsonl")
    command = [sys.executable, "-m", "gatewayd", "simulate", str(path), "--policy", "gatewayd", "--json"]
    command += ["--requests", str(lines), "--robustness", str(robustness)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    (told,) = json.loads(done.stdout)["policies"]
    # Requests are told when they are over; the scenario asks in this order.
    found = sorted(map(json.loads, lines.read_text().splitlines()), key=lambda each: (each["at_s"], each["device"]))
    pushes = [(each["device"], each["start_s"], each["end_s"]) for each in told["pushes"]]
    return Simulated([each["ran_on"] for each in found], [each["latency_ms"] for each in found], pushes)


def played(case: Case, folder: Path, broker_port: int, node: str, path: Path) -> Played:
    """Play it on real processes."""
    world = World(parse_scenario(path.read_text(), source=str(path)))
    rig = Rig(folder, node, broker_port, robustness=case.robustness, horizon_s=case.horizon_s)
    with rig:
        for name in case.models:
            rig.add_model(name)
        for board in case.boards:
            rig.add_board(board)
        rig.wait_for_boards()
        for name in case.models:
            for _ in range(3):  # a worker starts with the first request
                rig.infer_raw(name)
        seen, moves, lateness = asyncio.run(asked(rig, world.asks, case))
        rig.stop()
        return Played(seen, moves, rig.decisions(), lateness)


def compared(case: Case, real: Played, told: Simulated, *, repeats: int = 0) -> Compared:
    """Hold one against the other, request by request."""
    places = [_place(real.logged.get(f"r{each.number}")) for each in real.seen]
    pairs = [
        (1000 * each.latency_s, simulated_ms)
        for each, simulated_ms in zip(real.seen, told.latencies_ms, strict=True)
        if each.status == 200 and simulated_ms is not None
    ]
    seen_ms, told_ms = (statistics.fmean(each) for each in zip(*pairs, strict=True))
    return Compared(
        case,
        len(real.seen),
        sum(one == another for one, another in zip(places, told.places, strict=True)),
        seen_ms,
        told_ms,
        (_on_device(places), _on_device(told.places)),
        (places.count(None), told.places.count(None)),
        _pushes(real.moves),
        told.pushes,
        sum(f"r{each.number}" not in real.logged for each in real.seen),
        real.lateness.mean_ms,
        repeats,
    )


def _place(logged: Logged | None) -> str | None:
    target = target_of(logged)
    return None if target is None else str(target)


def _on_device(places: Sequence[str | None]) -> int:
    return sum(each is not None and each != "node" for each in places)


def _pushes(moves: Sequence[Moved]) -> list[tuple[str, float, float | None]]:
    """Return device, start, and when the model answered there."""
    first: dict[int, Moved] = {}
    trial: dict[int, float] = {}
    for each in moves:
        first.setdefault(each.push, each)
        if each.state == "trial":
            trial.setdefault(each.push, each.at_s)
    # One that ends at once, as the device says that it has the model already, is none.
    carried = {each.push for each in moves if each.state == "transferring"}
    return [(each.device, each.at_s, trial.get(push)) for push, each in first.items() if push in carried]


def one(
    case: Case, number: int, folder: Path, broker_port: int, machine: Machine, *, repeats: int = _REPEATS
) -> Compared:
    """Play one scenario on both sides."""
    for repeat in range(repeats + 1):
        at = folder / f"case-{number}-{repeat}"
        at.mkdir()
        path = at / "scenario.yaml"
        path.write_text(scenario_text(case, machine))
        told = simulated(path, case.robustness)
        real = played(case, at, broker_port, f"gateway{number % 10}", path)
        _keep(at / "requests.txt", real, told)
        if not real.is_disturbed:
            break
    return compared(case, real, told, repeats=repeat)


def _keep(path: Path, real: Played, told: Simulated) -> None:
    """Write every request on both sides, for who wants to know why."""
    lines = ["number place ms simulated ms"]
    for each, place, simulated_ms in zip(real.seen, told.places, told.latencies_ms, strict=True):
        ran_on = _place(real.logged.get(f"r{each.number}"))
        lines.append(f"{each.number} {ran_on} {1000 * each.latency_s:.1f} {place} {simulated_ms}")
    path.write_text("\n".join(lines) + "\n")


def told_of(found: Compared) -> str:
    """Return one scenario's lines."""
    real = " ".join(
        f"{device} {start:.1f}–{end:.1f}" if end else f"{device} {start:.1f}–?"
        for device, start, end in found.real_pushes
    )
    other = " ".join(f"{device} {start:.1f}–{end:.1f}" for device, start, end in found.simulated_pushes)
    return (
        f"{found.case.name:<44}{found.requests:>5}{found.share:>8.1%}{found.on_device[0]:>7}{found.on_device[1]:>5}"
        f"{found.unserved[0]:>6}{found.unserved[1]:>4}{found.real_ms:>9.1f}{found.simulated_ms:>9.1f}{found.ratio:>7.3f}{found.late_ms:>6.1f}"
        f"{' played again' if found.repeats else ''}\n"
        f"    pushes: {real or 'none'} | simulated: {other or 'none'}"
    )


def fill(report: Report, found: Sequence[Compared]) -> None:
    """Take the figures."""
    requests = sum(each.requests for each in found)
    report.add("scenarios", len(found), (">=", 8))
    report.add("requests", requests)
    report.add("placements_agreeing", sum(each.agreeing for each in found) / requests, (">=", 0.95))
    report.add("placements_agreeing_least", min(each.share for each in found), (">=", 0.95))
    report.add("latency_ratio_mean", statistics.fmean(each.ratio for each in found), (">=", 0.9))
    report.add("latency_ratio_most", max(each.ratio for each in found), ("<=", 1.1))
    report.add("latency_ratio_least", min(each.ratio for each in found), (">=", 0.9))
    report.add("scenarios_within_10_percent", sum(0.9 <= each.ratio <= 1.1 for each in found))
    report.add("pushes_real", sum(len(each.real_pushes) for each in found))
    report.add("pushes_simulated", sum(len(each.simulated_pushes) for each in found))
    starts = [
        abs(one[1] - other[1])
        for each in found
        if len(each.real_pushes) == len(each.simulated_pushes)
        for one, other in zip(sorted(each.real_pushes), sorted(each.simulated_pushes), strict=True)
    ]
    report.add("push_start_apart_s", statistics.median(starts) if starts else 0.0)
    report.add("timers_late_ms", statistics.fmean(each.late_ms for each in found))
    report.add("played_again", sum(each.repeats for each in found))
    report.add("undecided", sum(each.undecided for each in found), ("<=", 0))
    for number, each in enumerate(found):
        report.add(f"agreeing_{number}", each.share)
        report.add(f"latency_ratio_{number}", each.ratio)


def main() -> None:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", type=int, help="the number of a scenario (may be given again)")
    parser.add_argument("--seed", type=int, default=0, help="added to all seeds: other moments, other boards")
    parser.add_argument(
        "--at-once", type=int, default=3, help="scenarios that are played at the same time (%(default)s)"
    )
    parser.add_argument(
        "--keep", type=Path, help="a folder for logs and scenario files, instead of one that is removed"
    )
    given = parser.parse_args()
    chosen = [
        (number, case.shifted(given.seed))
        for number, case in enumerate(CASES)
        if not given.only or number in given.only
    ]
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agreement-") as made:
        folder = given.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        broker = Broker(folder)
        broker.start()
        try:
            models = sorted({name for _, case in chosen for name in case.models})
            machine = calibrated(folder / "calibration", broker.port, models)
            print(f"the machine adds: {machine.overheads}")
            print(
                "on the node: "
                + ", ".join(f"{name} {1000 * each:.3f} ms" for name, each in machine.node_s.items())
                + "\n"
            )
            print(HEAD)
            with ThreadPoolExecutor(given.at_once) as pool:
                waiting = [pool.submit(one, case, number, folder, broker.port, machine) for number, case in chosen]
                found = []
                for each in waiting:
                    found.append(each.result())
                    print(told_of(found[-1]), flush=True)
        finally:
            broker.stop()
    print()
    report = Report("agreement")
    fill(report, found)
    report.add("seconds", time.monotonic() - start_s, ("<=", 360))
    report.finish()


if __name__ == "__main__":
    main()
