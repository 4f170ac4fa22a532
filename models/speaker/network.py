# ruff: noqa: INP001 - modules of one script's directory, not a package
"""The speaker network and its gradient: two convolutions over time, a mean over time, one fully connected layer.

All parameters stand in one vector, so that the optimiser is one line per step. Every value is on a grid (see exact.py).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from exact import Array, Stream, product, snap
from vowels import COEFFICIENTS, FRAMES, SPEAKERS

ACTIVATION_BITS: Final = 12
WEIGHT_BITS: Final = 14
GRADIENT_BITS: Final = 24

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """How wide the network is: frames seen by one kernel (odd), channels of the first and second convolution."""

    kernel: int
    first: int
    second: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of weight and bias of the three layers, in order."""
        one = ((self.kernel * COEFFICIENTS, self.first), (self.first,))
        two = ((self.kernel * self.first, self.second), (self.second,))
        return (*one, *two, (self.second, SPEAKERS), (SPEAKERS,))

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        first, _, second, _, last, _ = (int(np.prod(shape)) for shape in self.shapes)
        return FRAMES * (first + second) + last

    def split(self, vector: Array) -> list[Array]:
        """Views of the vector in the shapes of the layers."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), self.shapes, strict=True)]

    def start(self, stream: Stream) -> Array:
        """Random weights of variance 2/fan-in (He et al. 2015), biases 0."""
        vector = np.zeros(self.size)
        for part in self.split(vector)[::2]:
            part[:] = (stream.uniform(*part.shape) - 0.5) * np.sqrt(24.0 / part.shape[0])
        return vector


@dataclass(frozen=True, slots=True)
class Trace:
    """What the backward pass needs of a forward pass over n utterances."""

    inputs: Array  # columns [n * FRAMES, kernel * COEFFICIENTS]
    first_open: Mask  # [n, FRAMES, first]
    middle: Array  # columns [n * FRAMES, kernel * first]
    second_open: Mask  # [n, FRAMES, second]
    kept: Array  # dropout factors [n, second]
    pooled: Array  # [n, second]
    logits: Array  # [n, SPEAKERS]


def forward(layout: Layout, vector: Array, batch: Array, kept: Array | None = None) -> Trace:
    """Run a batch [n, FRAMES, COEFFICIENTS]; `kept` are dropout factors, None means none."""
    weights = layout.split(snap(vector, WEIGHT_BITS))
    inputs = _columns(batch, layout.kernel)
    first, first_open = _convolve(inputs, weights[0], weights[1], len(batch))
    middle = _columns(first, layout.kernel)
    second, second_open = _convolve(middle, weights[2], weights[3], len(batch))
    factors = np.ones((len(batch), layout.second)) if kept is None else kept
    pooled = snap(second.sum(axis=1) / FRAMES * factors, ACTIVATION_BITS)
    logits = product(pooled, weights[4], ACTIVATION_BITS + WEIGHT_BITS) + weights[5]
    return Trace(inputs, first_open, middle, second_open, factors, pooled, logits)


def backward(layout: Layout, vector: Array, trace: Trace, slope: Array) -> Array:
    """Gradient of the loss by the parameters; `slope` is its gradient by the logits, on the gradient grid."""
    weights = layout.split(snap(vector, WEIGHT_BITS))
    gradient = np.zeros(layout.size)
    parts = layout.split(gradient)
    parts[4][:] = product(trace.pooled.T, slope, ACTIVATION_BITS + GRADIENT_BITS)
    parts[5][:] = slope.sum(axis=0)
    pooled = product(slope, weights[4].T, GRADIENT_BITS + WEIGHT_BITS) * trace.kept / FRAMES
    second = snap(pooled[:, None, :] * trace.second_open, GRADIENT_BITS).reshape(-1, layout.second)
    parts[2][:] = product(trace.middle.T, second, ACTIVATION_BITS + GRADIENT_BITS)
    parts[3][:] = second.sum(axis=0)
    middle = snap(product(second, weights[2].T, GRADIENT_BITS + WEIGHT_BITS), GRADIENT_BITS)
    first = (_frames(middle, layout.kernel) * trace.first_open).reshape(-1, layout.first)
    parts[0][:] = product(trace.inputs.T, first, ACTIVATION_BITS + GRADIENT_BITS)
    parts[1][:] = first.sum(axis=0)
    return gradient


def _convolve(columns: Array, weight: Array, bias: Array, count: int) -> tuple[Array, Mask]:
    """Convolution and ReLU; returns activations [count, FRAMES, channels] and where the ReLU is open."""
    total = product(columns, weight, ACTIVATION_BITS + WEIGHT_BITS) + bias
    active = snap(np.maximum(total, 0.0), ACTIVATION_BITS).reshape(count, FRAMES, -1)
    return active, active > 0.0


def _columns(frames: Array, kernel: int) -> Array:
    """What each kernel position sees, zeros past the ends (padding SAME): [n * FRAMES, kernel * channels]."""
    reach = kernel // 2
    padded = np.pad(frames, ((0, 0), (reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=1)
    return windows.transpose(0, 1, 3, 2).reshape(len(frames) * FRAMES, -1)


def _frames(columns: Array, kernel: int) -> Array:
    """Transpose of `_columns`: add what each kernel position sends back to its frame."""
    reach = kernel // 2
    windows = columns.reshape(-1, FRAMES, kernel, columns.shape[-1] // kernel)
    padded = np.zeros((len(windows), FRAMES + 2 * reach, windows.shape[-1]))
    for tap in range(kernel):
        padded[:, tap : tap + FRAMES] += windows[:, :, tap]
    return padded[:, reach : reach + FRAMES]
