"""What the device keeps over a power cut, and its sensor: nothing of gatewayd is imported."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.second_device.module import Manifest, Tensor


@dataclass
class Slot:
    """One place for a model."""

    state: str = "empty"
    content: bytearray = field(default_factory=bytearray)
    manifest: Manifest | None = None


@dataclass
class Push:
    """A push under way; `noted` bytes are in flash for sure, the model `leaving` goes when it is accepted."""

    number: int
    slot: int
    phase: str = "want"
    noted: int = 0
    tries: int = 0
    leaving: str = ""


@dataclass
class Flash:
    """All that outlives a power cut."""

    slots: list[Slot] = field(default_factory=lambda: [Slot(), Slot()])
    push: Push | None = None
    accepted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sensor:
    """A source of samples of one form."""

    name: str
    shape: list[int]
    scale: float
    preprocessing: str
    read: Callable[[int], bytes]

    def as_input(self, sample: bytes, tensor: Tensor) -> bytes:
        real = [value * self.scale for value in struct.unpack(f"<{len(sample) // 2}h", sample)]
        if tensor.is_float:
            return struct.pack(f"<{len(real)}f", *real)
        bits = 8 * struct.calcsize(tensor.code)
        low, high = (0, 2**bits - 1) if tensor.code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        stored = [min(high, max(low, round(each / tensor.scale + tensor.zero))) for each in real]
        return struct.pack(f"<{len(stored)}{tensor.code}", *stored)


def row(number: int, slot: Slot) -> dict[str, Any]:
    """Return what the birth says of a slot."""
    row: dict[str, Any] = {"slot": number, "state": slot.state}
    if slot.manifest is not None:
        row |= {"model": slot.manifest.model, "version": slot.manifest.version, "digest": slot.manifest.digest.hex()}
    return row
