"""Small inferences over MQTT beside what is the least, interleaved, on one mosquitto: an echo, a loop, the bare bones, gatewayd.

    python -m bench.mqtt [--rounds N] [--calls N]

(a) `echo`: paho sends the payload back. (b) `loop`: paho and LiteRT in one thread. (c) `skeleton`: paho on asyncio and the
worker process, no gateway code. (d) `asleep`: gatewayd without `node_runtime.eager`. All get the
same bytes (KWS: 490 int8 values, raw) and answer in JSON. One connection, closed loop, the p50 of each round; ratios round
by round, their median. Then as much as goes with 16 requests on the way, and an open loop of 1,000 a second.
Models: as `bench.node`.
"""

import argparse
import base64
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.common import BUILD, ROOT, Connection, Report, Server, free_port, interleaved, process_tree, ratio
from bench.mqtt_wire import WireClient
from bench.node import Served, models
from tests.broker import Broker

PEERS = ROOT / "bench" / "peers"
RAW = "application/octet-stream"
IN_FLIGHT = 16
NAMES = ("echo", "loop", "skeleton", "gatewayd", "asleep")


class Peer(Server):
    """A child that serves MQTT: it is ready when it answers."""

    def __init__(
        self, name: str, command: Sequence[str | Path], *, broker_port: int, topic: str, payload: bytes
    ) -> None:
        self.topic, self._payload, self._broker_port = topic, payload, broker_port
        super().__init__(f"mqtt-{name}", command, port=broker_port, ready_path="")

    def cpu_s(self) -> float:
        """Return the processor time of the child and its workers, by the nanosecond."""
        return sum(map(_cpu_s, process_tree(self._child.pid)))

    def _answers(self) -> bool:
        with _client(self._broker_port, "probe") as client:
            request = client.request(self.topic, self._payload, content_type=RAW, qos=0)
            for _ in range(20):
                client.send(request, qos=0)
                time.sleep(0.05)
                if any(True for _ in client.answers_there()):
                    return True
        return False


