"""The device's birth message `up/status`: what it is, what it holds; both ends.

Source: docs/device-protocol-mqtt.md, "Who the device is".
"""

from collections.abc import Sequence
from math import prod

from gatewayd.core.device import Capabilities, EnergySource, Report, Sensor, Slot, SlotState
from gatewayd.core.names import parse_digest, parse_model_name
from gatewayd.core.tensor import DType, Quantization, TensorSpec
from gatewayd.wire.mqttdevice_data import MAX_CHUNK_BYTES, MAX_DATA_BYTES
from gatewayd.wire.mqttdevice_json import MAX_STATUS_BYTES, U31, U32, Fields, read_object, write_object

PROTOCOL_VERSION = 1
MAX_SLOTS = 8
MAX_SENSORS = 8
MAX_OPERATORS = 256
_MAX_DIMENSIONS = 6
DEFLATE_BITS = (9, 15)
"""Of a decoder's window: 512 bytes to 32 KB."""
_MAX_CLOCK_MHZ = 10_000
_SCALE_LOW, _SCALE_HIGH = 1e-12, 1e12


def encode_status(report: Report) -> bytes:
    """Build the birth message.

    Raises: TooLarge when it is over 8,192 bytes (shorten the operator list).
    """
    has = report.capabilities
    members: dict[str, object] = {
        "v": PROTOCOL_VERSION, "state": "online", "board": has.board, "cpu": has.cpu, "mhz": has.clock_mhz,
        "ram": has.ram_bytes, "flash": has.flash_bytes, "runtime": has.runtime, "runtime_version": has.runtime_version,
        "abi": has.runtime_abi, "arena": has.arena_bytes, "slot_bytes": has.slot_bytes, "chunk": has.chunk_bytes,
        "energy": has.energy_source.value,
    }  # fmt: skip
    if report.battery is not None:
        members["battery"] = report.battery
    if has.deflate_bits is not None:
        members["deflate"] = has.deflate_bits
    if has.page_bytes is not None:
        members["page"] = has.page_bytes
    if has.drops_models:
        members["drop"] = True
    if has.returns_bytes:
        members["returns"] = has.returns_bytes
    if has.operators is not None:
        members["operators"] = sorted(has.operators)
    if has.accelerator:
        members["accelerator"] = has.accelerator
    members["sensors"] = [sensor_members(sensor) for sensor in has.sensors]
    members["slots"] = [_slot_members(slot) for slot in report.slots]
    return write_object(members, where="status", most_bytes=MAX_STATUS_BYTES)


def encode_offline() -> bytes:
    """Build the last will, and what a device says when it leaves on purpose."""
    return b'{"state":"offline"}'


def decode_status(payload: bytes) -> Report | None:
    """Read `up/status`; None means the device is offline (also when its retained message was cleared).

    Raises: BadRequest naming the member.
    """
    if not payload:
        return None
    fields = read_object(payload, where="status", most_bytes=MAX_STATUS_BYTES)
    state = fields.text("state")
    if state == "offline":
        return None
    if state != "online":
        fields.refuse("state", "must be 'online' or 'offline'")
    fields.whole("v", PROTOCOL_VERSION, PROTOCOL_VERSION)
    battery = fields.number("battery", 0.0, 1.0) if fields.has("battery") else None
    return Report(_capabilities(fields), _slots(fields), battery)


