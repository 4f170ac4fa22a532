"""What this machine adds to a request: measured once, on a board and links of its own, before anything is compared."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.agreement_cases import Board, Machine
from bench.agreement_models import model
from bench.agreement_real import Answer, Rig
from gatewayd.simulate.carriage import PROTOCOLS, Overheads

_LINK = ("wifi", 0.02, 1e6)
_TIMES, _PAUSE_S = (
    40,
    0.02,
)  # as apart as requests of the scenarios: what sleeps between two of them wakes up more slowly
_MODEL = "sound"


class _Exact(Board):
    """A board that is as its profile says."""

    def arguments(self) -> list[str]:
        return [*super().arguments(), "--spread", "0"]


def calibrated(folder: Path, broker_port: int, models: Sequence[str]) -> Machine:
    """Measure: requests to the node, to sensors over either protocol, and a push."""
    boards = {name: _Exact(f"cal{name}", "nucleo-h7a3zi-q", _LINK, _MODEL, name) for name in PROTOCOLS}
    with Rig(folder, "gateway0", broker_port, automatic=False) as rig:
        for name in {*models, _MODEL}:
            rig.add_model(name)
        for board in boards.values():
            rig.add_board(board)
        rig.wait_for_boards()
        node_s = {name: _computing_s(rig, name) for name in sorted({*models, _MODEL})}
        found = {name: _to_sensor_s(rig, board) for name, board in boards.items()}
        exchange_s = {name: each for name, (_, each) in found.items()}
        push_s, chunk_s = _pushed(rig, boards["mqtt"], exchange_s["mqtt"])
    told = Overheads(
        request_ms=1000 * statistics.fmean(each for each, _ in found.values()),
        mqtt_ms=1000 * exchange_s["mqtt"],
        lwm2m_ms=1000 * exchange_s["lwm2m"],
        chunk_ms=1000 * chunk_s,
        push_ms=1000 * push_s,
    )
    return Machine(told, node_s)


def _asked(ask: Callable[[], Answer]) -> tuple[list[float], list[Answer]]:
    """Return the seconds of requests, and what was measured on the way."""
    ask()
    seconds, measured = [], []
    for _ in range(_TIMES):
        time.sleep(_PAUSE_S)
        begun_s = time.monotonic()
        answer = ask()
        seconds.append(time.monotonic() - begun_s)
        measured.append(answer["parameters"]["measured"])
    return seconds, measured


def _computing_s(rig: Rig, name: str) -> float:
    _, measured = _asked(lambda: rig.infer_raw(name))
    return _trimmed([each["compute_ms"] / 1000 for each in measured])


def _trimmed(values: Sequence[float]) -> float:
    cut = len(values) // 20
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def _to_sensor_s(rig: Rig, board: Board) -> tuple[float, float]:
    """Return what a request takes beside its way to the device and computing, and a question to a device beside its link."""
    told = PROTOCOLS[board.protocol]
    body = {"device": board.id, "input": "sensor", "parameters": {"placement": "node"}}
    seconds, measured = _asked(lambda: rig.infer(board.sensor, body))
    rest_s = [
        whole_s - (each["transfer_ms"] + each["compute_ms"]) / 1000
        for whole_s, each in zip(seconds, measured, strict=True)
    ]
    _, rtt_s, rate = _LINK
    carried = told.sample_steps * (told.question + told.answer) + told.sample_bytes + model(board.sensor).sample_bytes
    transfer_s = _trimmed([each["transfer_ms"] / 1000 for each in measured])
    return _trimmed(rest_s), max(0.0, (transfer_s - carried / rate) / told.sample_steps - rtt_s)


def _pushed(rig: Rig, board: Board, exchange_s: float) -> tuple[float, float]:
    """Return what a push takes beside its questions, and each of its chunks beside that. The air is not asked for meanwhile."""
    time.sleep(5.2)  # so long after a request pushes are held back for others (gatewayd.core.airtime)
    made, told, (rtt_s, rate) = model(board.sensor), PROTOCOLS[board.protocol], _LINK[1:]
    begun_s = time.monotonic()
    rig.verb("push", {"device": board.id, "model": board.sensor})
    answered_s = time.monotonic() - begun_s
    while not all(each["offset"] >= made.stream_bytes for each in rig.pushes()):
        time.sleep(0.005)
    elapsed_s = time.monotonic() - begun_s - answered_s
    chunks = -(-made.stream_bytes // 1024)
    carried = made.stream_bytes + chunks * (told.chunk_down + told.chunk_up) + told.offer_bytes
    link_s = (chunks + told.offer_steps) * (rtt_s + exchange_s) + carried / rate
    return answered_s, max(0.0, (elapsed_s - link_s) / chunks)
