# ruff: noqa: INP001 - modules of one script's directory, not a package
"""The "Japanese Vowels" data set as the sensor gives it: fixed-point frames, padded with zeros to one length.

The files are read from the installed package `aeon` without importing it.
Source: Kudo, Toyama, Shimbo: Japanese Vowels, UCI Machine Learning Repository, doi:10.24432/C5NS47, CC BY 4.0.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

FRAMES = 29
COEFFICIENTS = 12
SPEAKERS = 9
FRACTION_BITS = 12
"""Sensor values are int16 with scale 2^-12: a range of ±8 for coefficients that stay within ±2.3."""


@dataclass(frozen=True, slots=True)
class Utterances:
    """One split: `raw` int16 [n, FRAMES, COEFFICIENTS], `length` frames per utterance [n], `speaker` 0..8 [n]."""

    raw: npt.NDArray[np.int16]
    length: npt.NDArray[np.int64]
    speaker: npt.NDArray[np.int64]

    def real(self) -> npt.NDArray[np.float64]:
        """The samples as real values."""
        return self.raw.astype(np.float64) * 2.0**-FRACTION_BITS

    def subset(self, chosen: npt.NDArray[np.bool_]) -> "Utterances":
        """Only the chosen utterances."""
        return Utterances(self.raw[chosen], self.length[chosen], self.speaker[chosen])


def load(split: str) -> Utterances:
    """Read `TRAIN` (270 utterances) or `TEST` (370, recorded on other occasions).

    Raises:
        FileNotFoundError: aeon is not installed in this environment.
    """
    lines = _path(split).read_text(encoding="utf-8").split("@data")[1].split()
    parsed = [_utterance(line) for line in lines]
    return Utterances(
        raw=np.stack([_fixed_point(frames) for frames, _ in parsed]),
        length=np.array([len(frames) for frames, _ in parsed]),
        speaker=np.array([speaker for _, speaker in parsed]),
    )


def _path(split: str) -> Path:
    spec = find_spec("aeon")
    if spec is None or spec.origin is None:
        message = "package aeon is missing: pip install --no-deps --require-hashes -r requirements/models-data.txt"
        raise FileNotFoundError(message)
    return Path(spec.origin).parent / "datasets" / "data" / "JapaneseVowels" / f"JapaneseVowels_{split}.ts"


def _utterance(line: str) -> tuple[npt.NDArray[np.float64], int]:
    """Split `c1 frames:c2 frames:…:c12 frames:speaker` into frames [n, COEFFICIENTS] and speaker 0..8."""
    *coefficients, speaker = line.split(":")
    frames = np.array([[float(value) for value in series.split(",")] for series in coefficients]).T
    return frames, int(speaker) - 1


def _fixed_point(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    padded = np.zeros((FRAMES, COEFFICIENTS), np.int16)
    padded[: len(frames)] = np.rint(frames * 2**FRACTION_BITS)
    return padded
