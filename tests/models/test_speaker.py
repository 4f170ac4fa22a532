"""The committed speaker models do what their card says, on the committed samples, in the engines of this environment."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEAKER = Path(__file__).parents[2] / "models" / "speaker"
CARD = json.loads((SPEAKER / "card.json").read_text())
SAMPLES = json.loads((SPEAKER / "samples.json").read_text())
TOLERANCE = 0.005
FILES = [(version, kind) for version in ("v1", "v2") for kind in ("float32", "int8")]
MICRO_RUNS = sys.platform == "linux" and platform.machine() == "x86_64"
on_micro = pytest.mark.skipif(not MICRO_RUNS, reason="tflite-micro has wheels for x86-64 Linux only")


def score(engine: str, version: str, kind: str, *options: str) -> subprocess.CompletedProcess[str]:
    model = SPEAKER / version / f"speaker-{kind}.tflite"
    command = [sys.executable, str(SPEAKER / "score.py"), engine, str(model), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def report(engine: str, version: str, kind: str, *options: str) -> dict[str, Any]:
    done = score(engine, version, kind, *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("version", "kind"), FILES)
def test_litert_is_as_accurate_as_the_card_says(version: str, kind: str) -> None:
    found = report("litert", version, kind)
    assert found["count"] == 370
    assert found["accuracy"] == pytest.approx(CARD[version][kind]["litert"], abs=TOLERANCE)


@on_micro
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_micro_in_its_smallest_arena_is_as_accurate_as_the_card_says(version: str) -> None:
    figures = CARD[version]["int8"]
    found = report("tflm", version, "int8", "--arena", str(figures["arena_bytes"]))
    assert found["count"] == 370
    assert found["accuracy"] == pytest.approx(figures["tflm"], abs=TOLERANCE)


@on_micro
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_micro_does_not_run_in_less_than_the_smallest_arena(version: str) -> None:
    less = CARD[version]["int8"]["arena_bytes"] - 512
    assert score("tflm", version, "int8", "--arena", str(less), "--count", "1").returncode != 0


def test_the_samples_are_370_and_every_speaker_is_among_them() -> None:
    assert SAMPLES["count"] == len(SAMPLES["expected"]) == 370
    assert (SPEAKER / "samples.bin").stat().st_size == 370 * 29 * 12 * 2
    utterances_per_speaker = [SAMPLES["expected"].count(index) for index in range(len(SAMPLES["labels"]))]
    assert utterances_per_speaker == [31, 35, 88, 44, 29, 24, 40, 50, 29]  # Source: the data set's description at UCI


@pytest.mark.parametrize(("version", "kind"), FILES)
def test_the_card_for_people_has_the_figures_of_the_card_for_programs(version: str, kind: str) -> None:
    figures = CARD[version][kind]
    rates = " | ".join(f"{figures[engine]:.2%}" for engine in ("litert", "tflite-runtime", "tflm"))
    sizes = f"{figures['bytes']:,} | {CARD[version]['macs']:,} | {figures['arena_bytes']:,}"
    assert f"| {version} | {kind} | {sizes} | {rates} |" in (SPEAKER / "card.md").read_text()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_card_names_parameters_and_cross_validation(version: str) -> None:
    card = (SPEAKER / "card.md").read_text()
    assert f"{CARD[version]['parameters']:,} parameters" in card
    assert f"{CARD[version]['cross_validated']:.2%} for {version}".replace("%", " %") in card


@pytest.mark.parametrize(("version", "kind"), FILES)
def test_the_card_has_the_size_of_the_file(version: str, kind: str) -> None:
    assert (SPEAKER / version / f"speaker-{kind}.tflite").stat().st_size == CARD[version][kind]["bytes"]
