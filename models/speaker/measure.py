# ruff: noqa: INP001 - a script
"""Measure the committed files and write the figures: card.json, and the table of card.md between its two marks.

    python models/speaker/measure.py --tflite-runtime /path/to/python

Runs in the training environment (see train.py), on x86-64 for tflite-micro; the named Python has tflite-runtime and numpy<2.
Every accuracy is over the whole of samples.bin, each engine in a child process.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from train import FLOAT, HERE, INT8, RECIPES, VALIDATION_SEEDS
from training import cross_validate
from vowels import load

_ENGINES: Final = ("litert", "tflite-runtime", "tflm")
_FILES: Final = {"float32": FLOAT, "int8": INT8}
_MARKS: Final = ("<!-- figures: written by measure.py -->", "<!-- end of figures -->")
_ARENA_STEP_BYTES: Final = 16
"""TensorFlow Lite Micro aligns its allocations to this."""
_MOST_ARENA_BYTES: Final = 262_144

Figures = dict[str, float]
"""Accuracy by engine, and `bytes` and `arena_bytes` of one file."""


def main() -> int:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description="Measure the committed speaker models.")
    parser.add_argument(
        "--tflite-runtime", type=Path, required=True, help="a Python with tflite-runtime 2.14 and numpy<2"
    )
    pythons = dict.fromkeys(_ENGINES, sys.executable) | {"tflite-runtime": str(parser.parse_args().tflite_runtime)}
    training = load("TRAIN")
    card: dict[str, dict[str, float | Figures]] = {}
    for version, recipe in RECIPES.items():
        validated = [cross_validate(recipe, training, seed) for seed in VALIDATION_SEEDS]
        card[version] = {"macs": recipe.layout.macs, "parameters": recipe.layout.size}
        card[version]["cross_validated"] = round(sum(validated) / len(validated), 4)
        card[version] |= {kind: _figures(HERE / version / name, pythons) for kind, name in _FILES.items()}
    (HERE / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    _write_table(HERE / "card.md", table(card))
    sys.stdout.write(table(card))
    return 0


def table(card: dict[str, dict[str, float | Figures]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| version | file | bytes | MACs | smallest TFLM arena (bytes) | LiteRT | tflite-runtime | TFLM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for version, about in card.items():
        for kind in _FILES:
            figures = about[kind]
            if isinstance(figures, dict):
                rates = " | ".join(f"{figures[engine]:.2%}" for engine in _ENGINES)
                sizes = f"{figures['bytes']:,} | {about['macs']:,} | {figures['arena_bytes']:,}"
                lines.append(f"| {version} | {kind} | {sizes} | {rates} |")
    return "\n".join(lines) + "\n"


def _figures(model: Path, pythons: dict[str, str]) -> Figures:
    figures: Figures = {engine: _accuracy(pythons[engine], engine, model) for engine in _ENGINES}
    return figures | {"bytes": model.stat().st_size, "arena_bytes": _smallest_arena(pythons["tflm"], model)}


def _accuracy(python: str, engine: str, model: Path) -> float:
    report = subprocess.run(_command(python, engine, model), check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return float(json.loads(report.stdout)["accuracy"])


def _smallest_arena(python: str, model: Path) -> int:
    """By bisection: the smallest arena in which the model loads and runs; a crash counts as too small."""
    too_small, enough = 0, _MOST_ARENA_BYTES // _ARENA_STEP_BYTES
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        size = str(middle * _ARENA_STEP_BYTES)
        command = [*_command(python, "tflm", model), "--arena", size, "--count", "3"]
        ran = subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603 - our own program
        too_small, enough = (too_small, middle) if ran else (middle, enough)
    return enough * _ARENA_STEP_BYTES


def _command(python: str, engine: str, model: Path) -> list[str]:
    return [python, str(HERE / "score.py"), engine, str(model)]


def _write_table(path: Path, content: str) -> None:
    before, rest = path.read_text(encoding="utf-8").split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    path.write_text(f"{before}{_MARKS[0]}\n{content}{_MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
