# ruff: noqa: INP001 - a program of its own
"""Run one model file on the committed samples with one engine; print one line of JSON. Needs numpy and that engine only.

A program of its own because the engines need different environments and may crash on a bad file or a small arena:

    python score.py litert v1/speaker-int8.tflite
    python score.py tflm v1/speaker-int8.tflite --arena 8192 --count 1
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], Any]
"""Stored input values to stored output values, both numpy arrays of the model's own dtype and shape."""

_ARENA_BYTES = 262_144
"""More than any of these models needs; what they need is found by trying smaller ones."""


def main() -> int:
    """Print `{"correct", "count", "accuracy", "answers"}`; the status is 0 unless the model did not run."""
    arguments = _arguments()
    about = json.loads((arguments.samples / "samples.json").read_text(encoding="utf-8"))
    raw = np.fromfile(arguments.samples / "samples.bin", np.dtype("<i2")).reshape(-1, *about["shape"])
    count = arguments.count or len(raw)
    real = (raw[:count].astype(np.float64) - about["zero"]) * about["scale"]
    ends, run = open_engine(arguments.engine, arguments.model, arguments.arena)
    answers = [int(np.argmax(run(stored(sample, *ends)))) for sample in real]
    correct = sum(answer == wanted for answer, wanted in zip(answers, about["expected"], strict=False))
    report = {"correct": correct, "count": count, "accuracy": round(correct / count, 6), "answers": answers}
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def stored(real: Any, dtype: Any, scale: float, zero: int) -> Any:  # noqa: ANN401 - arrays of numpy 1 and 2 alike
    """Real values as the model stores them; a scale of 0 means float."""
    if not scale:
        return real.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(real / scale) + zero, limits.min, limits.max).astype(dtype)


def open_engine(engine: str, model: Path, arena: int) -> tuple[tuple[Any, float, int], Run]:
    """Load a model; returns dtype, scale and zero point of its input, and the function that runs it."""
    if engine == "tflm":
        return _open_micro(model, arena)
    return _open_lite(engine, model)


def _open_lite(engine: str, model: Path) -> tuple[tuple[Any, float, int], Run]:
    if engine == "litert":
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]  # noqa: PLC0415 - one engine is installed
    else:
        from tflite_runtime.interpreter import (  # type: ignore[import-not-found]  # noqa: PLC0415 - one engine is installed
            Interpreter,
        )
    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(values: Any) -> Any:  # noqa: ANN401 - as `Run`
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return (source["dtype"], *source["quantization"]), run


def _open_micro(model: Path, arena: int) -> tuple[tuple[Any, float, int], Run]:
    from tflite_micro.python.tflite_micro import runtime  # type: ignore[import-untyped]  # noqa: PLC0415 - one engine is installed

    interpreter = runtime.Interpreter.from_file(str(model), arena_size=arena)
    source = interpreter.get_input_details(0)
    quantised = source["quantization_parameters"]
    scale = float(quantised["scales"][0]) if len(quantised["scales"]) else 0.0
    zero = int(quantised["zero_points"][0]) if scale else 0

    def run(values: Any) -> Any:  # noqa: ANN401 - as `Run`
        interpreter.set_input(values, 0)
        interpreter.invoke()
        return interpreter.get_output(0)

    return (source["dtype"], scale, zero), run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy of one model file on the committed samples.")
    parser.add_argument("engine", choices=["litert", "tflite-runtime", "tflm"])
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--samples", type=Path, default=Path(__file__).parent, help="folder of samples.bin and samples.json"
    )
    parser.add_argument(
        "--arena", type=int, default=_ARENA_BYTES, help="bytes of memory for tflm (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=0, help="only the first so many samples (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
