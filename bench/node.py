"""The node over HTTP beside its peers, interleaved: bare LiteRT, bare aiohttp + LiteRT, MLServer, KServe, and gatewayd.

    python bench/node.py [--rounds N] [--calls N]

KWS goes as JSON (490 int8 values), VWW (27,648) as bytes behind its JSON header, or as JSON where the server takes no bytes or
is slower with them; every server gets the same bytes for the same way. One connection, closed loop, the p50
of each round, medians over the rounds; ratios are taken round by round. Models: kws_ref_model.tflite and
vww_96_int8.tflite of MLPerf Tiny in $GATEWAYD_BENCH_MODELS; without them the project's own speaker model stands for both.
"""

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from bench.common import BUILD, ROOT, Connection, Report, Server, children, free_port, interleaved, ratio, request

PEERS = ROOT / "bench" / "peers"
MIB = 2**20
OK = 200


@dataclass(frozen=True)
class Served:
    """A model of the benchmark: its file, and the bytes of its input."""

    name: str
    path: Path
    input_name: str
    shape: list[int]
    content: bytes

    def json_body(self) -> bytes:
        """Return the request as a JSON list."""
        data = list(memoryview(self.content).cast("b"))
        return json.dumps({"inputs": [{**self._tensor(), "data": data}]}).encode()

    def binary_request(self) -> bytes:
        """Return the whole request with the tensor as bytes behind the JSON header, and the answer asked for likewise."""
        tensor = {**self._tensor(), "parameters": {"binary_data_size": len(self.content)}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
        return request(b"POST", self.infer_path, head + self.content, headers)

    def json_request(self) -> bytes:
        """Return the whole request in JSON."""
        return request(b"POST", self.infer_path, self.json_body(), {"Content-Type": "application/json"})

    @property
    def infer_path(self) -> str:
        """Where it is asked."""
        return f"/v2/models/{self.name}/infer"

    def _tensor(self) -> dict[str, object]:
        return {"name": self.input_name, "shape": self.shape, "datatype": "INT8"}


def models() -> tuple[Served, Served]:
    """Return the small and the large model."""
    folder = os.environ.get("GATEWAYD_BENCH_MODELS")
    if folder:
        kws, vww = Path(folder) / "kws_ref_model.tflite", Path(folder) / "vww_96_int8.tflite"
        return (
            Served("kws", kws, "input_1", [1, 49, 10, 1], bytes(range(49)) * 10),
            Served("vww", vww, "input_1_int8", [1, 96, 96, 3], bytes(range(96)) * 288),
        )
    from gatewayd.wire.tflite import read_model  # noqa: PLC0415 - only without models of their own

    path = ROOT / "models" / "speaker" / "v2" / "speaker-int8.tflite"
    spec = read_model(path.read_bytes()).inputs[0]
    small, large = (Served(name, path, spec.name, list(spec.shape), bytes(spec.byte_count)) for name in ("kws", "vww"))
    return small, large


class Gateway(Server):
    """gatewayd on a config of its own; the broker it is told of is not there, which it survives."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        config = folder / "gatewayd.yaml"
        config.write_text(
            f"node: {{name: bench, data_dir: {folder / 'data'}}}\nmqtt: {{port: {free_port()}}}\n"
            f"http: {{port: {port}}}\ncoap: {{port: {free_port()}}}\n"
        )
        command = [sys.executable, "-m", "gatewayd", "run", "--config", str(config)]
        super().__init__("gatewayd", command, port=port, ready_path="/readyz")

    def admit(self, served: Served) -> None:
        """Add the model."""
        body = {"model": served.name, "files": [base64.b64encode(served.path.read_bytes()).decode()]}
        with Connection(self.port) as connection:
            status, answer = connection.ask(b"POST", "/api/models/add", json.dumps(body).encode())
        if status != OK:
            raise RuntimeError(answer.decode())


def mlserver(folder: Path, served: Sequence[Served], *, workers: int) -> Server:
    """Return MLServer with the benchmark's runtime; `workers` 0 runs models in the server's own process."""
    port = free_port()
    settings = {
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "host": "127.0.0.1",
        "parallel_workers": workers,
        "debug": False,
        "access_log_disabled": True,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for each in served:
        model = {
            "name": each.name,
            "implementation": "mlserver_litert.LiteRtRuntime",
            "parameters": {"uri": str(each.path.resolve()), "version": "1"},
        }
        (folder / each.name).mkdir()
        (folder / each.name / "model-settings.json").write_text(json.dumps(model))
    name = f"mlserver-{workers}"
    program = ROOT / "build" / "bench-mlserver-venv" / "bin" / "mlserver"
    return Server(
        name, [program, "start", folder], port=port, ready_path="/v2/health/ready", env={"PYTHONPATH": str(PEERS)}
    )


def script(name: str, python: str | Path, file: str, served: Sequence[Served], *, ready_path: str) -> Server:
    """Return a peer that is one of the scripts in bench/peers."""
    port = free_port()
    named = [f"{each.name}={each.path}" for each in served]
    return Server(name, [python, PEERS / file, str(port), *named], port=port, ready_path=ready_path)


def asking(connection: Connection, whole: bytes) -> Callable[[], None]:
    """Return a task that sends the request and insists on 200."""

    def ask() -> None:
        status, body = connection.send(whole)
        if status != OK:
            raise RuntimeError(body[:500].decode(errors="replace"))

    return ask


def prefers_json(connection: Connection, served: Served) -> bool:
    """Tell whether a server takes no binary tensors, or is slower with them: every peer is asked in its better way."""
    try:
        in_bytes = statistics.median(timed(asking(connection, served.binary_request())) for _ in range(9))
    except RuntimeError:
        return True
    return statistics.median(timed(asking(connection, served.json_request())) for _ in range(9)) < in_bytes


def timed(task: Callable[[], None]) -> float:
    """Return the seconds a task takes."""
    start_s = time.perf_counter()
    task()
    return time.perf_counter() - start_s


def bare(served: Served) -> Callable[[], object]:
    """Return a task that runs the model in this process."""
    sys.path.insert(0, str(PEERS))
    import numpy as np  # noqa: PLC0415 - only here
    from litert_models import LiteRt  # noqa: PLC0415 - beside the peers

    return partial(LiteRt(str(served.path)).run, np.frombuffer(served.content, np.int8))


def measure(servers: Sequence[Server], served: tuple[Served, Served], *, rounds: int, calls: int) -> Report:
    """Time everything in turns."""
    kws, vww = served
    report = Report("node-http")
    with ExitStack() as stack:
        links = {server.name: stack.enter_context(Connection(server.port)) for server in servers}
        slow_in_bytes = [name for name, link in links.items() if prefers_json(link, vww)]
        small = {name: asking(link, kws.json_request()) for name, link in links.items()}
        large = {
            name: asking(link, vww.json_request()) if name in slow_in_bytes else asking(link, vww.binary_request())
            for name, link in links.items()
        }
        in_kws = interleaved({"litert": bare(kws), **small}, rounds=rounds, calls=calls)
        in_vww = interleaved({"litert": bare(vww), **large}, rounds=rounds, calls=max(10, calls // 4))
    for what, found in (("kws_json", in_kws), ("vww_binary", in_vww)):
        for name, times in found.items():
            report.add(f"{what}_{name}_p50_us", statistics.median(times))
    cpu = cpu_per_request(servers, kws, calls=calls * rounds)
    for name, used_us in cpu.items():
        report.add(f"kws_json_{name}_cpu_us", used_us)
    report.add("kws_cpu_over_bare_aiohttp", cpu["gatewayd"] / cpu["aiohttp"])
    report.add("kws_over_bare_aiohttp", ratio(in_kws, "gatewayd", "aiohttp"), ("<=", 1.3))
    report.add("vww_binary_over_bare_aiohttp", ratio(in_vww, "gatewayd", "aiohttp"))
    for peer in (each.name for each in servers if each.name not in {"gatewayd", "aiohttp"}):
        # mlserver-1 is MLServer as it comes, with a worker process as we have; mlserver-0 isolates nothing.
        is_goal = peer != "mlserver-0"
        report.add(f"kws_{peer}_over_gatewayd", ratio(in_kws, peer, "gatewayd"), (">=", 1.6) if is_goal else None)
        report.add(f"vww_{peer}_over_gatewayd", ratio(in_vww, peer, "gatewayd"), (">=", 3.0) if is_goal else None)
    return report


def cpu_per_request(servers: Sequence[Server], served: Served, *, calls: int) -> dict[str, float]:
    """Return the processor time in µs that each server and its workers spend on one request: other load does not count."""
    used = {}
    for server in servers:
        with Connection(server.port) as connection:
            ask, before_s = asking(connection, served.json_request()), server.cpu_s()
            for _ in range(calls):
                ask()
        used[server.name] = (server.cpu_s() - before_s) / calls * 1e6
    return used


def first_answers(folder: Path, kws: Served, *, rounds: int) -> float:
    """Return the median seconds from starting the daemon to its first inference answered, its model being there."""
    found = []
    for _ in range(rounds):
        with Gateway(folder) as gateway, Connection(gateway.port) as connection:
            asking(connection, kws.json_request())()
            found.append(gateway.elapsed_s)
    return statistics.median(found)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=["mlserver", "kserve"], help="peers beside aiohttp")
    args = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    served = models()
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("gatewayd", "mlserver-0", "mlserver-1")]
        for folder in folders:
            folder.mkdir()
        gateway = Gateway(folders[0])
        servers = [
            gateway, script("aiohttp", sys.executable, "bare_aiohttp.py", served, ready_path="/v2/health/ready")
        ]  # fmt: skip
        if "mlserver" in args.only:
            servers += [mlserver(folders[1 + workers], served, workers=workers) for workers in (0, 1)]
        if "kserve" in args.only:
            python = ROOT / "build" / "bench-kserve-venv" / "bin" / "python"
            servers.append(script("kserve", python, "kserve_litert.py", served, ready_path="/v2/health/ready"))
        with children(*servers):
            for each in served:
                gateway.admit(each)
            report = measure(servers, served, rounds=args.rounds, calls=args.calls)
            for server in servers:
                report.add(f"{server.name}_pss_mib", server.pss_bytes() / MIB)
        report.goals["gatewayd_pss_mib"] = ("<=", 100)
        for peer in ("mlserver-0", "mlserver-1"):
            if peer in (each.name for each in servers):
                share = report.figures["gatewayd_pss_mib"] / report.figures[f"{peer}_pss_mib"]
                report.add(f"pss_over_{peer}", share, ("<=", 0.75) if peer == "mlserver-1" else None)
        report.add("first_answer_s", first_answers(folders[0], served[0], rounds=3), ("<=", 1.0))
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
