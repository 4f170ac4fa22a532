"""A gateway is killed while 1,000 devices each are in some state of a push: how soon it serves again, and how every push ends.

The real daemon, a real mosquitto, light devices (`bench.fleet`). A tenth of the devices are never heard again: their pushes must
end by their deadlines, the others' with the model on the device.
"""

import argparse
import base64
import json
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.common import ROOT, Connection, Report, Server, free_port
from bench.fleet import Fleet
from gatewayd.wire.manifest import key_ring
from tests.broker import Broker

NODE = "bench"
MODEL = "speaker"
# Every state's deadline, so that nothing ends before the kill; what is silent after it must end within this.
DEADLINE_S = 60
MORE_KILLS = 2
# What a deadline may be late: the consumer's batch and the disk.
GRACE_S = 5
_HEADERS = {"Content-Type": "application/json"}


def main() -> int:
    """Run; return 0 when it ran, whatever it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    arguments = parser.parse_args()
    print(f"{arguments.devices} devices, seed {arguments.seed}")
    report = Report("restart")
    with tempfile.TemporaryDirectory(prefix="gatewayd-bench-") as folder:
        broker = Broker(Path(folder), lines=["max_queued_messages 0", "max_inflight_messages 0"])
        broker.start()
        try:
            _measure(Path(folder), broker.port, arguments, report)
        finally:
            broker.stop()
    report.finish()
    return 0


def _measure(folder: Path, broker_port: int, arguments: argparse.Namespace, report: Report) -> None:
    port = free_port()
    config = _config(folder, broker_port, port, devices=arguments.devices)
    first = _daemon("first", config, port)
    first.wait_ready()
    fleet = Fleet(
        f"gatewayd/{NODE}", arguments.devices, _keys(folder), seed=arguments.seed, dead=arguments.devices // 10
    )
    try:
        _admit(port)
        fleet.connect(broker_port)
        started_s = _push_all(port, fleet)
        report.add("pushes_started_per_s", arguments.devices / started_s)
        first.kill()
        _show_states(folder, fleet, report)
        received = fleet.bytes_received()
        fleet.thaw()
        starts_s = [_killed_once_more(config, port) for _ in range(MORE_KILLS)]
        second = _daemon("second", config, port)
        second.wait_ready()
        serving_at = time.time()
        serving_s = statistics.median([*starts_s, second.start_s])
        report.add("serving_again_s", serving_s, ("<=", 2.0))
        report.add("serving_again_cpu_s", second.cpu_s())
        report.add("serving_first_time_s", first.start_s)
        report.add("serving_again_by_first_time", serving_s / first.start_s)
        report.add("serving_again_worst_s", max([*starts_s, second.start_s]))
        _until_all_ended(port)
        report.add("all_ended_s", time.time() - serving_at)
        report.add("chunks_after_restart", (fleet.bytes_received() - received) / 512)
        second.stop()
    finally:
        first.kill()
        fleet.close()
    _judge(folder, fleet, serving_at, report)


def _killed_once_more(config: Path, port: int) -> float:
    """Start, and kill it once it serves: the pushes are on their way again by then. Returns the seconds it took to serve."""
    daemon = _daemon("killed", config, port)
    daemon.wait_ready()
    daemon.kill()
    return daemon.start_s


class _Daemon(Server):
    """A daemon that can be killed without a word."""

    def cpu_s(self) -> float:
        """Return the seconds of CPU it has used so far: what a busy machine does not change."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL; nothing when it is gone already."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()


def _daemon(name: str, config: Path, port: int) -> _Daemon:
    command = [sys.executable, "-m", "gatewayd", "run", "--config", str(config)]
    return _Daemon(f"restart-{name}", command, port=port, ready_path="/readyz")


