"""Whether a version fits a device, before a byte is sent: flash slot, tensor arena, operators, types, runtime ABI, free slot.

The device checks again by itself and has the last word; this saves the airtime and tells the operator why.
"""

from collections.abc import Callable, Iterator, Sequence

from gatewayd.core.arena_need import NOTHING_LEARNED, Beliefs, Need
from gatewayd.core.building import NPU_CONFIGS, is_for_npu
from gatewayd.core.device import Capabilities, Slot, SlotState
from gatewayd.core.model import Operator, Place, Variant, Version
from gatewayd.core.names import ModelName
from gatewayd.core.record import record

# The TensorFlow Lite schema that every .tflite file since 2018 is written in. Source: tensorflow/lite/version.h.
TFLITE_SCHEMA = 3


@record
class Fit:
    """The variant to push (None: none fits) and one reason for each variant that was refused."""

    variant: Variant | None
    reasons: tuple[str, ...]


Fitter = Callable[[Version, Capabilities], Fit]
"""`fit`, or `fit` with what was learned meanwhile."""


@record
class Finding:
    """One variant against one device: what stands in the way (() when it runs), and the arena it needs there."""

    variant: Variant
    obstacles: tuple[str, ...]
    need: Need


def fit(version: Version, capabilities: Capabilities, beliefs: Beliefs = NOTHING_LEARNED) -> Fit:
    """Choose the variant of `version` that suits the device best: integer before float, then the smaller one."""
    if not version.variants:
        return Fit(None, (f"{version} has no variants",))
    found = findings(version, capabilities, beliefs)
    reasons = tuple(f"{each.variant.name}: {'; '.join(each.obstacles)}" for each in found if each.obstacles)
    return Fit(min((each.variant for each in found if not each.obstacles), key=_preference, default=None), reasons)


def findings(version: Version, capabilities: Capabilities, beliefs: Beliefs = NOTHING_LEARNED) -> tuple[Finding, ...]:
    """Hold every variant against the device."""
    needs = [(each, beliefs.need(each, capabilities)) for each in version.variants]
    return tuple(Finding(each, tuple(_obstacles(each, capabilities, need)), need) for each, need in needs)


def preprocessing_remark(version: Version, capabilities: Capabilities) -> str:
    """Return why none of the device's own sensors can feed the version, "" when one can or there is none.

    It is no obstacle: data from elsewhere can still be sent there.
    """
    wanted = version.signature.preprocessing
    if not capabilities.sensors or any(each.preprocessing == wanted for each in capabilities.sensors):
        return ""
    given = ", ".join(f"{each.name} gives {each.preprocessing or 'raw values'}" for each in capabilities.sensors)
    return f"no sensor of the device feeds it: it takes {wanted or 'raw values'}, {given}"


def room_for(slots: Sequence[Slot], model: ModelName, *, one_slot: bool = False) -> str:
    """Return why the slots leave no room for a push of `model`, or "" when they do.

    A device with k slots holds at most k - 1 models, so that an update never overwrites what runs. With `one_slot` the operator
    allows just that on a device with one slot: it has no model while the push runs, nor after one that fails.
    """
    if not slots:
        return "the device reports no model slots"
    held = {each.model for each in slots if each.state in {SlotState.ACTIVE, SlotState.TRIAL}}
    if one_slot and len(slots) == 1 and held <= {model}:
        return ""
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


def _obstacles(variant: Variant, device: Capabilities, need: Need) -> Iterator[str]:
    yield from _engine_obstacles(variant)
    if device.runtime_abi != TFLITE_SCHEMA:
        yield f"needs a runtime for TFLite schema {TFLITE_SCHEMA}, the device reads {device.runtime_abi}"
    if variant.size_bytes > device.slot_bytes:
        yield f"is {variant.size_bytes:,} bytes, a slot takes {_given(device.slot_bytes, variant.size_bytes)}"
    if need.arena_bytes is not None and need.arena_bytes > device.arena_bytes:
        how = "" if need.source == "measured" else f" ({need.source})"
        given = _given(device.arena_bytes, need.arena_bytes)
        yield f"needs a {need.arena_bytes:,}-byte arena{how}, the device gives {given}"
    yield from _operator_obstacles(variant, device)
    yield from _npu_obstacles(variant, device.accelerator)


def _engine_obstacles(variant: Variant) -> Iterator[str]:
    """An arena that nobody knows is no obstacle: the device tries the model before it lets it answer."""
    if variant.structure.accelerator:
        return  # what an accelerator runs, no engine here can try: its operator on the device decides
    verdict = variant.verdict(Place.DEVICE)
    if verdict is None:
        yield "not tried for devices"
    elif not verdict.runs:
        yield f"does not run on {verdict.engine}: {verdict.reason}"


def _operator_obstacles(variant: Variant, device: Capabilities) -> Iterator[str]:
    if device.operators is None:
        accelerator = "" if _npu_of(variant) else variant.structure.accelerator
        if accelerator and accelerator not in f"{device.runtime} {device.cpu} {device.accelerator}".lower():
            yield f"is compiled for {accelerator}, which the device does not name"
        return
    missing = [each for each in variant.structure.operators if not _supports(device.operators, each)]
    if missing:
        yield f"the device's runtime has no {', '.join(sorted({_named(each, device.operators) for each in missing}))}"


def _supports(operators: frozenset[str], wanted: Operator) -> bool:
    """A device names an operator, or an operator up to a version: CONV_2D, CONV_2D:5."""
    if wanted.name in operators:
        return True
    newest = [_version(each) for each in operators if each.startswith(f"{wanted.name}:")]
    return any(wanted.version <= each for each in newest)


def _version(told: str) -> int:
    version = told.rpartition(":")[2]
    return int(version) if version.isdecimal() and len(version) <= 4 else 0  # noqa: PLR2004 - versions have one or two digits


def _named(wanted: Operator, operators: frozenset[str]) -> str:
    has_older = any(each.startswith(f"{wanted.name}:") for each in operators)
    return f"{wanted.name} version {wanted.version}" if has_older else wanted.name


def _npu_obstacles(variant: Variant, accelerator: str) -> Iterator[str]:
    """What was built for an NPU runs on that one only, and without it not at all."""
    npu = _npu_of(variant)
    if npu and npu != accelerator:
        yield f"is compiled for the NPU {npu}, the device has {accelerator or 'none'}"


def _npu_of(variant: Variant) -> str:
    """Return the NPU that the variant was built for; "" for another variant, or a file that does not say for which."""
    return variant.name if is_for_npu(variant.structure) and variant.name in NPU_CONFIGS else ""


def _given(given: int, needed: int) -> str:
    return f"{given:,} ({needed - given:,} short)"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