def _capabilities(fields: Fields) -> Capabilities:
    energy = fields.text("energy")
    if energy not in {each.value for each in EnergySource}:
        fields.refuse("energy", "must be 'battery' or 'mains'")
    return Capabilities(
        board=fields.text("board"),
        cpu=fields.text("cpu"),
        clock_mhz=fields.whole("mhz", 1, _MAX_CLOCK_MHZ),
        ram_bytes=fields.whole("ram", 1, U32),
        flash_bytes=fields.whole("flash", 1, U32),
        runtime=fields.text("runtime"),
        runtime_version=fields.text("runtime_version"),
        runtime_abi=fields.whole("abi", 0, U31),
        arena_bytes=fields.whole("arena", 1, U31),
        slot_bytes=fields.whole("slot_bytes", 1, U31),
        chunk_bytes=fields.whole("chunk", 1, MAX_CHUNK_BYTES),
        energy_source=EnergySource(energy),
        operators=frozenset(fields.texts("operators", MAX_OPERATORS)) if fields.has("operators") else None,
        sensors=_sensors(fields),
        deflate_bits=fields.whole("deflate", *DEFLATE_BITS) if fields.has("deflate") else None,
        accelerator=fields.optional_text("accelerator"),
        page_bytes=fields.whole("page", 1, U31) if fields.has("page") else None,
        drops_models=fields.flag("drop"),
        returns_bytes=fields.whole("returns", 1, MAX_DATA_BYTES) if fields.has("returns") else 0,
    )


def _sensors(fields: Fields) -> tuple[Sensor, ...]:
    sensors = tuple(read_sensor(each) for each in fields.objects("sensors", MAX_SENSORS))
    _refuse_twins(fields, "sensors", [sensor.name for sensor in sensors])
    return sensors


def read_sensor(fields: Fields) -> Sensor:
    """Read a sensor's members, which travel in the birth message and (as CBOR) in LwM2M. Raises: BadRequest."""
    name = fields.text("name")
    if not name:
        fields.refuse("name", "must not be empty")
    return Sensor(name, _sensor_spec(fields, name), fields.optional_text("preprocessing"))


def _sensor_spec(fields: Fields, name: str) -> TensorSpec:
    dtype = fields.text("dtype")
    if dtype not in {each.value for each in DType}:
        fields.refuse("dtype", f"must be one of {', '.join(each.value for each in DType)}")
    shape = fields.wholes("shape", _MAX_DIMENSIONS, low=1, high=MAX_DATA_BYTES)
    if prod(shape) * DType(dtype).item_bytes > MAX_DATA_BYTES:
        fields.refuse("shape", f"a sample may have at most {MAX_DATA_BYTES} bytes")
    return TensorSpec(name, DType(dtype), shape, _quantization(fields))


def _quantization(fields: Fields) -> Quantization | None:
    if not fields.has("scale"):
        return None
    return Quantization(fields.number("scale", _SCALE_LOW, _SCALE_HIGH), fields.whole("zero", -U31 - 1, U31))


def _slots(fields: Fields) -> tuple[Slot, ...]:
    slots = tuple(_slot(each) for each in fields.objects("slots", MAX_SLOTS))
    _refuse_twins(fields, "slots", [str(slot.index) for slot in slots])
    return slots


def _slot(fields: Fields) -> Slot:
    index, state = fields.whole("slot", 0, MAX_SLOTS - 1), fields.text("state")
    if state not in {each.value for each in SlotState}:
        fields.refuse("state", f"must be one of {', '.join(each.value for each in SlotState)}")
    must_name = SlotState(state) in {SlotState.ACTIVE, SlotState.TRIAL}
    if not must_name and not (SlotState(state) is SlotState.STAGING and fields.has("model")):
        return Slot(index, SlotState(state))
    return Slot(
        index,
        SlotState(state),
        parse_model_name(fields.text("model")),
        fields.whole("version", 1, U31),
        parse_digest(fields.text("digest")),
    )


def _refuse_twins(fields: Fields, key: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        fields.refuse(key, "one of them stands twice")


def sensor_members(sensor: Sensor) -> dict[str, object]:
    """Return what `read_sensor` reads."""
    members: dict[str, object] = {"name": sensor.name, "dtype": sensor.spec.dtype.value, "shape": sensor.spec.shape}
    if sensor.spec.quantization is not None:
        members |= {"scale": sensor.spec.quantization.scale, "zero": sensor.spec.quantization.zero_point}
    return members | ({"preprocessing": sensor.preprocessing} if sensor.preprocessing else {})


def _slot_members(slot: Slot) -> dict[str, object]:
    members: dict[str, object] = {"slot": slot.index, "state": slot.state.value}
    if slot.model is None:
        return members
    return members | {"model": slot.model, "version": slot.version, "digest": slot.digest}
