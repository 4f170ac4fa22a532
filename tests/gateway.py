"""A real daemon and real simulated boards as child processes, for tests of the whole."""

import base64
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatewayd.demo.client import Answer, GatewayClient

REPOSITORY = Path(__file__).parents[1]
SPEAKER = REPOSITORY / "models" / "speaker"
NODE = "test"
BASE = f"gatewayd/{NODE}"
PATIENCE_S = 30


class Process:
    """A child whose stderr is read line by line; `until` waits for one that holds a text."""

    def __init__(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "gatewayd", *arguments]
        self._child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
        self.lines: list[str] = []
        self._fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="stderr")
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def until(self, text: str) -> str:
        while True:
            line = self._fresh.get(timeout=PATIENCE_S)
            if line is None:
                raise AssertionError(f"ended before {text!r}:\n" + "\n".join(self.lines[-30:]))
            if text in line:
                return line

    def tell(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self._child.poll() is None:
            self._child.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        code = self._child.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        if self._child.stderr is not None:
            self._child.stderr.close()
        return code

    def _read(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self.lines.append(line.rstrip())
            self._fresh.put(self.lines[-1])
        self._fresh.put(None)


class Gateway(Process):
    """`gatewayd run` on a config of this test's own; returns from the constructor when it is ready."""

    def __init__(self, folder: Path, *, broker_port: int, extra: str = "", text: str = "") -> None:
        self.folder = folder
        config = folder / "gatewayd.yaml"
        config.write_text(
            text
            or f"node: {{name: {NODE}, data_dir: {folder / 'data'}}}\n"
            f"mqtt: {{port: {broker_port}}}\nhttp: {{port: 0}}\ncoap: {{port: 0}}\n"
            f"{extra or 'devices: {join: open}'}\n"
        )
        super().__init__(["run", "--config", str(config)])
        ready = self.until("ready node=")
        self.http = f"http://127.0.0.1:{re.findall(r'http_port=([0-9]+)', ready)[0]}"

    def get(self, path: str) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.http + path))  # noqa: S310 - our own loopback address

    def post(self, path: str, body: bytes, *, content_type: str = "application/json") -> tuple[int, Any]:
        request = urllib.request.Request(self.http + path, body, {"Content-Type": content_type})  # noqa: S310 - as above
        status, text = self._ask(request)
        return status, json.loads(text)

    def _ask(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - as above
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def gatewayd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program to its end."""
    command = [sys.executable, "-m", "gatewayd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=REPOSITORY, check=False)


def add_speaker(gateway: Gateway, *, version: int = 1) -> Answer:
    """Admit a version of the project's own model over HTTP."""
    files = [
        base64.b64encode(path.read_bytes()).decode() for path in sorted((SPEAKER / f"v{version}").glob("*.tflite"))
    ]
    labels = [f"speaker-{number}" for number in range(1, 10)]
    body = {"model": "speaker", "files": files, "labels": labels, "preprocessing": "lpc12@1"}
    status, answer = gateway.post("/api/models/add", json.dumps(body).encode())
    assert status == 200, answer
    return dict(answer)


def infer_raw(gateway: Gateway, content: bytes = bytes(29 * 12 * 4)) -> tuple[int, Answer]:
    """Run the model on the bytes of its input, over HTTP."""
    status, answer = gateway.post("/v2/models/speaker/infer", content, content_type="application/octet-stream")
    return status, answer


class Events:
    """What the gateway told on its event topics."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: list[tuple[str, Answer]] = []

    def __call__(self, kind: str, event: Answer) -> None:
        with self._changed:
            self._told.append((kind, event))
            self._changed.notify_all()

    def forget(self) -> None:
        """Wait for new events only from now on."""
        with self._changed:
            self._told.clear()

    def until(self, kind: str, condition: Callable[[Answer], bool]) -> Answer:
        """Return the first event of `kind` for which `condition` holds, told already or still to come."""

        def found() -> Answer | None:
            return next((event for told, event in self._told if told == kind and condition(event)), None)

        with self._changed:
            event = self._changed.wait_for(found, PATIENCE_S)
            assert event is not None, f"no such {kind}; told: {self._told[-10:]}"
            return event


@contextmanager
def client(broker_port: int) -> Iterator[tuple[GatewayClient, Events]]:
    events = Events()
    connection = GatewayClient(host="127.0.0.1", port=broker_port, base=BASE, on_event=events)
    with connection:
        events.until("status", lambda status: status.get("state") == "online")
        yield connection, events


def start_board(
    folder: Path,
    *,
    broker_port: int,
    device: str = "door-1",
    board: str = "nucleo-l4r5zi",
    link: str = "wifi",
    arena: int = 65536,
) -> Process:
    """Start a simulated board; starting it again with the same folder and id is the same board after a power cut."""
    arguments = ["sim-device", "--id", device, "--board", board, "--link", link, "--node", NODE, "--seed", "5"]
    arguments += ["--broker", f"127.0.0.1:{broker_port}", "--state", str(folder / device), "--arena", str(arena)]
    arguments += ["--trust", str(folder / "data" / "keys" / "trusted.txt")]
    return Process([*arguments, "--samples", str(SPEAKER), "--sensor", "mic"])
