# ruff: noqa: INP001 - a script
"""Train the speaker model and write its committed files: two versions (float32, int8) and the test samples.

    python models/speaker/train.py              write the files beside this script
    python models/speaker/train.py --check      train again elsewhere and compare with the committed files
    python models/speaker/train.py --validate   cross-validate the recipes on the training split

The environment: `pip install --require-hashes -r requirements/models.txt`, then
`pip install --no-deps --require-hashes -r requirements/models-data.txt`. The figures on the card come from measure.py.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from flatbuffer import write_float
from network import Layout
from quantise import write_int8
from training import GAINS, Recipe, cross_validate, fit
from vowels import COEFFICIENTS, FRACTION_BITS, FRAMES, SPEAKERS, Utterances, load

HERE: Final = Path(__file__).parent
FLOAT: Final = "speaker-float32.tflite"
INT8: Final = "speaker-int8.tflite"
RECIPES: Final = {
    "v1": Recipe(Layout(3, 16, 24), steps=200, frame_noise=0.0, utterance_noise=0.0, dropout=0.0),
    "v2": Recipe(Layout(7, 32, 40), steps=1000, frame_noise=0.1, utterance_noise=0.35, dropout=0.3),
}
"""v2 is the best of the recipes tried, v1 a small network trained briefly on undisturbed recordings; the card says how they
were chosen, by cross-validation inside the training split."""

_TOLERANCE: Final = 0.005
VALIDATION_SEEDS: Final = (11, 12, 13)


def main() -> int:
    """Do what the arguments say; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train the speaker model.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="compare a new training with the committed files")
    mode.add_argument("--validate", action="store_true", help="cross-validate on the training split")
    arguments = parser.parse_args()
    if arguments.validate:
        return validate()
    if arguments.check:
        return check()
    build(HERE)
    return 0


def build(folder: Path) -> None:
    """Train everything and write it into the folder."""
    training = load("TRAIN")
    for version, recipe in RECIPES.items():
        target = folder / version
        target.mkdir(parents=True, exist_ok=True)
        content = write_float(recipe.layout, fit(recipe, training), GAINS, f"speaker {version}")
        (target / FLOAT).write_bytes(content)
        small = write_int8(content, training.real())
        (target / INT8).write_bytes(small)
        _say(f"{version}: {recipe.layout.macs} MACs, {len(content)} bytes as float32, {len(small)} as int8")
    write_samples(folder, load("TEST"))


def write_samples(folder: Path, test: Utterances) -> None:
    """Write the test split as a sensor would give it."""
    (folder / "samples.bin").write_bytes(test.raw.astype("<i2").tobytes())
    about = {
        "dtype": "INT16",
        "shape": [1, FRAMES, 1, COEFFICIENTS],
        "scale": 2.0**-FRACTION_BITS,
        "zero": 0,
        "preprocessing": "lpc12@1",
        "count": len(test.speaker),
        "labels": [f"speaker-{number + 1}" for number in range(SPEAKERS)],
        "expected": test.speaker.tolist(),
        "source": "Kudo, Toyama, Shimbo: Japanese Vowels (test split), UCI Machine Learning Repository, doi:10.24432/C5NS47",
        "licence": "CC BY 4.0",
        "changes": "padded with zeros to 29 frames, rounded to int16 multiples of 2^-12",
    }
    lines = ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in about.items())
    (folder / "samples.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def check() -> int:
    """Train into a temporary folder and compare; 1 if a model's accuracy or a sample differs, otherwise 0."""
    with TemporaryDirectory() as folder:
        build(Path(folder))
        names = [f"{version}/{name}" for version in RECIPES for name in (FLOAT, INT8)]
        verdicts = [_compare(Path(folder), name) for name in [*names, "samples.bin", "samples.json"]]
    return 0 if all(verdicts) else 1


def validate() -> int:
    """Print each recipe's cross-validated accuracy."""
    training = load("TRAIN")
    for version, recipe in RECIPES.items():
        found = [cross_validate(recipe, training, seed) for seed in VALIDATION_SEEDS]
        _say(f"{version}: {sum(found) / len(found):.4f} (by seed: {', '.join(f'{one:.4f}' for one in found)})")
    return 0


def _compare(folder: Path, name: str) -> bool:
    """Say whether a new file is the committed one, or at least as accurate within the tolerance."""
    if (folder / name).read_bytes() == (HERE / name).read_bytes():
        _say(f"{name}: byte-identical")
        return True
    if not name.endswith(".tflite"):
        _say(f"{name}: DIFFERENT")
        return False
    new, committed = _accuracy(folder / name), _accuracy(HERE / name)
    close = abs(new - committed) <= _TOLERANCE
    _say(
        f"{name}: bytes differ; accuracy {new:.4f}, committed {committed:.4f}: {'close enough' if close else 'DIFFERENT'}"
    )
    return close


def _accuracy(model: Path) -> float:
    command = [sys.executable, str(HERE / "score.py"), "litert", str(model)]
    report = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own program
    return float(json.loads(report.stdout)["accuracy"])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
