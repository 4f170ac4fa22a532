"""The models of `bench.agreement`, and what their sensors give: made from seeds, so that nothing has to be fetched."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from bench.network import End, Network
from gatewayd.core.compression import deflated
from gatewayd.services.modules import worthwhile
from gatewayd.wire.tflite import read_model

WINDOW_BITS = 12
"""In which a simulated board unpacks, unless it is told otherwise."""
_SAMPLES = 16


@dataclass(frozen=True)
class BenchModel:
    """One model: its file, its sample as the sensor gives it, and what a push carries of it."""

    name: str
    content: bytes
    sample_shape: Sequence[int]
    macs: int
    output_bytes: int
    stream_bytes: int

    @property
    def sample_bytes(self) -> int:
        """What a sensor sends: int8 values."""
        return math.prod(self.sample_shape)

    def write(self, folder: Path) -> Path:
        """Write samples for a simulated sensor; return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"dtype": "INT8", "shape": list(self.sample_shape), "scale": 0.05, "zero": 0, "count": _SAMPLES}
        (folder / "samples.json").write_text(json.dumps(about))
        (folder / "samples.bin").write_bytes(Random(self.name).randbytes(_SAMPLES * self.sample_bytes))
        return folder


# Convolutions as (channels, kernel, stride), then a fully connected layer; sizes and MACs like those of small reference models.
_SHAPES: dict[str, tuple[tuple[int, ...], tuple[tuple[int, int, int], ...], int]] = {
    "sound": ((1, 49, 10, 1), ((32, 3, 2), (48, 3, 1), (48, 3, 2)), 12),
    "image": ((1, 32, 32, 3), ((16, 3, 2), (32, 3, 2), (64, 3, 2), (64, 3, 1)), 10),
    "frame": ((1, 32, 32, 3), ((8, 3, 2), (16, 3, 2)), 2),
    "heavy": ((1, 32, 32, 3), ((64, 3, 1), (64, 3, 1), (4, 3, 8)), 10),
}
_ENLARGED = {"heavy": 320}
"""Pictures that a model makes larger first: too large for a board, and work for the node."""


@cache
def model(name: str) -> BenchModel:
    """Return one by its name."""
    shape, layers, classes = _SHAPES[name]
    net = Network("INT8", Random(name))
    x = net.input(shape)
    if name in _ENLARGED:
        x = _enlarged(net, x, _ENLARGED[name])
    for channels, kernel, stride in layers:
        x = _convolution(net, x, channels, kernel, stride)
    weights, bias = net.weights((classes, math.prod(x.shape))), net.bias(classes, per_channel=False)
    outputs = net.tensor((1, classes))
    content = net.finish(
        net.node("FULLY_CONNECTED", (x, weights, bias), (outputs,), "FullyConnectedOptions", version=4)
    )
    packed = len(deflated(content, WINDOW_BITS))
    stream_bytes = packed if worthwhile(packed, len(content)) else len(content)
    return BenchModel(name, content, shape, read_model(content).macs, classes, stream_bytes)


def _enlarged(net: Network, x: End, side: int) -> End:
    sizes = net.constant((side, side), "INT32")
    made = net.tensor((1, side, side, x.shape[3]))
    options = "ResizeNearestNeighborOptions"
    return net.node("RESIZE_NEAREST_NEIGHBOR", (x, sizes), (made,), options)


def _convolution(net: Network, x: End, channels: int, kernel: int, stride: int) -> End:
    shape = (1, -(-x.shape[1] // stride), -(-x.shape[2] // stride), channels)
    operands = (
        x,
        net.weights((channels, kernel, kernel, x.shape[3]), channels_axis=0),
        net.bias(channels, per_channel=True),
    )
    return net.node(
        "CONV_2D", operands, (net.tensor(shape),), "Conv2DOptions", version=3, strideW=stride, strideH=stride
    )
