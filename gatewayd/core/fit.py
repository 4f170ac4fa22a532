"""Whether a version fits a device, before a byte is sent: flash slot, tensor arena, operators, runtime ABI, free slot.

The device checks again by itself and has the last word; this saves the airtime and tells the operator why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gatewayd.core.building import is_for_npu
from gatewayd.core.device import Capabilities, Slot, SlotState
from gatewayd.core.model import Place, Variant, Version
from gatewayd.core.names import ModelName

# The TensorFlow Lite schema that every .tflite file since 2018 is written in. Source: tensorflow/lite/version.h.
TFLITE_SCHEMA = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """The variant to push (None: none fits) and one reason for each variant that was refused."""

    variant: Variant | None
    reasons: tuple[str, ...]


def fit(version: Version, capabilities: Capabilities) -> Fit:
    """Choose the variant of `version` that suits the device best: integer before float, then the smaller one."""
    if not version.variants:
        return Fit(None, (f"{version} has no variants",))
    findings = [(each, "; ".join(_obstacles(each, capabilities))) for each in version.variants]
    fitting = [each for each, obstacles in findings if not obstacles]
    reasons = tuple(f"{each.name}: {obstacles}" for each, obstacles in findings if obstacles)
    return Fit(min(fitting, key=_preference, default=None), reasons)


def room_for(slots: Sequence[Slot], model: ModelName) -> str:
    """Return why the slots leave no room for a push of `model`, or "" when they do.

    A device with k slots holds at most k - 1 models, so that an update never overwrites what runs.
    """
    if not slots:
        return "the device reports no model slots"
    held = {each.model for each in slots if each.state in {SlotState.ACTIVE, SlotState.TRIAL}}
    names = ", ".join(sorted(str(each) for each in held if each is not None))
    if len(held | {model}) > len(slots) - 1:
        holds = f", and it holds {names}" if names else ""
        return (
            f"{_counted(len(slots), 'slot')}: room for {_counted(len(slots) - 1, 'model')}, one is for staging{holds}"
        )
    if all(each.state in {SlotState.ACTIVE, SlotState.TRIAL} for each in slots):
        return f"no slot is free for staging: all {len(slots)} are active or on trial ({names})"
    return ""


def _preference(variant: Variant) -> tuple[bool, bool, int, int, str]:
    """Integer kernels are several times faster on a core without a wide FPU, and int8 weights a quarter of the size."""
    is_float = not all(each.dtype.is_integer for each in variant.structure.inputs)
    return is_float, not is_for_npu(variant.structure), variant.size_bytes, variant.arena_bytes or 0, variant.name


def _obstacles(variant: Variant, device: Capabilities) -> Iterator[str]:
    yield from _engine_obstacles(variant)
    if device.runtime_abi != TFLITE_SCHEMA:
        yield f"needs a runtime for TFLite schema {TFLITE_SCHEMA}, the device reads {device.runtime_abi}"
    if variant.size_bytes > device.slot_bytes:
        yield f"is {variant.size_bytes:,} bytes, a slot takes {_given(device.slot_bytes, variant.size_bytes)}"
    if variant.arena_bytes is not None and variant.arena_bytes > device.arena_bytes:
        given = _given(device.arena_bytes, variant.arena_bytes)
        yield f"needs a {variant.arena_bytes:,}-byte arena, the device gives {given}"
    yield from _operator_obstacles(variant, device.operators)
    yield from _npu_obstacles(variant, device.accelerator)


def _engine_obstacles(variant: Variant) -> Iterator[str]:
    """An arena that nobody measured is no obstacle: the device tries the model before it lets it answer."""
    verdict = variant.verdict(Place.DEVICE)
    if verdict is None:
        yield "not tried for devices"
    elif not verdict.runs:
        yield f"does not run on {verdict.engine}: {verdict.reason}"


def _operator_obstacles(variant: Variant, supported: frozenset[str] | None) -> Iterator[str]:
    if supported is None:
        return
    missing = sorted({each.name for each in variant.structure.operators} - supported)
    if missing:
        yield f"the device's runtime has no {', '.join(missing)}"


def _npu_obstacles(variant: Variant, accelerator: str) -> Iterator[str]:
    """What was compiled for an NPU runs on that one only, and without it not at all."""
    if is_for_npu(variant.structure) and variant.name != accelerator:
        yield f"is compiled for the NPU {variant.name}, the device has {accelerator or 'none'}"


def _given(given: int, needed: int) -> str:
    return f"{given:,} ({needed - given:,} short)"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