def _cpu_s(pid: int) -> float:
    """Source: proc(5), schedstat: the first number is nanoseconds on a processor."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _client(port: int, name: str) -> WireClient:
    return WireClient(port, name=f"bench-{name}", reply_topic=f"reply/{name}")


def gateway(folder: Path, broker_port: int, served: Served, *, node: str, is_eager: bool) -> Peer:
    """Return gatewayd with the model in it."""
    config, port = folder / f"{node}.yaml", free_port()
    config.write_text(
        f"node: {{name: {node}, data_dir: {folder / node}}}\nmqtt: {{port: {broker_port}}}\n"
        f"http: {{port: {port}}}\ncoap: {{enabled: false}}\nlwm2m: {{enabled: false}}\n"
        f"node_runtime: {{eager: {str(is_eager).lower()}}}\n"
    )
    command = [sys.executable, "-m", "gatewayd", "run", "--config", str(config)]
    topic = f"gatewayd/{node}/infer/{served.name}"
    peer = Peer(node, command, broker_port=broker_port, topic=topic, payload=served.content)
    _admit(peer, port, served)
    return peer


def _admit(peer: Peer, port: int, served: Served) -> None:
    body = {"model": served.name, "files": [base64.b64encode(served.path.read_bytes()).decode()]}
    while True:
        try:
            with Connection(port) as connection:
                status, answer = connection.ask(b"POST", "/api/models/add", json.dumps(body).encode())
                assert status == 200, answer
                return
        except ConnectionRefusedError:
            assert peer.elapsed_s < 30, "gatewayd did not come up"
            time.sleep(0.05)


@contextmanager
def peers(folder: Path, broker_port: int, served: Served) -> Iterator[dict[str, Peer]]:
    """Start all four; end them whatever happens."""
    scripts = {
        "echo": ["mqtt_loop.py", str(broker_port), "bench/echo"],
        "loop": ["mqtt_loop.py", str(broker_port), "bench/loop", str(served.path)],
        "skeleton": ["mqtt_skeleton.py", str(broker_port), "bench/skeleton", str(served.path)],
    }
    with ExitStack() as stack:
        found = {}
        for name, (script, *arguments) in scripts.items():
            command = [sys.executable, str(PEERS / script), *arguments]
            found[name] = Peer(name, command, broker_port=broker_port, topic=f"bench/{name}", payload=served.content)
            stack.callback(found[name].stop)
        for name in ("gatewayd", "asleep"):
            found[name] = gateway(folder, broker_port, served, node=name, is_eager=name == "gatewayd")
            stack.callback(found[name].stop)
        for peer in found.values():
            peer.wait_ready()
        yield found


def latencies(report: Report, ready: dict[str, Peer], port: int, served: Served, *, rounds: int, calls: int) -> None:
    """Closed loop, one request on the way."""
    with _client(port, "latency") as client:
        tasks: dict[str, Callable[[], object]] = {}
        for qos in (0, 1):
            for name, peer in ready.items():
                request = client.request(peer.topic, served.content, content_type=RAW, qos=qos)
                tasks[f"{name}_q{qos}"] = partial(_ask, client, request, qos)
        found = interleaved(tasks, rounds=rounds, calls=calls)
    for name, values in found.items():
        report.add(f"p50_{name}_us", statistics.median(values))
    for qos in (0, 1):
        report.add(f"p50_by_loop_q{qos}", ratio(found, f"gatewayd_q{qos}", f"loop_q{qos}"), ("<=", 1.5))
        report.add(f"p50_by_skeleton_q{qos}", ratio(found, f"gatewayd_q{qos}", f"skeleton_q{qos}"))
    report.add("p50_q1_by_q0", ratio(found, "gatewayd_q1", "gatewayd_q0"), ("<=", 1.6))


def _ask(client: WireClient, request: tuple[bytes, bytes], qos: int) -> None:
    client.send(request, qos=qos)
    client.answer()


def throughput(report: Report, ready: dict[str, Peer], port: int, served: Served, *, rounds: int, calls: int) -> None:
    """As many as go with 16 on the way; and what a request costs in processor time."""
    rates: dict[str, list[float]] = {name: [] for name in ready}
    costs: dict[str, list[float]] = {name: [] for name in ready}
    with _client(port, "throughput") as client:
        for _ in range(rounds):
            for name, peer in ready.items():
                request = client.request(peer.topic, served.content, content_type=RAW, qos=0)
                before_s, began_s = peer.cpu_s(), time.perf_counter()
                _pipelined(client, request, calls * 5)
                rates[name].append(calls * 5 / (time.perf_counter() - began_s))
                costs[name].append((peer.cpu_s() - before_s) / (calls * 5) * 1e6)
    for name in ready:
        report.add(f"rate_{name}_per_s", statistics.median(rates[name]))
        report.add(f"cpu_{name}_us", statistics.median(costs[name]))
    by_loop = [ours / theirs for ours, theirs in zip(rates["gatewayd"], rates["loop"], strict=True)]
    report.add("rate_by_loop", statistics.median(by_loop), (">=", 0.5))
    over = [ours - theirs for ours, theirs in zip(costs["gatewayd"], costs["skeleton"], strict=True)]
    report.add("cpu_over_skeleton_us", statistics.median(over), ("<=", 120))


def _pipelined(client: WireClient, request: tuple[bytes, bytes], count: int) -> None:
    for _ in range(IN_FLIGHT):
        client.send(request, qos=0)
    for number in range(count):
        client.answer()
        if number < count - IN_FLIGHT:
            client.send(request, qos=0)


def open_loop(report: Report, peer: Peer, port: int, served: Served, *, per_s: int, seconds: float) -> None:
    """Send on the clock, whatever comes back; count what is lost."""
    with _client(port, "open") as client:
        request = client.request(peer.topic, served.content, content_type=RAW, qos=0)
        sent: deque[float] = deque()
        times: list[float] = []
        began = time.perf_counter()
        total, number, errors = int(per_s * seconds), 0, 0
        while len(times) < total and time.perf_counter() < began + seconds + 5:
            now = time.perf_counter()
            while number < total and began + number / per_s <= now:
                client.send(request, qos=0)
                sent.append(began + number / per_s)  # when it was due: a late sender is not forgiven
                number += 1
            for answer in client.answers_there():
                times.append(time.perf_counter() - sent.popleft())
                errors += b'"error"' in answer
            time.sleep(0.0002)
    cut = statistics.quantiles(times, n=100)
    report.add("open_loop_lost", total - len(times), ("<=", 0))
    report.add("open_loop_refused", errors, ("<=", 0))
    report.add("open_loop_p50_us", cut[49] * 1e6)
    report.add("open_loop_p99_us", cut[98] * 1e6)
    report.add("open_loop_p99_by_p50", cut[98] / cut[49], ("<=", 5))


def main() -> int:
    """Run; return 0 when it ran, whatever it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=300)
    arguments = parser.parse_args()
    served, _ = models()
    report = Report("mqtt")
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gatewayd-bench-") as name:
        broker = Broker(Path(name))
        broker.start()
        try:
            with peers(Path(name), broker.port, served) as ready:
                latencies(report, ready, broker.port, served, rounds=arguments.rounds, calls=arguments.calls)
                throughput(report, ready, broker.port, served, rounds=arguments.rounds, calls=arguments.calls)
                open_loop(report, ready["gatewayd"], broker.port, served, per_s=1000, seconds=10)
        finally:
            broker.stop()
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
