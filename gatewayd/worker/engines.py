"""What an engine is to the worker, and which there are. An engine is imported only when it is asked for by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from math import prod
from typing import NamedTuple, Protocol

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
}


class EngineError(Exception):
    """An engine cannot or will not; `kind` is the kind of error that goes over the channel."""

    kind = "model_refused"


class EngineMissing(EngineError):
    """The engine cannot be imported or cannot work with what is installed beside it; the message says what to install."""

    kind = "engine_missing"


class ModelRefused(EngineError):
    """The engine will not load or run this model."""


class BadInput(EngineError):
    """Number or size of inputs is not the model's."""

    kind = "bad_input"


class Spec(NamedTuple):
    """One input or output. `scale` 0 means not quantised."""

    name: str
    dtype: str
    shape: list[int]
    scale: float
    zero_point: int
    byte_count: int


class Result(NamedTuple):
    """Raw outputs in the model's order, and seconds from setting inputs to having copied outputs."""

    outputs: list[bytes]
    compute_s: float


class Model(Protocol):
    """A loaded model."""

    inputs: list[Spec]
    outputs: list[Spec]

    def invoke(self, blobs: Sequence[bytes]) -> Result:
        """Run one inference. Raises: BadInput, ModelRefused."""


class Engine(Protocol):
    """Loads models. Constructing one imports the engine's package."""

    name: str
    version: str

    def load(self, path: str, arena_bytes: int | None) -> Model:
        """Load the model file; `arena_bytes` matters to TFLM only. Raises: ModelRefused."""


def open_engine(name: str) -> Engine:
    """Import and return the engine `name`.

    Raises: EngineMissing with what to install.
    """
    if name not in _INSTALL:
        known = ", ".join(sorted(_INSTALL))
        raise EngineMissing(f"no engine is called {name!r}; there are {known}")
    module, install = _INSTALL[name]
    try:
        engine: Engine = importlib.import_module("." + module, __package__).open_engine(name)
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


def check_inputs(specs: Sequence[Spec], blobs: Sequence[bytes]) -> None:
    """Raises: BadInput naming the first input that is not as long as the model wants it."""
    if len(blobs) != len(specs):
        raise BadInput(f"the model takes {len(specs)} inputs, got {len(blobs)}")
    for index, spec in enumerate(specs):
        if len(blobs[index]) != spec.byte_count:
            wanted = f"{spec.dtype} of shape {spec.shape} is {spec.byte_count} bytes"
            raise BadInput(f"input {index} ({spec.name!r}): {wanted}, got {len(blobs[index])}")
