"""LiteRT and tflite-runtime: the same interpreter under two names, with or without a delegate (an Edge TPU is one)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .engines import EngineMissing, ModelRefused, Spec, check_counts, check_filled, make_spec, text_option

_PACKAGES = {"litert": ("ai_edge_litert", "ai-edge-litert"), "tflite-runtime": ("tflite_runtime", "tflite-runtime")}
# What an interpreter raises on a model it will not take.
_REFUSALS = (RuntimeError, ValueError, TypeError, MemoryError, OverflowError, OSError)
# What loading a delegate raises: no such library, a library that is no delegate, a delegate that finds no device.
_NO_DELEGATE = (OSError, AttributeError, ValueError, RuntimeError)


def import_package(name: str) -> None:
    """Import what `open_engine` will ask for. Raises: ImportError."""
    importlib.import_module(_PACKAGES[name][0] + ".interpreter")


def open_engine(name: str, options: Mapping[str, object]) -> TfliteEngine:
    """Import the package behind `name`, and load the delegate named in `options`. Raises: ImportError, EngineMissing."""
    module, distribution = _PACKAGES[name]
    package = importlib.import_module(module + ".interpreter")
    version = getattr(importlib.import_module(module), "__version__", None) or _installed_version(distribution)
    return TfliteEngine(name, str(version), package.Interpreter, _delegate_maker(package.load_delegate, options))


def _delegate_maker(load: Any, options: Mapping[str, object]) -> Callable[[], list[Any]]:  # noqa: ANN401 # a function of an untyped package
    """Return what makes the delegates of one interpreter; loads the library once, so that its absence is told now."""
    library = text_option(options, "delegate")
    if not library:
        return list
    raw = options.get("delegate_options")
    settings = {str(key): str(value) for key, value in raw.items()} if isinstance(raw, dict) else {}

    def make() -> list[Any]:
        try:
            return [load(library, settings)]
        except _NO_DELEGATE as error:
            raise EngineMissing(f"delegate {library} cannot be used: {type(error).__name__}: {error}") from error

    make()
    return make


def _installed_version(distribution: str) -> str:
    metadata = importlib.import_module("importlib.metadata")
    return str(metadata.version(distribution))


class TfliteEngine:
    """An engine with the TensorFlow Lite `Interpreter` interface."""

    def __init__(self, name: str, version: str, interpreter: Any, delegates: Callable[[], list[Any]]) -> None:  # noqa: ANN401 # a class of an untyped package
        self.name = name
        self.version = version
        self.devices = ["CPU"]
        self._interpreter = interpreter
        self._delegates = delegates

    def load(self, path: str, arena_bytes: int | None) -> TfliteModel:  # noqa: ARG002 # part of the seam; TFLM needs it
        """Load and plan. Raises: ModelRefused; EngineMissing when the engine was built for another numpy."""
        try:
            delegates = self._delegates()
            more = {"experimental_delegates": delegates} if delegates else {}
            interpreter = self._interpreter(model_path=path, num_threads=1, **more)
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
        self._output_dtypes = [each["dtype"] for each in outputs]
        self._views = [interpreter.tensor(each["index"]) for each in outputs]
        self._input_views = [interpreter.tensor(each["index"]) for each in inputs]

    def invoke(self, inputs: Sequence[memoryview], outputs: Sequence[memoryview]) -> None:
        """Set, run, copy out. Raises: ModelRefused."""
        interpreter = self._interpreter
        try:
            for number, (index, dtype, shape) in enumerate(self._slots):
                interpreter.set_tensor(index, np.frombuffer(inputs[number], dtype).reshape(shape))
        except _REFUSALS as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error
        self.compute(outputs)

    def fill(self, tensor: int, start: int, piece: memoryview) -> None:
        """Copy into the interpreter's own memory, whose view must be gone before it runs. Raises: ModelRefused."""
        try:
            view = self._input_views[tensor]().reshape(-1).view(np.uint8)
            view[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        except _REFUSALS as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error

    def compute(self, outputs: Sequence[memoryview]) -> None:
        """Run, copy out. Raises: ModelRefused."""
        try:
            self._interpreter.invoke()
            for number, view in enumerate(self._views):
                result = view()
                check_filled(number, result.nbytes, len(outputs[number]))
                np.frombuffer(outputs[number], self._output_dtypes[number])[:] = result.reshape(-1)
        except _REFUSALS as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error


def _spec(details: dict[str, Any]) -> Spec:
    scale, zero_point = details["quantization"]
    return make_spec(details["name"], details["dtype"], details["shape"], scale=scale, zero_point=zero_point)
