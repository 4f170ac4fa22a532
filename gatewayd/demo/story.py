"""The story the demonstration tells, part by part. Every figure printed came back from the gateway."""

import base64
import json
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gatewayd.demo.client import Answer, GatewayClient, RefusedError
from gatewayd.demo.processes import Board, Stage
from gatewayd.demo.screen import Screen

MODEL = "speaker"
BIG = Board("hall-1", "nucleo-h7a3zi-q", "mqtt", link="wifi", arena_bytes=131072, seed=11)
MIDDLE = Board("door-2", "nucleo-u575zi-q", "lwm2m", link="ble", arena_bytes=65536, seed=12)
SMALL = Board("attic-3", "nucleo-g0b1re", "lwm2m", link="802.15.4", arena_bytes=2048, seed=13)
BOARDS = (BIG, MIDDLE, SMALL)
_PROTOCOLS = {"mqtt": "MQTT", "lwm2m": "LwM2M"}

_WAIT_S = 20.0
_PUSH_S = 45.0
_MAX_REQUESTS = 200
_SHOWN = 3
_SECOND = 2
_ENDED = {"accepted", "rejected", "failed", "rolled-back", "cancelled"}
_TRANSFER = {"offered", "transferring"}

# The card and the demonstration measure on the same recordings; kernels of another machine may flip a close call.
_TOLERANCE = 0.01


class DemoError(Exception):
    """The demonstration could not show what it promises; the text says what was missing."""


@dataclass(frozen=True, slots=True)
class Recordings:
    """The test recordings as the sensor stores them, and who really spoke. `scale` turns stored values into real ones."""

    samples: tuple[bytes, ...]
    expected: tuple[int, ...]
    labels: tuple[str, ...]
    scale: float

    @classmethod
    def load(cls, folder: Path) -> "Recordings":
        """Read samples.bin and samples.json."""
        about = json.loads((folder / "samples.json").read_text())
        content = (folder / "samples.bin").read_bytes()
        size = len(content) // about["count"]
        samples = tuple(content[start : start + size] for start in range(0, len(content), size))
        return cls(samples, tuple(about["expected"]), tuple(about["labels"]), about["scale"])

    def real_values(self, index: int) -> bytes:
        """Return sample `index` as FP32 bytes, as the model's signature takes it."""
        stored = struct.unpack(f"<{len(self.samples[index]) // 2}h", self.samples[index])
        return struct.pack(f"<{len(stored)}f", *(value * self.scale for value in stored))


