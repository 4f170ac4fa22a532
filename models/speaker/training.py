# ruff: noqa: INP001 - modules of one script's directory, not a package
"""Training of the speaker network: augmentation, Adam, the average of the weights, cross-validation.

Only the training split comes in here; the test split is for measure.py.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from exact import Array, Stream, exponential, snap
from network import ACTIVATION_BITS, GRADIENT_BITS, WEIGHT_BITS, Layout, backward, forward
from vowels import COEFFICIENTS, FRAMES, SPEAKERS, Utterances

GAINS: Final = np.array([2.0, 2, 4, 4, 4, 8, 8, 4, 4, 8, 8, 8])
"""Powers of two near 1/deviation of each coefficient in the training split; folded into the first layer afterwards."""

Indices = npt.NDArray[np.int64]

FOLDS: Final = 3
_MOMENTUM: Final = 0.9
_VARIANCE: Final = 0.999
_SOFT: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one version is trained. Noise is in units of the coefficients' own deviation.

    Its length is in steps, not passes over the data, so that cross-validation on fewer utterances trains as long.
    """

    layout: Layout
    steps: int
    frame_noise: float
    utterance_noise: float
    dropout: float
    batch: int = 54
    learning_rate: float = 0.01
    smoothing: float = 0.1
    decay: float = 0.0005
    average_steps: int = 100


@dataclass(slots=True)
class Adam:
    """The optimiser's running moments. Source: Kingma, Ba 2015; decay of the weights as in Loshchilov, Hutter 2019."""

    learning_rate: float
    decay: float
    mean: Array
    variance: Array
    mean_left: float = 1.0  # β1^steps and β2^steps as running products: libm's pow differs between systems
    variance_left: float = 1.0

    def step(self, vector: Array, slope: Array, *, left: float) -> Array:
        """The parameters after one step; `left` is the share of the training still to come, it scales the step."""
        self.mean = _MOMENTUM * self.mean + (1.0 - _MOMENTUM) * slope
        self.variance = _VARIANCE * self.variance + (1.0 - _VARIANCE) * slope * slope
        self.mean_left *= _MOMENTUM
        self.variance_left *= _VARIANCE
        mean = self.mean / (1.0 - self.mean_left)
        deviation = np.sqrt(self.variance / (1.0 - self.variance_left)) + _SOFT
        return vector - self.learning_rate * left * (mean / deviation + self.decay * vector)


def fit(recipe: Recipe, utterances: Utterances, seed: int = 1) -> Array:
    """Train on all the utterances; returns the parameters on the weight grid, for inputs times `GAINS`."""
    stream = Stream(seed)
    vector = recipe.layout.start(stream)
    adam = Adam(recipe.learning_rate, recipe.decay, np.zeros_like(vector), np.zeros_like(vector))
    average = vector.copy()
    count = len(utterances.speaker)
    batches_per_pass = count // recipe.batch
    order = stream.permutation(count)
    for step in range(recipe.steps):
        place = step % batches_per_pass
        order = stream.permutation(count) if place == 0 else order
        chosen = order[place * recipe.batch : (place + 1) * recipe.batch]
        slope = _loss_gradient(recipe, vector, utterances, chosen, stream)
        vector = adam.step(vector, slope, left=1.0 - step / recipe.steps)
        average += (vector - average) / min(step + 1, recipe.average_steps)
    return snap(average, WEIGHT_BITS)


def predict(layout: Layout, vector: Array, utterances: Utterances) -> Indices:
    """The speaker of each utterance, by the float network."""
    logits = forward(layout, vector, utterances.real() * GAINS).logits
    return np.asarray(logits.argmax(axis=1), np.int64)


def cross_validate(recipe: Recipe, utterances: Utterances, seed: int) -> float:
    """Accuracy over contiguous thirds of each speaker's utterances, each left out once (neighbours resemble each other)."""
    ranks = _rank_within_speaker(utterances)
    correct = 0
    for fold in range(FOLDS):
        held_out = ranks * FOLDS // (ranks.max() + 1) == fold
        vector = fit(recipe, utterances.subset(~held_out), seed)
        rest = utterances.subset(held_out)
        correct += int((predict(recipe.layout, vector, rest) == rest.speaker).sum())
    return correct / len(utterances.speaker)


def softmax(logits: Array) -> Array:
    """Probabilities [n, SPEAKERS]."""
    power = snap(exponential(logits - logits.max(axis=1, keepdims=True)), 2 * ACTIVATION_BITS)
    return np.asarray(power / power.sum(axis=1, keepdims=True))


def _loss_gradient(recipe: Recipe, vector: Array, utterances: Utterances, chosen: Indices, stream: Stream) -> Array:
    """Gradient of the smoothed cross entropy, averaged over the chosen utterances after augmentation."""
    batch = _augment(recipe, utterances, chosen, stream)
    kept = (stream.uniform(len(chosen), recipe.layout.second) >= recipe.dropout) / (1.0 - recipe.dropout)
    trace = forward(recipe.layout, vector, batch, kept)
    wanted = np.eye(SPEAKERS)[utterances.speaker[chosen]] * (1.0 - recipe.smoothing) + recipe.smoothing / SPEAKERS
    slope = snap(softmax(trace.logits) - wanted, GRADIENT_BITS)
    return backward(recipe.layout, vector, trace, slope) / len(chosen)


def _augment(recipe: Recipe, utterances: Utterances, chosen: Indices, stream: Stream) -> Array:
    """Disturb each frame, and each utterance as a whole as another microphone would; zero past the end."""
    count = len(chosen)
    disturbance = recipe.frame_noise * stream.normal(count, FRAMES, COEFFICIENTS)
    disturbance = disturbance + recipe.utterance_noise * stream.normal(count, 1, COEFFICIENTS)
    inside = np.arange(FRAMES) < utterances.length[chosen][:, None]
    return snap((utterances.real()[chosen] * GAINS + disturbance) * inside[:, :, None], ACTIVATION_BITS)


def _rank_within_speaker(utterances: Utterances) -> Indices:
    ranks = np.zeros_like(utterances.speaker)
    for speaker in range(SPEAKERS):
        own = utterances.speaker == speaker
        ranks[own] = np.arange(own.sum())
    return ranks
