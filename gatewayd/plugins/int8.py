"""Float32 model → int8 model with int8 input and output, calibrated on samples, by litert-quantizer (or ai-edge-quantizer).

The same input gives the same bytes: one thread, one sample at a time, and ranges rounded outwards, because the last bits of
float kernels differ between machines.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

# Its own directory is where Python looks first for a program run by path; the module's type is no concern of its users.
_shared: Any = importlib.import_module("gatewayd_plugin")

REVISION = 1
PACKAGES = ("litert-quantizer", "ai-edge-quantizer")
MAX_SAMPLES = 500
"""Protects time; ranges hardly move after a hundred."""

_BITS = 8
_RANGE_BITS = 8  # of a range's size: rounding widens it by 0.4 % at most
_ALIGNMENT_BYTES = 16  # of Buffer.data, force_align in the schema; int32 biases must be aligned on MCUs

# The version from which each operator has an int8 kernel; the quantiser leaves those of the float model.
# Source: tensorflow/lite/tools/versioning/op_version.cc.
_INT8_VERSIONS = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4,
    "LOGISTIC": 2, "MAX_POOL_2D": 2, "MAXIMUM": 2, "MEAN": 2, "MINIMUM": 2, "MUL": 2, "PAD": 2, "RELU": 2, "RELU6": 2,
    "RESIZE_BILINEAR": 2, "SOFTMAX": 2, "SPLIT": 2, "STRIDED_SLICE": 2, "SUB": 2, "TANH": 2, "TRANSPOSE": 2,
    "TRANSPOSE_CONV": 2,
}  # fmt: skip


def compile_model(request: dict[str, Any]) -> str:
    """Quantise, and tell on how many samples it was calibrated."""
    if not request.get("samples"):
        raise _shared.PluginError("int8 needs samples to calibrate on: add the version with samples")
    content = Path(request["input"]).read_bytes()
    samples = _samples(request)
    tool = _quantizer(content)
    key, name, shape = _signature(content)
    ranges = _ranges(tool, key, [{name: sample.reshape(shape)} for sample in samples])
    made = tool.quantize(ranges, **_quiet(tool)).quantized_model
    Path(request["output"]).write_bytes(_plain(bytes(made)))
    return f"calibrated on {len(samples)} samples"


def _samples(request: dict[str, Any]) -> Any:  # noqa: ANN401 - numpy array
    numpy = importlib.import_module("numpy")
    values = numpy.frombuffer(Path(request["samples"]).read_bytes(), "<f4")
    return values.reshape(-1, request["input_bytes"] // 4)[:MAX_SAMPLES]


def _package() -> str:
    for name in PACKAGES:
        module = name.replace("-", "_")
        if importlib.util.find_spec(module):
            return module
    raise _shared.PluginError("the quantizer's package has another name than expected")


def _quantizer(content: bytes) -> Any:  # noqa: ANN401 - of an untyped package
    package = _package()
    quantizer = importlib.import_module(f"{package}.quantizer")
    types = importlib.import_module(f"{package}.qtyping")
    tool = quantizer.Quantizer(bytearray(content))
    everything = types.TFLOperationName.ALL_SUPPORTED
    tool.add_static_config(regex=".*", operation_name=everything, activation_num_bits=_BITS, weight_num_bits=_BITS)
    # Per-channel scales of a fully connected layer are operator version 12; tflite-runtime 2.14 ends at 11.
    tool.add_static_config(
        regex=".*", operation_name=types.TFLOperationName.FULLY_CONNECTED, activation_num_bits=_BITS, weight_num_bits=_BITS,
        weight_granularity=types.QuantGranularity.TENSORWISE,
    )  # fmt: skip
    return tool


def _quiet(tool: Any) -> dict[str, Any]:  # noqa: ANN401 - of an untyped package
    names = tool.quantize.__code__.co_varnames
    return {"enable_progress_report": False} if "enable_progress_report" in names else {}


def _signature(content: bytes) -> tuple[str, str, tuple[int, ...]]:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(
        model_content=content, num_threads=1
    )
    signatures = interpreter.get_signature_list()
    if not signatures:
        raise _shared.PluginError(
            "the model has no signature: convert it again with one (every converter since 2021 writes it)"
        )
    key, ends = next(iter(signatures.items()))
    return key, ends["inputs"][0], tuple(interpreter.get_input_details()[0]["shape"])


def _ranges(tool: Any, key: str, feeds: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: ANN401 - of an untyped package
    """Smallest and largest value of each tensor over all samples.

    One sample at a time: over several the tool keeps moving averages, so that part of the input's range would be cut off.
    """
    seen: dict[str, Any] = {}
    for feed in feeds:
        for name, entry in tool.calibrate({key: [feed]}, num_threads=1).items():
            seen[name] = _joined(seen.get(name, entry), entry)
    return {name: _coarse(entry) for name, entry in seen.items()}


def _joined(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    numpy = importlib.import_module("numpy")
    if "min" not in right or "min" not in left:
        return right
    return {"min": numpy.minimum(left["min"], right["min"]), "max": numpy.maximum(left["max"], right["max"])}


def _coarse(entry: dict[str, Any]) -> dict[str, Any]:
    numpy = importlib.import_module("numpy")
    if "min" not in entry:
        return entry
    low, high = numpy.asarray(entry["min"], "<f4"), numpy.asarray(entry["max"], "<f4")
    size = numpy.maximum(numpy.abs(low), numpy.abs(high))
    step = 2.0 ** (numpy.floor(numpy.log2(numpy.maximum(size, 1e-12))) - _RANGE_BITS)
    return {
        "min": (numpy.floor(low / step) * step).astype("<f4"),
        "max": (numpy.ceil(high / step) * step).astype("<f4"),
    }


def _plain(content: bytes) -> bytes:
    """Write the file so that every runtime reads it: constants inside the flatbuffer and aligned, no metadata of the tool."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    flatbuffers = importlib.import_module("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    buffers = [_inline(buffer, content) for buffer in model.buffers]
    model.buffers = [_packable(schema, each) for each in buffers]
    model.metadata = None
    versions = {getattr(schema.BuiltinOperator, name): version for name, version in _INT8_VERSIONS.items()}
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = max(code.version, versions.get(code.builtinCode, 1))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = tensor.buffer if buffers[tensor.buffer] else 0
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _inline(buffer: Any, content: bytes) -> bytes:  # noqa: ANN401 - untyped BufferT
    if buffer.offset > 1:  # newer writers put data behind the flatbuffer (1 stands for none)
        return content[buffer.offset : buffer.offset + buffer.size]
    return b"" if buffer.data is None else bytes(buffer.data)


def _packable(schema: Any, content: bytes) -> Any:  # noqa: ANN401 - untyped BufferT
    class Aligned(schema.BufferT):  # type: ignore[misc]  # the generated base is untyped
        def Pack(self, builder: Any) -> int:  # noqa: N802, ANN401 - the generated code calls it by this name
            if content:
                builder.StartVector(1, len(content), _ALIGNMENT_BYTES)
                builder.head -= len(content)
                builder.Bytes[builder.head : builder.head + len(content)] = content
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if content:
                schema.BufferAddData(builder, vector)
            return int(schema.BufferEnd(builder))

    return Aligned()


if __name__ == "__main__":
    sys.exit(
        _shared.main(
            "int8",
            revision=REVISION,
            packages=PACKAGES,
            install="pip install litert-quantizer there, or name another interpreter in plugins.int8.python",
            run=compile_model,
        )
    )