def _config(folder: Path, broker_port: int, port: int, *, devices: int) -> Path:
    limits = ", ".join(
        f"{name}: {DEADLINE_S}" for name in ("offer_s", "stall_s", "verify_s", "self_test_s", "trial_s", "absence_s")
    )
    config = folder / "gatewayd.yaml"
    config.write_text(
        f"node: {{name: {NODE}, data_dir: {folder / 'data'}}}\n"
        f"mqtt: {{port: {broker_port}}}\nhttp: {{port: {port}}}\ncoap: {{enabled: false}}\nlwm2m: {{enabled: false}}\n"
        f"devices: {{join: open, max_devices: {devices}, ping_every_s: 30, absent_after_s: 300}}\n"
        f"pushes: {{automatic: false, max_concurrent: {devices}, tries: 1, {limits}}}\n"
    )
    return config


def _keys(folder: Path) -> dict[bytes, bytes]:
    lines = (folder / "data" / "keys" / "trusted.txt").read_text().splitlines()
    return dict(key_ring(bytes.fromhex(line.split()[0]) for line in lines))


def _call(connection: Connection, verb: str, arguments: dict[str, object]) -> dict[str, object]:
    body = json.dumps(arguments).encode()
    status, answer = connection.ask(b"POST", f"/api/{verb.replace('.', '/')}", body, _HEADERS)
    if status != 200:
        raise RuntimeError(f"{verb}: {status} {answer.decode()[:300]}")
    document: dict[str, object] = json.loads(answer)
    return document


def _admit(port: int) -> None:
    file = base64.b64encode((ROOT / "models" / "speaker" / "v1" / "speaker-int8.tflite").read_bytes()).decode()
    with Connection(port) as connection:
        _call(connection, "models.add", {"model": MODEL, "files": [file]})


def _push_all(port: int, fleet: Fleet) -> float:
    """Start a push to every device; return what it took. Ends when the devices have run out of patience, mostly."""
    with Connection(port) as connection:
        _until(lambda: _call(connection, "status", {})["devices_online"] == len(fleet.devices))
        started_s = time.monotonic()
        for device in fleet.devices:
            _call(connection, "push", {"device": device, "model": MODEL})
        return time.monotonic() - started_s


def _show_states(folder: Path, fleet: Fleet, report: Report) -> None:
    states = Counter(state for state, _ in _rows(folder))
    print(f"at the kill, in the journal: {dict(states)}; on the devices: {dict(fleet.standing())}")
    for state, count in sorted(states.items()):
        report.add(f"at_kill_{state.replace('-', '_')}", count)


def _until_all_ended(port: int) -> None:
    with Connection(port) as connection:
        _until(lambda: _call(connection, "status", {})["live_pushes"] == 0)


def _until(condition: Callable[[], bool]) -> None:
    deadline_s, pause = time.monotonic() + 4 * DEADLINE_S, threading.Event()
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError("did not happen in time")
        pause.wait(0.1)


def _rows(folder: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(folder / "data" / "gatewayd.sqlite") as connection:
        return list(connection.execute("SELECT state, device FROM pushes"))


def _judge(folder: Path, fleet: Fleet, serving_at: float, report: Report) -> None:
    with sqlite3.connect(folder / "data" / "gatewayd.sqlite") as connection:
        rows = list(connection.execute("SELECT device, state, ended, ended_at, reason FROM pushes"))
    devices = len(fleet.devices)
    alive = [row for row in rows if row[0] not in fleet.dead()]
    late = [row for row in rows if row[3] is not None and row[3] > serving_at + DEADLINE_S + GRACE_S]
    print(f"at the end: {dict(Counter(row[1] for row in rows))}")
    for (state, reason), count in Counter((row[1], row[4]) for row in alive if row[1] != "accepted").items():
        print(f"  not accepted though alive: {count} {state}: {reason}")
    report.add("pushes_ended", sum(row[2] for row in rows), (">=", devices))
    report.add("deadlines_lost", len(late) + sum(not row[2] for row in rows), ("<=", 0))
    report.add("accepted_of_the_living", sum(row[1] == "accepted" for row in alive) / len(alive), (">=", 1.0))
    silent = [row for row in rows if row[0] in fleet.dead()]
    report.add("silent_ended", sum(row[2] for row in silent) / max(1, len(silent)), (">=", 1.0))


if __name__ == "__main__":
    sys.exit(main())
