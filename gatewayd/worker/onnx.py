"""ONNX Runtime: .onnx models, on the CPU or on whatever execution providers its build has (on a Jetson TensorRT and CUDA)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .engines import EngineMissing, ModelRefused, Spec, check_counts, check_filled, make_spec

_CPU = "CPUExecutionProvider"
_SCALARS = {
    "tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(int16)": np.int16,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}  # fmt: skip
_QUIET = 3  # errors only: warnings about optional providers are told by `devices`


def open_engine(name: str, options: Mapping[str, object]) -> OnnxEngine:
    """Import the package. Raises: ImportError; EngineMissing when it has none of the providers asked for."""
    runtime = importlib.import_module("onnxruntime")
    runtime.set_default_logger_severity(_QUIET)
    here = [str(each) for each in runtime.get_available_providers()]
    asked = options.get("providers")
    wanted = [str(each) for each in asked] if isinstance(asked, list) and asked else [_CPU]
    providers = [each for each in wanted if each in here]
    if not providers:
        raise EngineMissing(f"onnxruntime has none of {', '.join(wanted)}; it has {', '.join(here)}")
    return OnnxEngine(name, str(runtime.__version__), runtime, providers, here)


class OnnxEngine:
    """Sessions on the providers that are here, in the order asked for."""

    def __init__(self, name: str, version: str, runtime: Any, providers: list[str], devices: list[str]) -> None:  # noqa: ANN401 # a module of an untyped package
        self.name = name
        self.version = version
        self.devices = devices
        self._runtime = runtime
        self._providers = providers

    def load(self, path: str, arena_bytes: int | None) -> OnnxModel:  # noqa: ARG002 # part of the seam; TFLM needs it
        """Load and plan. Raises: ModelRefused."""
        settings = self._runtime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = _QUIET
        try:
            return OnnxModel(self._runtime.InferenceSession(path, settings, providers=self._providers))
        except self._refusals() as error:
            raise ModelRefused(f"{type(error).__name__}: {error}") from error

    def _refusals(self) -> tuple[type[BaseException], ...]:
        """What a session raises on a model it will not take; the package makes its own exceptions, one per status."""
        return _refusals(self._runtime)


def _refusals(runtime: Any) -> tuple[type[BaseException], ...]:  # noqa: ANN401 # a module of an untyped package
    state = importlib.import_module(runtime.__name__ + ".capi.onnxruntime_pybind11_state")
    own = [each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError, OverflowError, OSError)


class OnnxModel:
    """A model in a session. A size that the model leaves open (the batch) is 1 here."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401 # an object of an untyped package
        self._session = session
        self._refused = _refusals(importlib.import_module("onnxruntime"))
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_counts(len(inputs), len(outputs))
        self.inputs = [_spec(each, [_size(size) for size in each.shape]) for each in inputs]
        self._scalars = [_SCALARS[each.type] for each in inputs]
        self._names = [each.name for each in outputs]
        shapes = [list(each.shape) for each in outputs]
        if any(not isinstance(size, int) for shape in shapes for size in shape):
            shapes = [list(each.shape) for each in self._run([memoryview(bytes(s.byte_count)) for s in self.inputs])]
        self.outputs = [_spec(each, shape) for each, shape in zip(outputs, shapes)]  # noqa: B905 # Python 3.8 knows no strict

    def invoke(self, inputs: Sequence[memoryview], outputs: Sequence[memoryview]) -> None:
        """Run and copy out. Raises: ModelRefused."""
        try:
            results = self._run(inputs)
        except self._refused as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error
        for index, result in enumerate(results):
            check_filled(index, result.nbytes, len(outputs[index]))
            np.frombuffer(outputs[index], result.dtype)[:] = result.reshape(-1)

    def _run(self, inputs: Sequence[memoryview]) -> list[Any]:
        feeds: dict[str, Any] = {
            spec.name: np.frombuffer(content, scalar).reshape(spec.shape)
            for spec, scalar, content in zip(self.inputs, self._scalars, inputs)  # noqa: B905 # as above
        }
        return list(self._session.run(self._names, feeds))


def _size(size: object) -> int:
    return size if isinstance(size, int) and size > 0 else 1


def _spec(node: Any, shape: list[int]) -> Spec:  # noqa: ANN401 # an object of an untyped package
    if node.type not in _SCALARS:
        raise ModelRefused(f"tensor {node.name!r} is a {node.type}, which is not served")
    return make_spec(node.name, _SCALARS[node.type], shape, scale=0.0, zero_point=0)
