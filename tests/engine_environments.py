"""Which engines there are on this machine, and where: what the contract suite runs on."""

import importlib.util
import os
from pathlib import Path

import pytest

from gatewayd.core.engine import EngineSpec

LITERT = EngineSpec("litert")
TFLM = EngineSpec("tflm")
_BUILD = Path(__file__).parent.parent / "build"
_TFLITE_RUNTIME_PYTHON = _BUILD / "tflite-runtime-venv" / "bin" / "python"
_OPENVINO_PYTHON = _BUILD / "openvino-venv" / "bin" / "python"


def tflite_runtime_python() -> str | None:
    """The interpreter of the second environment: named by the environment, or where `make test` puts it."""
    named = os.environ.get("GATEWAYD_TFLITE_RUNTIME_PYTHON")
    if named:
        return named
    return str(_TFLITE_RUNTIME_PYTHON) if _TFLITE_RUNTIME_PYTHON.exists() else None


def openvino_python() -> str | None:
    """The interpreter that has OpenVINO and ONNX Runtime: named by the environment, or where `make test` puts it."""
    named = os.environ.get("GATEWAYD_OPENVINO_PYTHON")
    if named:
        return named
    return str(_OPENVINO_PYTHON) if _OPENVINO_PYTHON.exists() else None


def require_engine(name: str) -> EngineSpec:
    """Return how to start an engine, or skip with what is missing."""
    if name == "tflite-runtime":
        python = tflite_runtime_python()
        if python is None:
            pytest.skip("no tflite-runtime: make its environment in build/ or set GATEWAYD_TFLITE_RUNTIME_PYTHON")
        return EngineSpec(name, python)
    if name in {"openvino", "onnxruntime"}:
        python = openvino_python()
        if python is None:
            pytest.skip(f"no {name}: make its environment in build/ or set GATEWAYD_OPENVINO_PYTHON")
        return EngineSpec(name, python)
    package = {"litert": "ai_edge_litert", "tflm": "tflite_micro"}[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"engine {name}: {package} is not installed")
    return EngineSpec(name)
