"""TensorFlow Lite Micro: the interpreter that runs on devices, here on the host. Its memory is one arena of a given size."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .engines import ModelRefused, Result, Spec, check_counts, check_inputs, make_spec

DEFAULT_ARENA_BYTES = 4 * 1024 * 1024
# What the interpreter and the flatbuffer reader before it raise on a model they will not take.
_REFUSALS = (
    RuntimeError, ValueError, TypeError, MemoryError, OverflowError, OSError,
    struct.error, LookupError, AttributeError, RecursionError,
)  # fmt: skip


def open_engine(name: str) -> TflmEngine:
    """Import the package. Raises: ImportError."""
    runtime = importlib.import_module("tflite_micro").runtime
    metadata = importlib.import_module("importlib.metadata")
    return TflmEngine(name, str(metadata.version("tflite-micro")), runtime)


class TflmEngine:
    """TFLM with every built-in operator registered."""

    def __init__(self, name: str, version: str, runtime: Any) -> None:  # noqa: ANN401 # a module of an untyped package
        self.name = name
        self.version = version
        self._runtime = runtime

    def load(self, path: str, arena_bytes: int | None) -> TflmModel:
        """Load into an arena of `arena_bytes` (None: 4 MiB). Raises: ModelRefused; too small an arena may kill the process."""
        try:
            content = Path(path).read_bytes()
            graph = self._runtime.convert_bytearray_to_object(content).subgraphs[0]
            interpreter = self._runtime.Interpreter.from_bytes(content, arena_size=arena_bytes or DEFAULT_ARENA_BYTES)
            return TflmModel(interpreter, graph, content)
        except _REFUSALS as error:
            raise ModelRefused(f"{type(error).__name__}: {error}") from error


class TflmModel:
    """A model in an interpreter, which tells neither names nor how many inputs there are: the flatbuffer's graph does."""

    def __init__(self, interpreter: Any, graph: Any, content: bytes) -> None:  # noqa: ANN401 # objects of an untyped package
        self._interpreter = interpreter
        self._content = content  # the interpreter reads weights from it in place
        check_counts(len(graph.inputs), len(graph.outputs))
        details = [interpreter.get_input_details(index) for index in range(len(graph.inputs))]
        self.inputs = [_spec(each, _name(graph, graph.inputs[index])) for index, each in enumerate(details)]
        self.outputs = [
            _spec(interpreter.get_output_details(index), _name(graph, tensor))
            for index, tensor in enumerate(graph.outputs)
        ]
        self._slots = [(each["dtype"], tuple(each["shape"])) for each in details]

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
        for index, (dtype, shape) in enumerate(self._slots):
            interpreter.set_input(np.frombuffer(blobs[index], dtype).reshape(shape), index)
        interpreter.invoke()
        return [interpreter.get_output(index).tobytes() for index in range(len(self.outputs))]


def _name(graph: Any, tensor: int) -> str:  # noqa: ANN401 # an object of an untyped package
    name = graph.tensors[tensor].name
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _spec(details: dict[str, Any], name: str) -> Spec:
    quantization = details["quantization_parameters"]
    is_quantized = len(quantization["scales"]) == 1
    scale = float(quantization["scales"][0]) if is_quantized else 0.0
    zero_point = int(quantization["zero_points"][0]) if is_quantized else 0
    return make_spec(name, details["dtype"], details["shape"], scale=scale, zero_point=zero_point)
