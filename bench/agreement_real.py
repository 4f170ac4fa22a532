"""The real side of `bench.agreement`: a daemon, a broker and simulated boards as processes, asked at given moments over HTTP."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.agreement_cases import Board, Case
from bench.agreement_models import model
from bench.common import ROOT, Connection, free_port
from bench.push_gateway import free_udp_port
from gatewayd.core.replay import Logged
from gatewayd.core.request import Target
from gatewayd.simulate.world import Ask
from gatewayd.wire.decisionlog import read_log

Answer = dict[str, Any]
_START_S, _END_S = 40.0, 20.0
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """One request: what it was answered, when it was asked, and its seconds from the moment it was due."""

    number: int
    status: int
    latency_s: float
    answer: Answer


@dataclass
class Rig:
    """One daemon with its boards. Everything is ended when the context is left."""

    folder: Path
    node: str
    broker_port: int
    robustness: float = 0.05
    horizon_s: float = 3600.0
    automatic: bool = True
    http_port: int = field(default_factory=free_port)
    coap_port: int = field(default_factory=free_udp_port)
    boards: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Start the daemon."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "gatewayd.yaml"
        config.write_text(
            f"node: {{name: {self.node}, data_dir: {self.folder / 'data'}}}\nmqtt: {{port: {self.broker_port}}}\n"
            f"http: {{port: {self.http_port}, idle_s: 600}}\ncoap: {{port: {self.coap_port}}}\ndevices: {{join: open}}\n"
            f"placement: {{robustness: {self.robustness}, horizon_s: {self.horizon_s}}}\n"
            f"pushes: {{automatic: {str(self.automatic).lower()}}}\n"
            f"decisions: {{file: {self.log}, max_bytes_per_day: 67108864, max_bytes: 67108864}}\n"
        )
        self._daemon = self._start("daemon", ["run", "--config", str(config)])
        self._until("the daemon", self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    @property
    def log(self) -> Path:
        """The decision log; it is whole when the daemon has been stopped."""
        return self.folder / "decisions.jsonl"

    def stop(self) -> None:
        """End the daemon, which writes its log, and the boards."""
        children = (self._daemon, *self.boards.values())
        for child in children:
            child.terminate()
        for child in children:
            _ended(child)

    def add_model(self, name: str) -> None:
        """Admit one."""
        files = [base64.b64encode(model(name).content).decode()]
        self.verb("models/add", {"model": name, "files": files})

    def add_board(self, board: Board) -> None:
        """Start one, and return at once."""
        samples = model(board.sensor).write(self.folder / f"samples-{board.sensor}")
        trust = self.folder / "data" / "keys" / "trusted.txt"
        arguments = ["sim-device", *board.arguments(), "--state", str(self.folder / board.id)]
        arguments += ["--samples", str(samples), "--trust", str(trust), "--node", self.node]
        arguments += ["--broker", f"127.0.0.1:{self.broker_port}", "--gateway", f"127.0.0.1:{self.coap_port}"]
        self.boards[board.id] = self._start(board.id, arguments)

    def wait_for_boards(self) -> None:
        """Wait until all are online."""
        self._until("the boards", self._are_online)

    def steer(self, board: str, line: str) -> None:
        """Change what is around a board."""
        pipe = self.boards[board].stdin
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.write(f"{line}\n".encode())
            pipe.flush()

    def verb(self, path: str, arguments: Mapping[str, object]) -> Answer:
        """Ask for a verb. Raises: RuntimeError with its refusal."""
        with Connection(self.http_port) as connection:
            status, answer = connection.ask(b"POST", f"/api/{path}", json.dumps(arguments).encode())
        if status != 200:
            raise RuntimeError(f"{path}: {answer.decode()}")
        found: Answer = json.loads(answer)
        return found

    def infer(self, name: str, body: Mapping[str, object]) -> Answer:
        """Ask for one inference. Raises: RuntimeError."""
        with Connection(self.http_port) as connection:
            status, answer = connection.ask(b"POST", f"/v2/models/{name}/infer", json.dumps(body).encode())
        if status != 200:
            raise RuntimeError(answer.decode())
        found: Answer = json.loads(answer)
        return found

    def infer_raw(self, name: str) -> Answer:
        """Ask for one inference on bytes that come with it."""
        content = bytes(4 * model(name).sample_bytes)
        headers = {"Content-Type": "application/octet-stream"}
        with Connection(self.http_port) as connection:
            status, answer = connection.ask(b"POST", f"/v2/models/{name}/infer", content, headers)
        if status != 200:
            raise RuntimeError(answer.decode())
        found: Answer = json.loads(answer)
        return found

    def pushes(self) -> list[Answer]:
        """Return every push, newest first."""
        return list(self.verb("pushes/list", {"limit": 1000})["pushes"])

    def decisions(self) -> dict[str, Logged]:
        """Return what was decided, by the request's id; call it after `stop`."""
        with self.log.open("rb") as lines:
            return {each.request: each for each in read_log(lines) if isinstance(each, Logged)}

    def _are_online(self) -> bool:
        told = self.verb("devices/list", {})["devices"]
        return {each["device"] for each in told if each["online"]} >= set(self.boards)

    def _answers(self) -> bool:
        with Connection(self.http_port) as connection:
            return connection.ask(b"GET", "/readyz")[0] == 200

    def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            for name, child in {"daemon": self._daemon, **self.boards}.items():
                if child.poll() is not None:
                    tail = (self.folder / f"{name}.log").read_text()[-2000:]
                    raise RuntimeError(f"{name} ended:\n{tail}")
            with suppress(OSError):
                if is_so():
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{what}: not there within {_START_S:g} s; see {self.folder}")

    def _start(self, name: str, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        command = [sys.executable, "-m", "gatewayd", *arguments]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT)
        self._stack.callback(_ended, child)
        return child


