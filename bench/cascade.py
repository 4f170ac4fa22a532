"""A cascade on real data: speaker v1 on the device, v2 on the node for what v1 is not sure of, the threshold learned online.

Data: the test split of Japanese Vowels (Kudo, Toyama, Shimbo; UCI, CC BY 4.0), models/speaker/samples.bin: 370 utterances, asked
in random order again and again. Compared with running v2 on the device. The node's answer is the only feedback, and only when
it was asked. Time and energy: the boards' measured speed (MLPerf Tiny, KWS) by MACs, a BLE link, 1 µJ per byte sent.
"""

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]  # ships no types

from bench.common import BUILD, ROOT, Report
from gatewayd.core.cascade import BINS, Cascade, Prices, level_of
from gatewayd.core.cost import Costs, Weights
from gatewayd.simulate.boards import BOARDS, LINKS, MODELS, Board
from gatewayd.simulate.plot import curves_plot

Reals = npt.NDArray[np.float64]

SPEAKER = ROOT / "models" / "speaker"
SMALL_MACS, BIG_MACS = 50_328, 338_152
INPUT_BYTES = 29 * 12 * 2
# What the operator says a wrong answer is worth, in J (milliseconds' worth): asking costs about a tenth of it.
WRONG_J = 1000.0
LINK = LINKS["ble"]
BOARD = "nucleo-g0b1re"
SEEDS = range(5)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model says to every utterance: its label, and how sure it is."""

    labels: list[int]
    confidence: list[float]


def answers(path: Path, samples: Reals) -> Answers:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
    labels, confidence = [], []
    for sample in samples:
        interpreter.set_tensor(given["index"], _stored(sample, given))
        interpreter.invoke()
        scores = _real(interpreter.get_tensor(told["index"])[0], told)
        labels.append(int(scores.argmax()))
        confidence.append(float(scores.max()))
    return Answers(labels, confidence)


def _stored(real: Reals, detail: Mapping[str, tuple[float, int]]) -> npt.NDArray[np.int8]:
    scale, zero = detail["quantization"]
    stored: npt.NDArray[np.int8] = np.clip(np.rint(real / scale) + zero, -128, 127).astype(np.int8)
    return stored[None]


def _real(stored: npt.NDArray[np.int8], detail: Mapping[str, tuple[float, int]]) -> Reals:
    scale, zero = detail["quantization"]
    return (stored.astype(np.float64) - zero) * scale


@dataclass(frozen=True, slots=True)
class Course:
    """One run: the share asked, the share right by the true label, regret at some moments."""

    asked: float
    right: float
    regret: list[tuple[int, float]]


def course(small: Answers, big: Answers, truth: list[int], prices: Prices, *, count: int, seed: int) -> Course:
    chance, cascade = random.Random(seed), Cascade()
    wrong_share = _wrong_shares(small, big)
    asked = right = 0
    regret, regrets, next_at = 0.0, [], 10.0
    for turn in range(1, count + 1):
        index = chance.randrange(len(truth))
        confidence = small.confidence[index]
        wants = cascade.wants_second(confidence, prices)
        cascade = cascade.answered()
        accepting = prices.wrong * wrong_share[level_of(confidence)]
        regret += (prices.asking if wants else accepting) - min(prices.asking, accepting)
        if wants:
            asked += 1
            cascade = cascade.learned(confidence, was_wrong=small.labels[index] != big.labels[index])
        right += (big if wants else small).labels[index] == truth[index]
        if turn >= next_at:
            regrets.append((turn, regret))
            next_at *= 10.0**0.25
    return Course(asked / count, right / count, [*regrets, (count, regret)])


def _wrong_shares(small: Answers, big: Answers) -> list[float]:
    """Return how often each level is wrong, by the node's opinion: known afterwards, for the regret only."""
    seen, wrong = [0] * BINS, [0] * BINS
    for mine, sure, theirs in zip(small.labels, small.confidence, big.labels, strict=True):
        seen[level_of(sure)] += 1
        wrong[level_of(sure)] += mine != theirs
    return [bad / count if count else 0.0 for bad, count in zip(wrong, seen, strict=True)]


