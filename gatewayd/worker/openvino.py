"""OpenVINO: .tflite and .onnx models on Intel's CPUs, GPUs and NPUs, and (up to release 2022.3, .onnx only) Movidius sticks."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .engines import EngineMissing, ModelRefused, Spec, check_counts, check_filled, make_spec, text_option

_REFUSALS = (RuntimeError, ValueError, TypeError, MemoryError, OverflowError, OSError)
_TFLITE_MAGIC = b"TFL3"
_DEFAULT = "CPU"


def open_engine(name: str, options: Mapping[str, object]) -> OpenvinoEngine:
    """Import the package. Raises: ImportError; EngineMissing when the device asked for is not there."""
    try:
        package = importlib.import_module("openvino")
        core_class = package.Core
    except AttributeError:  # before 2023 the interface was one package deeper
        package = importlib.import_module("openvino.runtime")
        core_class = package.Core
    core = core_class()
    device = text_option(options, "device", _DEFAULT)
    here = [str(each) for each in core.available_devices]
    if not any(each == device or each.startswith(device + ".") for each in here):
        raise EngineMissing(f"OpenVINO sees no device {device}; it sees {', '.join(here) or 'none'}")
    version = str(getattr(package, "__version__", None) or package.get_version())
    return OpenvinoEngine(name, version.partition("-")[0], core, device, here)


class OpenvinoEngine:
    """Models compiled for one device."""

    def __init__(self, name: str, version: str, core: Any, device: str, devices: list[str]) -> None:  # noqa: ANN401 # an object of an untyped package
        self.name = name
        self.version = version
        self.devices = devices
        self._core = core
        self._device = device

    def load(self, path: str, arena_bytes: int | None) -> OpenvinoModel:  # noqa: ARG002 # part of the seam; TFLM needs it
        """Load and plan. Raises: ModelRefused."""
        settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == _DEFAULT:
            settings["INFERENCE_NUM_THREADS"] = 1
        try:
            model = _read(self._core, path)
            open_sizes = {port: _closed(port.get_partial_shape()) for port in model.inputs}
            if any(port.get_partial_shape().is_dynamic for port in model.inputs):
                model.reshape(open_sizes)
            return OpenvinoModel(self._core.compile_model(model, self._device, settings))
        except _REFUSALS as error:
            raise ModelRefused(f"{type(error).__name__}: {error}") from error


def _read(core: Any, path: str) -> Any:  # noqa: ANN401 # objects of an untyped package
    """Read a model under a name that tells its format, which is how OpenVINO picks its reader."""
    file = Path(path).absolute()
    with file.open("rb") as content:
        kind = "tflite" if content.read(8)[4:] == _TFLITE_MAGIC else "onnx"
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model.{kind}"
        link.symlink_to(file)
        return core.read_model(str(link))


def _closed(shape: Any) -> list[int]:  # noqa: ANN401 # an object of an untyped package
    """Return a shape in which every size that the model leaves open (the batch) is 1."""
    return [1 if size.is_dynamic else size.get_length() for size in shape]


class OpenvinoModel:
    """A compiled model with its one request."""

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 # an object of an untyped package
        self._request = compiled.create_infer_request()
        check_counts(len(compiled.inputs), len(compiled.outputs))
        self.inputs = [_spec(port) for port in compiled.inputs]
        self.outputs = [_spec(port) for port in compiled.outputs]
        self._given = [self._request.get_input_tensor(index).data for index in range(len(self.inputs))]

    def invoke(self, inputs: Sequence[memoryview], outputs: Sequence[memoryview]) -> None:
        """Set, run, copy out. Raises: ModelRefused."""
        try:
            for given, content in zip(self._given, inputs):  # noqa: B905 # Python 3.8 knows no strict
                np.copyto(given, np.frombuffer(content, given.dtype).reshape(given.shape))
            self._request.infer()
            for index, content in enumerate(outputs):
                result = self._request.get_output_tensor(index).data
                check_filled(index, result.nbytes, len(content))
                np.frombuffer(content, result.dtype)[:] = result.reshape(-1)
        except _REFUSALS as error:
            raise ModelRefused(f"invoke failed: {type(error).__name__}: {error}") from error


def _spec(port: Any) -> Spec:  # noqa: ANN401 # an object of an untyped package
    names = port.get_names()
    name = min(names) if names else port.get_node().get_friendly_name()
    return make_spec(
        str(name), port.get_element_type().to_dtype().type, list(port.get_shape()), scale=0.0, zero_point=0
    )