@dataclass(slots=True)
class Watch:
    """What the event topics told, for the main thread to wait on."""

    screen: Screen
    pushes: dict[str, Answer] = field(default_factory=dict)
    devices: dict[str, Answer] = field(default_factory=dict)
    status: Answer = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def on_event(self, kind: str, event: Answer) -> None:
        """Take one event (on paho's thread)."""
        with self._changed:
            match kind:
                case "event/push":
                    before = self.pushes.get(event["device"])
                    self.pushes[event["device"]] = event
                    self._show(event, before)
                case "event/device":
                    self.devices[event["device"]] = event
                case "status":
                    self.status = event
            self._changed.notify_all()

    def until(self, what: str, condition: Callable[[], bool], *, timeout_s: float = _WAIT_S) -> None:
        """Wait for `condition`. Raises: DemoError naming `what`."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise DemoError(f"{what} did not happen within {timeout_s:.0f} s")

    def _show(self, push: Answer, before: Answer | None) -> None:
        """Redraw the bar; where nothing is redrawn, tell each new state once. The end is a line that stays."""
        is_new = before is None or (before["push"], before["state"]) != (push["push"], push["state"])
        version = f"{push['model']}@{push['version']}"
        words = f"{version} -> {push['device']}: {push['state']}"
        if push["state"] in _ENDED:
            self.screen.drop_bar(push["device"])
            if is_new:
                tell = self.screen.good if push["state"] == "accepted" else self.screen.bad
                tell(f"{words} ({push['size']:,} bytes) {push['reason']}".rstrip())
            return
        done = push["offset"] if push["state"] in _TRANSFER else push["size"]
        self.screen.bar(push["device"], done / push["size"], words)
        if is_new and not self.screen.is_terminal:
            self.screen.line(f"   … {words} ({done:,} of {push['size']:,} bytes)")


@dataclass(slots=True)
class Story:
    """The parts, in order; `figures` is the summary."""

    client: GatewayClient
    stage: Stage
    screen: Screen
    watch: Watch
    models: Path
    recordings: Recordings
    figures: list[tuple[str, str]] = field(default_factory=list)

    def tell(self) -> None:
        """Tell all parts. Raises: DemoError, RefusedError, TimeoutError."""
        self._add_version(1)
        self._start_boards()
        self._send_data_or_model()
        self._too_small()
        self._accuracy()
        self._second_version()
        self._unplugged()

    def _add_version(self, number: int) -> None:
        part, what = (1, "A model") if number == 1 else (6, "A second version")
        self.screen.section(part, f"{what}: {MODEL}@{number} is read, tried in child processes and admitted")
        files = sorted((self.models / f"v{number}").glob("*.tflite"))
        content = [base64.b64encode(path.read_bytes()).decode() for path in files]
        arguments = {"model": MODEL, "files": content, "labels": list(self.recordings.labels)}
        arguments |= {"preprocessing": "lpc12@1", "note": "nine speakers, one vowel"}
        version = self.client.command("models.add", arguments, timeout_s=60)
        for variant in version["variants"]:
            arena = f", arena {variant['arena_bytes']:,} B on TFLite Micro" if variant["arena_bytes"] else ""
            self.screen.good(f"{variant['name']}: {variant['size_bytes']:,} B, {variant['macs']:,} MACs{arena}")

    def _start_boards(self) -> None:
        self.screen.section(2, "Three boards join, one over MQTT, two over LwM2M; each waits until somebody lets it in")
        for board in BOARDS:
            self.stage.start_board(board, self.models)
        for board in BOARDS:
            self.watch.until(f"the birth of {board.id}", partial(self._is_online, board.id))
            device = self.client.command("devices.approve", {"device": board.id})
            about = device["board"]
            words = (
                f"{about['board']}, {_PROTOCOLS[board.protocol]} over {board.link}, arena {about['arena_bytes']:,} B"
            )
            self.screen.good(f"{board.id}: {words}, {about['runtime']} {about['runtime_version']}")

    def _send_data_or_model(self) -> None:
        self.screen.section(3, "Send the data or send the model? Requests name a sensor; the gateway decides")
        self._explain("where it ran, measured time and energy, in brackets what was predicted before")
        self._explain("first request: the worker starts and loads the model, which takes longer once")
        self._explain(
            "energy is the board's: computing, and its radio with 1 µJ per byte (assumed), so 696 bytes cost 696 µJ"
        )
        self._explain("cost is all of it in ms: 1 ms = 20 µJ = 100 B = 0.2 % risk of failure")
        self._explain("the gateway pushes the model by itself once the savings missed reach the cost of the push")
        self._explain("a push is compressed where the board can unpack it: fewer bytes travel than the file has")
        for board in (MIDDLE, BIG):
            self._until_on_device(board)

    def _explain(self, text: str) -> None:
        self.screen.line(f"   - {text}", hang=5)

    def _until_on_device(self, board: Board) -> None:
        seen: Counter[str] = Counter()
        for number in range(1, _MAX_REQUESTS + 1):
            answer = self._ask_sensor(board)
            where = answer["parameters"]["ran_on"]
            seen[where] += 1
            if seen[where] <= _SHOWN:
                self._show(f"{board.id} #{number}", answer)
            if seen[f"device:{board.id}"] >= _SHOWN:
                self.figures.append((f"{board.id}: requests until the model was there", str(seen["node"])))
                self._until_pushed(board, 1)
                return
        raise DemoError(f"{board.id} served nothing itself in {_MAX_REQUESTS} requests")

    def _ask_sensor(self, board: Board) -> Answer:
        return self.client.infer(MODEL, {"device": board.id, "input": "mic"})

    def _too_small(self) -> None:
        self.screen.section(
            4, "A board that is too small is refused before a byte is sent; its requests run on the node"
        )
        try:
            self.client.command("push", {"device": SMALL.id, "model": MODEL})
        except RefusedError as error:
            self.screen.bad(str(error))
        else:
            raise DemoError("the push to the small board was not refused")
        self._show(f"{SMALL.id} #1", self._ask_sensor(SMALL))

    def _accuracy(self) -> None:
        self.screen.section(
            5, f"Are the answers right? {len(self.recordings.expected)} real recordings against the model card"
        )
        card = json.loads((self.models / "card.json").read_text())["v1"]["int8"]
        self._check("node", self._node_accuracy(), card["litert"])
        self._check(f"device {BIG.id}", self._device_accuracy(BIG), card["tflm"])

    def _check(self, where: str, accuracy: float, card: float) -> None:
        text = f"{where}: {accuracy:.2%} right, the card says {card:.2%}"
        self.figures.append((f"accuracy on {where}", f"{accuracy:.2%} (card {card:.2%})"))
        if abs(accuracy - card) > _TOLERANCE:
            raise DemoError(text)
        self.screen.good(text)

    def _node_accuracy(self) -> float:
        answers = [
            self.client.infer_raw(MODEL, self.recordings.real_values(i)) for i in range(len(self.recordings.expected))
        ]
        return self._right(range(len(answers)), answers)

    def _device_accuracy(self, board: Board) -> float:
        wanted = len(self.recordings.expected)
        answers: dict[int, Answer] = {}
        while len(answers) < wanted:
            answer = self._ask_sensor(board)
            if answer["parameters"]["ran_on"] == f"device:{board.id}":
                answers[answer["parameters"]["sample"] % wanted] = answer
        return self._right(answers.keys(), answers.values())

    def _right(self, indices: Iterable[int], answers: Iterable[Answer]) -> float:
        names = [self.recordings.labels[self.recordings.expected[index]] for index in indices]
        said = [str(answer["parameters"]["label"]) for answer in answers]
        return sum(a == b for a, b in zip(names, said, strict=True)) / len(names)

    def _second_version(self) -> None:
        self._add_version(2)
        self.client.command(
            "models.alias",
            {"model": MODEL, "alias": "stable", "version": 2, "why": "demo: cross-validated higher, see the card"},
        )
        self.screen.good("stable now means version 2; the boards still run version 1")
        self._explain(f"this program, in the operator's place, now orders the push to {BIG.id} and to {MIDDLE.id}")
        for board in (BIG, MIDDLE):
            self.client.command("push", {"device": board.id, "model": f"{MODEL}@2"})
        for board in (BIG, MIDDLE):
            self._until_pushed(board, _SECOND)
            self._show(board.id, self._ask_sensor(board))

    def _until_pushed(self, board: Board, version: int) -> None:
        def is_over() -> bool:
            push = self.watch.pushes.get(board.id, {})
            return push.get("version") == version and push.get("state") in _ENDED

        self.watch.until(f"the end of the push to {board.id}", is_over, timeout_s=_PUSH_S)
        if self.watch.pushes[board.id]["state"] != "accepted":
            raise DemoError(f"the push to {board.id} ended {self.watch.pushes[board.id]}")

    def _unplugged(self) -> None:
        self.screen.section(7, f"{BIG.id} is unplugged; requests that prefer it fall back to the node")
        body = {"inputs": [self._inline(0)], "parameters": {"placement": f"prefer:device:{BIG.id}"}}
        self._show("before", self.client.infer(MODEL, body))
        self.stage.unplug(BIG.id)
        self._show("at once", self.client.infer(MODEL, body))
        self.watch.until(f"the will of {BIG.id}", lambda: not self._is_online(BIG.id))
        self._show("after", self.client.infer(MODEL, body))

    def _inline(self, index: int) -> Answer:
        content = self.recordings.real_values(index)
        values = list(struct.unpack(f"<{len(content) // 4}f", content))
        return {"name": "lpc", "shape": [1, 29, 1, 12], "datatype": "FP32", "data": values}

    def _is_online(self, device: str) -> bool:
        return bool(self.watch.devices.get(device, {}).get("online"))

    def _show(self, what: str, answer: Answer) -> None:
        told = answer["parameters"]
        predicted, measured = told["predicted"] or {}, told["measured"]
        time_ms = f"{measured['total_ms']:6.1f} ms ({predicted.get('latency_ms', 0):.1f})"
        energy = f"{measured['energy_uj']:4.0f} µJ ({predicted.get('energy_uj', 0):.0f})"
        self.screen.line(f"   {what:<11} {told['label']:<9}  {told['ran_on']:<14} {time_ms:<18} {energy}", hang=15)
        self.screen.line(f"   {'':<11} because {told['reason']}", hang=15)


def summary(story: Story, *, started_s: float, stays: bool) -> None:
    """Print what was shown and where to look further."""
    story.screen.section(8, "Summary")
    for name, value in story.figures:
        story.screen.line(f"   {name:<42} {value}")
    url = f"http://127.0.0.1:{story.stage.ports.http}/metrics"
    story.screen.line(f"   {'metrics':<42} {url if stays else f'{url} (with --stay)'}")
    story.screen.line(f"   {'took':<42} {time.monotonic() - started_s:.0f} s")
