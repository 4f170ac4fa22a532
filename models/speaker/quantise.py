# ruff: noqa: INP001 - modules of one script's directory, not a package
"""Float file → full-int8 file (int8 input and output), calibrated on the training split, by litert-quantizer."""

from typing import Any, Final

import numpy as np
from exact import Array
from flatbuffer import INPUT, SIGNATURE, finish_int8
from litert_quantizer import quantizer  # type: ignore[import-not-found]  # only in the training environment
from litert_quantizer.qtyping import QuantGranularity, TFLOperationName  # type: ignore[import-not-found]  # only in the training environment

_Range = dict[str, Any]  # {"min": array, "max": array} of one tensor, sometimes empty
_Ranges = dict[str, _Range]

_RANGE_BITS: Final = 6
_BITS: Final = 8


def write_int8(content: bytes, samples: Array) -> bytes:
    """Quantise; `samples` [n, FRAMES, COEFFICIENTS] are what the activations' ranges are measured on."""
    tool = quantizer.Quantizer(bytearray(content))
    tool.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, _BITS, _BITS)
    # Per-channel scales of a fully connected layer are operator version 12; tflite-runtime 2.14 ends at 11.
    one_scale = QuantGranularity.TENSORWISE
    tool.add_static_config(".*", TFLOperationName.FULLY_CONNECTED, _BITS, _BITS, weight_granularity=one_scale)
    return finish_int8(bytes(tool.quantize(_ranges(tool, samples), enable_progress_report=False).quantized_model))


def _ranges(tool: Any, samples: Array) -> _Ranges:  # noqa: ANN401 - the untyped Quantizer
    """Smallest and largest value of each tensor over all samples.

    One sample at a time: over several the tool keeps moving averages, which here would cut off nearly half of the input's range.
    """
    seen: _Ranges = {}
    for sample in samples:
        feed = [{INPUT: sample[None, :, None, :].astype(np.float32)}]
        for name, entry in tool.calibrate({SIGNATURE: feed}, num_threads=1).items():
            seen[name] = _joined(seen.get(name, entry), entry)
    return _coarse(seen)


def _joined(left: _Range, right: _Range) -> _Range:
    if "min" not in right:
        return right
    return {"min": np.minimum(left["min"], right["min"]), "max": np.maximum(left["max"], right["max"])}


def _coarse(ranges: _Ranges) -> _Ranges:
    """Round ranges outwards to multiples of 2^-6: float kernels differ in last bits between CPUs, files must not."""
    rounding = {"min": np.floor, "max": np.ceil}
    step = 2.0**-_RANGE_BITS
    return {
        name: {key: _outwards(value, rounding[key], step) if key in rounding else value for key, value in entry.items()}
        for name, entry in ranges.items()
    }


def _outwards(value: Any, rounding: Any, step: float) -> Any:  # noqa: ANN401 - numpy arrays of the untyped quantiser
    return (rounding(np.asarray(value) / step) * step).astype(np.float32)
