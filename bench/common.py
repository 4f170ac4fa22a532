"""What the benchmarks share: child servers, their memory, interleaved rounds, medians, the table and the JSON report."""

import json
import operator
import os
import platform
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "bench"

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass
class Report:
    """Figures by name, and what they should reach: written to `build/bench/NAME.json` and printed."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    goals: dict[str, tuple[str, float]] = field(default_factory=dict)

    def add(self, name: str, value: float, goal: tuple[str, float] | None = None) -> None:
        """Take a figure, with its goal (`("<=", 1.3)`) if it has one."""
        self.figures[name] = round(value, 4)
        if goal is not None:
            self.goals[name] = goal

    def met(self) -> dict[str, bool]:
        """Tell which goals were reached."""
        return {name: _COMPARE[op](self.figures[name], limit) for name, (op, limit) in self.goals.items()}

    def finish(self) -> bool:
        """Print the table and write the report; return whether every goal was reached."""
        met = self.met()
        width = max(map(len, self.figures))
        for name, value in self.figures.items():
            goal = " ".join(map(str, self.goals[name])) if name in self.goals else ""
            print(f"{name:<{width}}  {value:>12,.3f}  {goal:<10} {_verdict(met.get(name))}".rstrip())
        BUILD.mkdir(parents=True, exist_ok=True)
        document = {
            "name": self.name,
            "machine": machine(),
            "figures": self.figures,
            "goals": {name: list(goal) for name, goal in self.goals.items()},
            "met": met,
        }
        (BUILD / f"{self.name}.json").write_text(json.dumps(document, indent=1) + "\n")
        return all(met.values())


def _verdict(is_met: bool | None) -> str:  # noqa: FBT001 - a table cell
    return "" if is_met is None else "met" if is_met else "NOT MET"


def machine() -> str:
    """Return what this ran on, in one line."""
    load = os.getloadavg()[0]
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A child process that serves HTTP on `port`; `start_s` is how long it took until `ready_path` answered 200."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        port: int,
        ready_path: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.name, self.port = name, port
        BUILD.mkdir(parents=True, exist_ok=True)
        self._log = (BUILD / f"{name}.log").open("wb")
        self._started_s = time.monotonic()
        self._child = subprocess.Popen(
            [str(each) for each in command],
            stdout=self._log,
            stderr=self._log,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        self._ready_path = ready_path
        self.start_s = 0.0

    def __enter__(self) -> Self:
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait for the first 200. Raises: RuntimeError when the child ended or is too slow."""
        deadline_s = self._started_s + timeout_s
        while not self._answers():
            if self._child.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.name} did not come up; see {self._log.name}")
            time.sleep(0.01)
        self.start_s = time.monotonic() - self._started_s

    def stop(self) -> None:
        """End the child and wait for it."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(15)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._log.close()

    def pss_bytes(self) -> int:
        """Return the proportional set size of the child and all that descend from it."""
        return sum(map(_pss_bytes, process_tree(self._child.pid)))

    def cpu_s(self) -> float:
        """Return the processor time of the child and all that descend from it, so far."""
        return sum(map(_cpu_s, process_tree(self._child.pid)))

    @property
    def elapsed_s(self) -> float:
        """How long ago the child was started."""
        return time.monotonic() - self._started_s

    def _answers(self) -> bool:
        try:
            with Connection(self.port) as connection:
                return connection.ask(b"GET", self._ready_path)[0] == 200
        except OSError:
            return False


def process_tree(pid: int) -> list[int]:
    """Return the process and all that descend from it."""
    children: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(each) for each in listing.read_text().split()]
    return [pid, *(each for child in children for each in process_tree(child))]


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Connection:
    """One kept-alive HTTP connection with as little of its own as Python allows: the same small cost for every server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(
        self, method: bytes, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request and return status and body."""
        return self.send(request(method, path, body, headers))

    def send(self, whole: bytes) -> tuple[int, bytes]:
        """Send a request made by `request` and return status and body."""
        self._socket.sendall(whole)
        got = self._socket.recv(262144)
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more()
        head = got[:end].lower()
        status = int(head[9:12])
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        while len(got) < end + 4 + length:
            got += self._more()
        return status, got[end + 4 :]

    def _more(self) -> bytes:
        more = self._socket.recv(262144)
        if not more:
            raise ConnectionError("the server closed in mid-answer")
        return more


def request(method: bytes, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole HTTP/1.1 request."""
    lines = [f"{method.decode()} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def interleaved(tasks: Mapping[str, Callable[[], object]], *, rounds: int, calls: int) -> dict[str, list[float]]:
    """Time every task `calls` times per round, all tasks in each round; return each round's p50 per task, in µs."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            found[name].append(_p50_us(task, calls))
    return found


def _p50_us(task: Callable[[], object], calls: int) -> float:
    for _ in range(max(3, calls // 10)):
        task()
    times = []
    for _ in range(calls):
        start_ns = time.perf_counter_ns()
        task()
        times.append(time.perf_counter_ns() - start_ns)
    return statistics.median(times) / 1000


def ratio(found: Mapping[str, Sequence[float]], above: str, below: str) -> float:
    """Return the median over the rounds of one task's p50 over another's: noise that hits a whole round cancels out."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


@contextmanager
def children(*servers: Server) -> Iterator[tuple[Server, ...]]:
    """Wait for all servers, and end them all whatever happens."""
    try:
        for server in servers:
            server.wait_ready()
        yield servers
    finally:
        for server in servers:
            server.stop()
