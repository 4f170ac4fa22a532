"""LiteRT and tflite-runtime: the same interpreter under two names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from .engines import EngineMissing, ModelRefused, Result, Spec, check_counts, check_inputs, make_spec

_PACKAGES = {"litert": ("ai_edge_litert", "ai-edge-litert"), "tflite-runtime": ("tflite_runtime", "tflite-runtime")}
# What an interpreter raises on a model it will not take.
_REFUSALS = (RuntimeError, ValueError, TypeError, MemoryError, OverflowError, OSError)


def open_engine(name: str) -> TfliteEngine:
    """Import the package behind `name`. Raises: ImportError."""
    module, distribution = _PACKAGES[name]
    interpreter = importlib.import_module(module + ".interpreter").Interpreter
    version = getattr(importlib.import_module(module), "__version__", None) or _installed_version(distribution)
    return TfliteEngine(name, str(version), interpreter)


def _installed_version(distribution: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    return str(metadata.version(distribution))


class TfliteEngine:
    """An engine with the TensorFlow Lite `Interpreter` interface."""

    def __init__(self, name: str, version: str, interpreter: Any) -> None:  # noqa: ANN401 # a class of an untyped package
        self.name = name
        self.version = version
        self._interpreter = interpreter

    def load(self, path: str, arena_bytes: int | None) -> TfliteModel:  # noqa: ARG002 # part of the seam; TFLM needs it
        """Load and plan. Raises: ModelRefused; EngineMissing when the engine was built for another numpy."""
        try:
            interpreter = self._interpreter(model_path=path, num_threads=1)
            interpreter.allocate_tensors()
            return TfliteModel(interpreter)
        except _REFUSALS as error:
            said = str(error) or "no reason given, mostly too little memory"
            raise ModelRefused(f"{type(error).__name__}: {said}") from error
        except SystemError as error:  # what tflite-runtime 2.14 says under numpy 2, which it was not built for
            message = (
                f"{self.name} {self.version} does not work with numpy {np.__version__}: pip install 'numpy<2' beside it"
            )
            raise EngineMissing(message) from error


class TfliteModel:
    """A model in an interpreter."""

    def __init__(self, interpreter: Any) -> None:  # noqa: ANN401 # an object of an untyped package
        self._interpreter = interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        check_counts(len(inputs), len(outputs))
        self.inputs = [_spec(each) for each in inputs]
        self.outputs = [_spec(each) for each in outputs]
        self._slots = [(each["index"], each["dtype"], tuple(each["shape"])) for each in inputs]
        self._output_indices = [each["index"] for each in outputs]

    def invoke(self, blobs: Sequence[bytes]) -> Result:
        """Set, run, copy out. Raises: BadInput, ModelRefused."""
        check_inputs(self.inputs, blobs)
        started = perf_counter()
        try:
            outputs = self._run(blobs)
        except _REFUSALS as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error
        return Result(outputs, perf_counter() - started)

    def _run(self, blobs: Sequence[bytes]) -> list[bytes]:
        interpreter = self._interpreter
        for number, (index, dtype, shape) in enumerate(self._slots):
            interpreter.set_tensor(index, np.frombuffer(blobs[number], dtype).reshape(shape))
        interpreter.invoke()
        return [interpreter.get_tensor(index).tobytes() for index in self._output_indices]


def _spec(details: dict[str, Any]) -> Spec:
    scale, zero_point = details["quantization"]
    return make_spec(details["name"], details["dtype"], details["shape"], scale=scale, zero_point=zero_point)
