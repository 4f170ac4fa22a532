"""What an engine is to the worker, and which there are. An engine is imported only when it is asked for by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple, Protocol, runtime_checkable

MAX_TENSORS = 64
_MAX_NAME_CHARS = 200

# Open Inference Protocol names and sizes by the names of numpy's scalar types (bool_ was renamed by numpy 2).
_DTYPES = {
    "float32": ("FP32", 4), "int8": ("INT8", 1), "uint8": ("UINT8", 1), "int16": ("INT16", 2), "int32": ("INT32", 4),
    "int64": ("INT64", 8), "bool": ("BOOL", 1), "bool_": ("BOOL", 1),
}  # fmt: skip

_INSTALL = {
    "litert": ("tflite", "pip install ai-edge-litert"),
    "tflite-runtime": ("tflite", "pip install 'tflite-runtime==2.14.0' 'numpy<2' (Python 3.8 to 3.11)"),
    "tflm": ("tflm", "pip install tflite-micro (x86-64 Linux)"),
    "onnxruntime": ("onnx", "pip install onnxruntime (on a Jetson: NVIDIA's own wheel)"),
    "openvino": ("openvino", "pip install openvino (for a Movidius stick: openvino==2022.3, Python 3.7 to 3.10)"),
}


class EngineError(Exception):
    """An engine cannot or will not; `kind` is the kind of error that goes over the channel."""

    kind = "model_refused"


class EngineMissing(EngineError):
    """The engine cannot be imported or cannot work with what is installed beside it; the message says what to install."""

    kind = "engine_missing"


class ModelRefused(EngineError):
    """The engine will not load or run this model."""


class Spec(NamedTuple):
    """One input or output. `scale` 0 means not quantised."""

    name: str
    dtype: str
    shape: list[int]
    scale: float
    zero_point: int
    byte_count: int


class Model(Protocol):
    """A loaded model."""

    inputs: list[Spec]
    outputs: list[Spec]

    def invoke(self, inputs: Sequence[memoryview], outputs: Sequence[memoryview]) -> None:
        """Run one inference from `inputs` into `outputs`, each exactly as long as its spec says. Raises: ModelRefused."""


@runtime_checkable
class ModelInPieces(Model, Protocol):
    """A model whose inputs can be given in pieces, while the next ones are still being written."""

    def fill(self, tensor: int, start: int, piece: memoryview) -> None:
        """Copy a piece of one input to byte `start` on. Raises: ModelRefused."""

    def compute(self, outputs: Sequence[memoryview]) -> None:
        """Run one inference from what `fill` left, which was all of every input. Raises: ModelRefused."""


class Engine(Protocol):
    """Loads models. Constructing one imports the engine's package."""

    name: str
    version: str
    devices: list[str]

    def load(self, path: str, arena_bytes: int | None) -> Model:
        """Load the model file; `arena_bytes` matters to TFLM only. Raises: ModelRefused."""


def import_engine(name: str) -> None:
    """Import the package of an engine and nothing more: nothing is opened. Raises: EngineMissing."""
    module, install = _INSTALL[name]
    try:
        importlib.import_module("." + module, __package__).import_package(name)
    except (ImportError, AttributeError) as error:
        raise EngineMissing(f"engine {name} cannot be imported ahead ({error}): {install}") from error


def open_engine(name: str, options: Mapping[str, object]) -> Engine:
    """Import and return the engine `name`.

    `options` is what the config tells it: "delegate" and "delegate_options", "providers", "device".

    Raises: EngineMissing with what to install, or which part of it cannot be loaded.
    """
    if name not in _INSTALL:
        known = ", ".join(sorted(_INSTALL))
        raise EngineMissing(f"no engine is called {name!r}; there are {known}")
    module, install = _INSTALL[name]
    try:
        engine: Engine = importlib.import_module("." + module, __package__).open_engine(name, options)
    except ImportError as error:
        raise EngineMissing(f"engine {name} is not installed ({error}): {install}") from error
    return engine


def make_spec(name: str, scalar: type, shape: Sequence[int], *, scale: float, zero_point: int) -> Spec:
    """Describe a tensor of numpy scalar type `scalar`. Raises: ModelRefused when that type is not served."""
    name = name[:_MAX_NAME_CHARS]
    if scalar.__name__ not in _DTYPES:
        raise ModelRefused(f"tensor {name!r} is of type {scalar.__name__}, which is not served")
    dtype, item_bytes = _DTYPES[scalar.__name__]
    sizes = [int(size) for size in shape]
    return Spec(name, dtype, sizes, float(scale), int(zero_point), item_bytes * prod(sizes))


def check_counts(inputs: int, outputs: int) -> None:
    """Raises: ModelRefused when a model has more inputs or outputs than a frame carries."""
    if max(inputs, outputs) > MAX_TENSORS:
        raise ModelRefused(f"{inputs} inputs and {outputs} outputs; at most {MAX_TENSORS} of each are served")


def check_filled(index: int, got: int, wanted: int) -> None:
    """Raises: ModelRefused when an output is not as long as the model announced."""
    if got != wanted:
        raise ModelRefused(f"output {index} has {got} bytes where the model announced {wanted}")


def text_option(options: Mapping[str, object], name: str, default: str = "") -> str:
    """Return an option that is a text. Raises: EngineMissing when it is something else."""
    value = options.get(name, default)
    if not isinstance(value, str):
        raise EngineMissing(f"option {name} must be a text, not {value!r}")
    return value