def costs(board: Board, asked: float) -> tuple[Costs, Costs]:
    """Return what one answer costs on average: by the cascade, and by the big model on the device."""
    per_mac_s = board.seconds["kws"] / MODELS["kws"].macs
    per_mac_uj = board.energy_uj["kws"] / MODELS["kws"].macs
    trip_s = LINK.rtt_s + INPUT_BYTES / LINK.bytes_per_s + MODELS["speaker"].node_s
    cascade = Costs(SMALL_MACS * per_mac_s + asked * trip_s, SMALL_MACS * per_mac_uj + asked * INPUT_BYTES, 0.0, 0.0)
    return cascade, Costs(BIG_MACS * per_mac_s, BIG_MACS * per_mac_uj, 0.0, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30_000)
    count = parser.parse_args().count
    start_s = time.perf_counter()
    about = json.loads((SPEAKER / "samples.json").read_text())
    raw = np.fromfile(SPEAKER / "samples.bin", "<i2").reshape(about["count"], *about["shape"][1:])
    samples, truth = raw * about["scale"], [int(each) for each in about["expected"]]
    small = answers(SPEAKER / "v1" / "speaker-int8.tflite", samples)
    big = answers(SPEAKER / "v2" / "speaker-int8.tflite", samples)
    trip = Costs(LINK.rtt_s + INPUT_BYTES / LINK.bytes_per_s, INPUT_BYTES, INPUT_BYTES, LINK.loss)
    prices = Prices(WRONG_J, Weights().total(trip))
    runs = [course(small, big, truth, prices, count=count, seed=seed) for seed in SEEDS]
    report = Report("cascade")
    _fill(report, runs, small, big, truth)
    mean = [(turn, statistics.fmean(run.regret[at][1] for run in runs)) for at, (turn, _) in enumerate(runs[0].regret)]
    curve = [(math.log(turn), regret) for turn, regret in mean]
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "cascade-regret.svg").write_text(
        curves_plot([("regret", curve)], title="Second opinions: regret over ln T", across="ln T", up="J")
    )
    by_turn = dict(mean)
    middle = min(by_turn, key=lambda turn: abs(turn - count / 10))
    report.add("regret_J", mean[-1][1])
    report.add("regret_growth_last_decade", mean[-1][1] / max(by_turn[middle], 1e-9))
    report.add("log_growth_last_decade", math.log(count) / math.log(middle))
    report.add("seconds", time.perf_counter() - start_s)
    report.finish()


def _fill(report: Report, runs: list[Course], small: Answers, big: Answers, truth: list[int]) -> None:
    asked = statistics.fmean(run.asked for run in runs)
    right = statistics.fmean(run.right for run in runs)
    accuracy = {
        name: statistics.fmean(mine == true for mine, true in zip(each.labels, truth, strict=True))
        for name, each in (("small", small), ("big", big))
    }
    report.add("asked_share", asked)
    report.add("accuracy_small_percent", 100 * accuracy["small"])
    report.add("accuracy_big_percent", 100 * accuracy["big"])
    report.add("accuracy_cascade_percent", 100 * right)
    report.add("points_below_big", 100 * (accuracy["big"] - right), ("<=", 0.5))
    saved = {}
    for name, board in BOARDS.items():
        mine, theirs = costs(board, asked)
        saved[name] = (1 - mine.latency_s / theirs.latency_s, 1 - mine.energy_uj / theirs.energy_uj)
    report.add("latency_saved", saved[BOARD][0], (">=", 0.6))
    report.add("energy_saved", saved[BOARD][1], (">=", 0.6))
    for name, (latency, energy) in saved.items():
        report.add(f"latency_saved_{name}", latency)
        report.add(f"energy_saved_{name}", energy)
    _fill_beyond(report, asked)
    report.add("boards_with_60_percent_of_both", sum(min(each) >= 0.6 for each in saved.values()))


def _fill_beyond(report: Report, asked: float) -> None:
    """Tell what a big model must take on a board for 60 % to be saved, at the share of MACs and of questions seen here.

    small + asked·trip <= 0.4·big, with small in the ratio of the MACs. Then count the boards on which a measured model does.
    """
    left = 0.4 - SMALL_MACS / BIG_MACS
    from_s = asked * (LINK.rtt_s + INPUT_BYTES / LINK.bytes_per_s + MODELS["speaker"].node_s) / left
    from_uj = asked * INPUT_BYTES / left
    report.add("pays_from_big_model_ms", 1000 * from_s)
    report.add("pays_from_big_model_uj", from_uj)
    for model in ("kws", "vww", "ic"):
        found = [board for board in BOARDS.values() if model in board.seconds]
        pays = [board for board in found if board.seconds[model] >= from_s and board.energy_uj[model] >= from_uj]
        report.add(f"boards_where_one_like_{model}_would_pay", float(len(pays)))


if __name__ == "__main__":
    main()
