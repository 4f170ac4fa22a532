"""A simulated sensor: replays real samples from `samples.bin`, described by `samples.json`.

The description: {"dtype", "shape", "scale", "zero", "preprocessing", "count", …}; the samples stand one after the other.
"""

from pathlib import Path

from gatewayd.core.device import Sensor
from gatewayd.core.errors import BadRequest
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.wire.mqttdevice_json import U31, read_object

_MAX_DESCRIPTION_BYTES = 1_048_576
_MAX_DIMENSIONS = 6


class ReplaySensor:
    """Gives one sample after the other, from 0, and begins again after the last."""

    def __init__(self, description: Sensor, content: bytes) -> None:
        self.description = description
        self._content = content
        self._count = len(content) // description.spec.byte_count
        self._next = 0

    def read(self) -> tuple[int, bytes]:
        """Return the next sample's number (0..count - 1) and its bytes."""
        number, size = self._next, self.description.spec.byte_count
        self._next = (number + 1) % self._count
        return number, self._content[number * size : (number + 1) * size]


def open_sensor(name: str, path: Path) -> ReplaySensor:
    """Open the samples in a directory, or the ones a .json file describes.

    Raises: BadRequest naming what is wrong with the description or the samples.
    """
    about = path / "samples.json" if path.is_dir() else path
    spec, preprocessing, count = _described(name, _bytes_of(about))
    content = _bytes_of(about.with_suffix(".bin"))
    if count < 1 or len(content) != count * spec.byte_count:
        wanted = f"{count} samples of {spec.byte_count} bytes"
        raise BadRequest(f"{about.with_suffix('.bin')}: {len(content)} bytes, {about.name} says {wanted}")
    return ReplaySensor(Sensor(name, spec, preprocessing), content)


def _described(name: str, content: bytes) -> tuple[TensorSpec, str, int]:
    fields = read_object(content, where="samples.json", most_bytes=_MAX_DESCRIPTION_BYTES)
    dtype = fields.text("dtype")
    if dtype not in {each.value for each in DType}:
        fields.refuse("dtype", f"must be one of {', '.join(each.value for each in DType)}")
    shape = fields.wholes("shape", _MAX_DIMENSIONS, low=1, high=U31)
    has_scale = fields.has("scale")
    quantization = (
        Quantization(fields.number("scale", 1e-12, 1e12), fields.whole("zero", -U31, U31)) if has_scale else None
    )
    spec = TensorSpec(name, DType(dtype), shape, quantization)
    return spec, fields.optional_text("preprocessing"), fields.whole("count", 1, U31)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from None