def _ended(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()


_BEAT_S = 0.01


@dataclass
class Lateness:
    """By how much a timer of this process was late: how busy the machine was with other things."""

    total_s: float = 0.0
    beats: int = 0
    most_s: float = 0.0

    @property
    def mean_ms(self) -> float:
        """On average."""
        return 1000 * self.total_s / max(1, self.beats)

    async def measure(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _BEAT_S
            await asyncio.sleep(_BEAT_S)
            late_s = loop.time() - due_s
            self.total_s, self.beats, self.most_s = self.total_s + late_s, self.beats + 1, max(self.most_s, late_s)


@dataclass(frozen=True)
class Moved:
    """A push as it moved: when (s from moment 0), where, of what, and its state."""

    at_s: float
    push: int
    device: str
    model: str
    state: str


async def asked(rig: Rig, asks: Sequence[Ask], case: Case) -> tuple[list[Seen], list[Moved], Lateness]:
    """Ask everything at its moment, change what changes; return what was answered, in order, and how pushes moved."""
    loop = asyncio.get_running_loop()
    start_s = loop.time() + 0.3
    free: list[_Wire] = []
    moves: list[Moved] = []
    lateness = Lateness()
    beside = [asyncio.ensure_future(each) for each in (_heard(rig.http_port, moves, start_s), lateness.measure())]
    async with asyncio.TaskGroup() as tasks:
        for change in case.changes:
            tasks.create_task(_changed(rig, change, start_s))
        asking = [
            tasks.create_task(_one(rig.http_port, free, number, ask, start_s, case.request_class))
            for number, ask in enumerate(asks)
        ]
    for wire in free:
        wire.close()
    for each in beside:
        each.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    return [each.result() for each in asking], moves, lateness


async def _heard(port: int, moves: list[Moved], start_s: float) -> None:
    """Listen to what the daemon tells of pushes, until cancelled."""
    wire, loop = await _Wire.open(port), asyncio.get_running_loop()
    try:
        wire.writer.write(b"GET /api/events?kind=push HTTP/1.1\r\nHost: 127.0.0.1" + _HEAD_END)
        while line := await wire.reader.readline():
            if line.startswith(b"data:"):
                told = json.loads(line[5:])
                key = told["push"], told["device"], told["model"], told["state"]
                moves.append(Moved(loop.time() - start_s, *key))
    finally:
        wire.close()


async def _changed(rig: Rig, change: Mapping[str, object], start_s: float) -> None:
    at_s, for_s = float(str(change["at_s"])), change.get("for_s")
    what, device = str(change["what"]), f"{change['devices']}-1"
    await _at(start_s + at_s)
    rig.steer(device, "outage on" if what == "outage" else f"{what} {change['factor']}")
    if for_s is not None:
        await _at(start_s + at_s + float(str(for_s)))
        rig.steer(device, "outage off" if what == "outage" else f"{what} 1")


async def _at(moment_s: float) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, moment_s - loop.time()))


@dataclass
class _Wire:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def close(self) -> None:
        self.writer.close()

    async def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self.writer.write(head.encode() + _HEAD_END + body)
        got = (await self.reader.readuntil(_HEAD_END)).lower()
        at = got.find(b"content-length:")
        length = int(got[at + 15 :].split(b"\r\n", 1)[0])
        return int(got[9:12]), await self.reader.readexactly(length)


async def _one(port: int, free: list[_Wire], number: int, ask: Ask, start_s: float, request_class: str) -> Seen:
    loop = asyncio.get_running_loop()
    due_s = start_s + ask.at_s
    parameters = {"deadline_ms": round(1000 * ask.deadline_s), "class": request_class}
    body = {"id": f"r{number}", "device": ask.station.id, "input": "sensor", "parameters": parameters}
    await _at(due_s)
    wire = free.pop() if free else await _Wire.open(port)
    status, content = await wire.ask(f"/v2/models/{ask.model.name}/infer", json.dumps(body).encode())
    free.append(wire)
    return Seen(number, status, loop.time() - due_s, json.loads(content))


def target_of(logged: Logged | None) -> Target | None:
    """Return where a request ran; None: nobody served it, or nothing is known of it."""
    return None if logged is None else logged.served_by
