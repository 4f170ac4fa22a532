"""TensorFlow Lite Micro: the interpreter that runs on devices, here on the host. Its memory is one arena of a given size."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .engines import ModelRefused, Spec, check_counts, check_filled, make_spec

DEFAULT_ARENA_BYTES = 4 * 1024 * 1024
# What the interpreter and the flatbuffer reader before it raise on a model they will not take.
_REFUSALS = (
    RuntimeError, ValueError, TypeError, MemoryError, OverflowError, OSError,
    struct.error, LookupError, AttributeError, RecursionError,
)  # fmt: skip


def open_engine(name: str, options: Mapping[str, object]) -> TflmEngine:  # noqa: ARG001 # part of the seam; it has none
    """Import the package. Raises: ImportError."""
    runtime = importlib.import_module("tflite_micro").runtime
    metadata = importlib.import_module("importlib.metadata")
    return TflmEngine(name, str(metadata.version("tflite-micro")), runtime)


class TflmEngine:
    """TFLM with every built-in operator registered."""

    def __init__(self, name: str, version: str, runtime: Any) -> None:  # noqa: ANN401 # a module of an untyped package
        self.name = name
        self.devices = ["CPU"]
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

    def invoke(self, inputs: Sequence[memoryview], outputs: Sequence[memoryview]) -> None:
        """Set, run, copy out. Raises: ModelRefused."""
        interpreter = self._interpreter
        try:
            for index, (dtype, shape) in enumerate(self._slots):
                interpreter.set_input(np.frombuffer(inputs[index], dtype).reshape(shape), index)
            interpreter.invoke()
            results = [interpreter.get_output(index).tobytes() for index in range(len(self.outputs))]
        except _REFUSALS as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error
        for index, content in enumerate(results):
            check_filled(index, len(content), len(outputs[index]))
            outputs[index][:] = content


def _name(graph: Any, tensor: int) -> str:  # noqa: ANN401 # an object of an untyped package
    name = graph.tensors[tensor].name
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _spec(details: dict[str, Any], name: str) -> Spec:
    quantization = details["quantization_parameters"]
    is_quantized = len(quantization["scales"]) == 1
    scale = float(quantization["scales"][0]) if is_quantized else 0.0
    zero_point = int(quantization["zero_points"][0]) if is_quantized else 0
    return make_spec(name, details["dtype"], details["shape"], scale=scale, zero_point=zero_point)
