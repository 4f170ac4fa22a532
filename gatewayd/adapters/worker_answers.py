"""What a worker's frames mean, checked value by value: a worker runs models from outside and is not trusted."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from gatewayd.core.errors import BadRequest, EngineMissing, GatewayError, ModelRefused, WorkerDied
from gatewayd.core.model import Structure
from gatewayd.core.record import record
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.worker.framing import Frame

_MAX_MESSAGE_CHARS = 4000
_MAX_TENSORS = 64
_MAX_DIMENSIONS = 16


@record
class LoadedModel:
    """What an engine says of a model it loaded, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Invocation(NamedTuple):
    """Raw outputs in the model's order, and seconds from setting the inputs to having copied the outputs."""

    outputs: tuple[bytes, ...]
    compute_s: float


def read_error(frame: Frame, engine: str) -> GatewayError | None:
    """Return the error an answer carries, or None."""
    kind = frame.header.get("error")
    if kind is None:
        return None
    said = str(frame.header.get("message", ""))[:_MAX_MESSAGE_CHARS]
    if kind == "engine_missing":
        return EngineMissing(said)
    message = f"{engine}: {said}"
    return BadRequest(message) if kind == "bad_input" else ModelRefused(message)


def read_model(frame: Frame) -> LoadedModel:
    """Raises: WorkerDied when the answer makes no sense."""
    return LoadedModel(_specs(frame.header.get("inputs")), _specs(frame.header.get("outputs")))


def read_arena(frame: Frame) -> int:
    """Raises: WorkerDied when the answer makes no sense."""
    return _whole(frame.header.get("arena_bytes"))


def check_promised(loaded: LoadedModel, structure: Structure) -> None:
    """Raises: ModelRefused when the engine sees other tensors than reading the file found, which is what callers are promised."""
    for what, seen, promised in (
        ("inputs", loaded.inputs, structure.inputs), ("outputs", loaded.outputs, structure.outputs),
    ):  # fmt: skip
        if [(each.dtype, each.byte_count) for each in seen] != [(each.dtype, each.byte_count) for each in promised]:
            message = f"the engine sees {what} {_listed(seen)}, the file says {_listed(promised)}"
            raise ModelRefused(message)


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{each.dtype.value}{list(each.shape)}" for each in specs) or "none"


def _specs(raw: object) -> tuple[TensorSpec, ...]:
    if not isinstance(raw, list) or len(raw) > _MAX_TENSORS:
        raise _nonsense("tensor specs", raw)
    return tuple(_spec(each) for each in raw)


def _spec(raw: object) -> TensorSpec:
    if not isinstance(raw, Mapping):
        raise _nonsense("tensor spec", raw)
    scale = _number(raw.get("scale"))
    quantization = Quantization(scale, _whole(raw.get("zero_point"))) if scale else None
    try:
        dtype = DType(raw.get("dtype"))
    except ValueError as error:
        raise _nonsense("dtype", raw.get("dtype")) from error
    return TensorSpec(str(raw.get("name", "")), dtype, _shape(raw.get("shape")), quantization)


def _shape(raw: object) -> tuple[int, ...]:
    if not isinstance(raw, list) or len(raw) > _MAX_DIMENSIONS or any(_whole(size) < 0 for size in raw):
        raise _nonsense("shape", raw)
    return tuple(_whole(size) for size in raw)


def _whole(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise _nonsense("whole number", raw)
    return raw


_LARGEST = 2**63


def _number(raw: object) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool):
        raise _nonsense("number", raw)
    # A whole number past the range of floats makes `isfinite` itself fail.
    if (isinstance(raw, int) and abs(raw) > _LARGEST) or not math.isfinite(raw):
        raise _nonsense("number", raw)
    return float(raw)


def _nonsense(what: str, raw: object) -> WorkerDied:
    return WorkerDied(f"a worker answered nonsense where a {what} belongs: {raw!r:.80}")
