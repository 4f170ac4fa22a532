"""What a device says of itself in /3, /4, /26241 and its slots → core values, and the other way for simulated devices.

Checked like everything that comes from outside: each value has a range, each list a length.
Source: OMA LwM2M Core 1.1.1, appendices E.4 and E.5; docs/lwm2m/26241.xml and 26242.xml.
"""

from collections.abc import Iterable, Sequence

import cbor2

from gatewayd.core.device import Bearer, Capabilities, Connectivity, EnergySource, Report, Sensor, Slot, SlotState
from gatewayd.core.errors import BadRequest
from gatewayd.core.names import parse_model_name
from gatewayd.core.record import record
from gatewayd.wire.lwm2m.cbor import read_cbor
from gatewayd.wire.lwm2m.objects import DEVICE, MODEL, MONITORING, RUNTIME, SOFTWARE
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.states import ModelSlot, Software, SoftwareState, read_model_slot, read_software
from gatewayd.wire.lwm2m.values import Record
from gatewayd.wire.mqttdevice_data import MAX_CHUNK_BYTES
from gatewayd.wire.mqttdevice_json import U31, U32, Fields
from gatewayd.wire.mqttdevice_status import (
    DEFLATE_BITS,
    MAX_OPERATORS,
    MAX_SENSORS,
    MAX_SLOTS,
    read_sensor,
    sensor_members,
)

_AT = Path(RUNTIME, 0)
_MAX_CLOCK_MHZ = 10_000
_MAX_SPEC_BYTES = 512
_MAX_TEXT_CHARS = 128  # of /3: names that vendors choose
_MAX_ADDRESSES = 8
_PERCENT = 100
_BATTERIES, _MAX_POWER_SOURCE = frozenset({1, 2}), 7
_MAX_BEARER = 50
_BEARERS = {
    **dict.fromkeys((0, 1, 2, 3, 4), Bearer.CELLULAR), 5: Bearer.LTE, 6: Bearer.LTE, 7: Bearer.NB_IOT, 21: Bearer.WLAN,
    22: Bearer.BLUETOOTH, 23: Bearer.IEEE_802_15_4, **dict.fromkeys((41, 42, 43), Bearer.WIRED),
}  # fmt: skip
_ENERGY = (EnergySource.MAINS, EnergySource.BATTERY)
_SLOTS = range(MAX_SLOTS)
_DECODES_AT_ONCE = 0


@record
class DeviceInfo:
    """What /3 says. Texts are "" and numbers None where it says nothing; `battery` is 0..1."""

    manufacturer: str = ""
    model_number: str = ""
    serial_number: str = ""
    firmware_version: str = ""
    hardware_version: str = ""
    energy_source: EnergySource | None = None
    battery: float | None = None
    memory_total_bytes: int | None = None


def read_device(records: Iterable[Record]) -> DeviceInfo:
    """Read /3/0; what is strange there is left out: nothing in it is worth losing a device for."""
    readings, at = Readings(records), Path(DEVICE, 0)
    battery = _tried_whole(readings, at / 9, 0, _PERCENT)
    memory_kb = _tried_whole(readings, at / 21, 0, U31)
    return DeviceInfo(
        manufacturer=_tried_text(readings, at / 0),
        model_number=_tried_text(readings, at / 1),
        serial_number=_tried_text(readings, at / 2),
        firmware_version=_tried_text(readings, at / 3),
        hardware_version=_tried_text(readings, at / 18),
        energy_source=_energy_source(readings, at / 6),
        battery=None if battery is None else battery / _PERCENT,
        memory_total_bytes=None if memory_kb is None else memory_kb * 1024,
    )


def device_records(info: DeviceInfo) -> tuple[Record, ...]:
    """Return what `read_device` reads."""
    at = Path(DEVICE, 0)
    texts = {
        0: info.manufacturer,
        1: info.model_number,
        2: info.serial_number,
        3: info.firmware_version,
        18: info.hardware_version,
    }
    records = [Record(at / id_, text) for id_, text in texts.items() if text]
    if info.energy_source is not None:
        records.append(Record(at / 6 / 0, 1 if info.energy_source is EnergySource.BATTERY else 0))
    if info.battery is not None:
        records.append(Record(at / 9, round(info.battery * _PERCENT)))
    if info.memory_total_bytes is not None:
        records.append(Record(at / 21, info.memory_total_bytes // 1024))
    return tuple(sorted((*records, Record(at / 11 / 0, 0), Record(at / 16, "U")), key=lambda each: each.path.ids))


def read_connectivity(records: Iterable[Record]) -> Connectivity:
    """Read /4/0; what is strange there is left out."""
    readings, at = Readings(records), Path(MONITORING, 0)
    bearer = _tried_whole(readings, at / 0, 0, _MAX_BEARER)
    return Connectivity(
        bearer=None if bearer is None else _BEARERS.get(bearer),
        signal_dbm=_tried_whole(readings, at / 2, -200, 100),
        link_quality=_tried_whole(readings, at / 3, -1000, 1000),
        addresses=_tried_texts(readings, at / 4),
        has_choice=_has_several(readings, at / 1),
    )


def read_report(records: Iterable[Record]) -> Report:
    """Read what a device with our objects is and holds: /26241, /26242 and the battery of /3.

    Raises: BadRequest naming the resource.
    """
    kept = tuple(records)
    readings = Readings(kept)
    capabilities = _capabilities(readings)
    slots = tuple(slot_of(read_model_slot(readings, each)) for each in _slot_instances(readings))
    battery = read_device(kept).battery
    return Report(capabilities, slots, battery if capabilities.energy_source is EnergySource.BATTERY else None)


def slot_of(held: ModelSlot) -> Slot:
    """Return the slot of an instance of /26242. Raises: BadRequest when it runs something that it does not name."""
    at = Path(MODEL, held.instance)
    if held.instance not in _SLOTS:
        raise BadRequest(f"{at}: slots are numbered 0..{MAX_SLOTS - 1}")
    is_named = bool(held.model and held.version and held.digest)
    if held.state is SlotState.EMPTY or (held.state is SlotState.STAGING and not is_named):
        return Slot(held.instance, held.state)
    if not is_named:
        raise BadRequest(f"{at}: a slot that is {held.state.value} names its model, version and digest")
    return Slot(held.instance, held.state, parse_model_name(held.model), held.version, held.digest)


def read_software_all(records: Iterable[Record]) -> tuple[Software, ...]:
    """Read all instances of /9 that say their state; one that says what cannot be is left out (it is nobody's slot)."""
    readings = Readings(records)
    found = (_tried_software(readings, each) for each in readings.instances(SOFTWARE))
    return tuple(each for each in found if each is not None)


def software_slot_state(software: Software) -> SlotState:
    """Return what an instance of /9 is as a slot: installed is not active until it was activated."""
    if software.state is SoftwareState.INITIAL:
        return SlotState.EMPTY
    is_running = software.state is SoftwareState.INSTALLED and software.is_active
    return SlotState.ACTIVE if is_running else SlotState.STAGING


def runtime_records(capabilities: Capabilities) -> tuple[Record, ...]:
    """Return what /26241 of a device with these capabilities holds."""
    has = capabilities
    values: tuple[str | int, ...] = (
        has.board, has.cpu, has.clock_mhz, has.ram_bytes, has.flash_bytes, has.runtime, has.runtime_version, has.runtime_abi,
        has.arena_bytes, has.slot_bytes, has.chunk_bytes,
    )  # fmt: skip
    records = [Record(_AT / id_, value) for id_, value in enumerate(values)]
    records += [Record(_AT / 11 / id_, each) for id_, each in enumerate(sorted(has.operators or ()))]
    if has.accelerator:
        records.append(Record(_AT / 12, has.accelerator))
    records += [Record(_AT / 13 / id_, each.name) for id_, each in enumerate(has.sensors)]
    records += [Record(_AT / 14 / id_, sensor_spec(each)) for id_, each in enumerate(has.sensors)]
    records.append(Record(_AT / 15, _ENERGY.index(has.energy_source)))
    if has.deflate_bits is not None:
        records.append(Record(_AT / 16, has.deflate_bits))
    if has.drops_models:
        records.append(Record(_AT / 21, has.drops_models))
    if has.deflate_bits is not None:
        records.append(Record(_AT / 22, has.page_bytes or _DECODES_AT_ONCE))
    return tuple(records)


def sensor_spec(sensor: Sensor) -> bytes:
    """Return a sensor as /26241/0/14 holds it: the members of a sensor in the MQTT birth message, in CBOR."""
    members = sensor_members(sensor)
    return cbor2.dumps({key: list(value) if isinstance(value, tuple) else value for key, value in members.items()})


def _capabilities(readings: Readings) -> Capabilities:
    deflate, page_bytes = _decoding(readings)
    operators = readings.texts(_AT / 11, MAX_OPERATORS)
    return Capabilities(
        board=readings.text(_AT / 0),
        cpu=readings.text(_AT / 1),
        clock_mhz=readings.whole(_AT / 2, 1, _MAX_CLOCK_MHZ),
        ram_bytes=readings.whole(_AT / 3, 1, U32),
        flash_bytes=readings.whole(_AT / 4, 1, U32),
        runtime=readings.text(_AT / 5),
        runtime_version=readings.text(_AT / 6),
        runtime_abi=readings.whole(_AT / 7, 0, U31),
        arena_bytes=readings.whole(_AT / 8, 1, U31),
        slot_bytes=readings.whole(_AT / 9, 1, U31),
        chunk_bytes=readings.whole(_AT / 10, 1, MAX_CHUNK_BYTES),
        energy_source=_ENERGY[readings.whole(_AT / 15, 0, len(_ENERGY) - 1)],
        operators=frozenset(operators) if operators else None,
        sensors=_sensors(readings),
        deflate_bits=deflate,
        accelerator=readings.text_or(_AT / 12),
        page_bytes=page_bytes,
        drops_models=readings.flag_or(_AT / 21, default=False) is True,
    )


def _decoding(readings: Readings) -> tuple[int | None, int | None]:
    """Return the window's bits and the page's bytes, as `Capabilities` has them.

    Firmware from before resource 22 does not say whether a slot must hold the stream beside what it decodes to: it counts as one
    that decodes nothing, and gets models as they are.
    """
    if not readings.has(_AT / 16):
        return None, None
    deflate_bits = readings.whole(_AT / 16, *DEFLATE_BITS)
    if not readings.has(_AT / 22):
        return None, None
    return deflate_bits, readings.whole(_AT / 22, _DECODES_AT_ONCE, U31) or None


def _sensors(readings: Readings) -> tuple[Sensor, ...]:
    names, specs = readings.multiple(_AT / 13, MAX_SENSORS), readings.multiple(_AT / 14, MAX_SENSORS)
    if [each.ids[-1] for each in names] != list(range(len(names))) or len(names) != len(specs):
        readings.refuse(_AT / 13, "sensors are numbered from 0 without a gap, and each has its spec in resource 14")
    sensors = tuple(_sensor(readings, name, spec) for name, spec in zip(names, specs, strict=True))
    if len({each.name for each in sensors}) != len(sensors):
        readings.refuse(_AT / 13, "one of them stands twice")
    return sensors


def _sensor(readings: Readings, name: Path, spec: Path) -> Sensor:
    members = read_cbor(readings.content(spec, _MAX_SPEC_BYTES))
    if spec.ids[-1] != name.ids[-1] or not isinstance(members, dict):
        readings.refuse(spec, "must be a CBOR map, under the number of its name")
    sensor = read_sensor(Fields({str(key): value for key, value in members.items()}, str(spec)))
    if sensor.name != readings.text(name):
        readings.refuse(spec, f"is the spec of {sensor.name!r}, not of {readings.text(name)!r}")
    return sensor


def _slot_instances(readings: Readings) -> Sequence[int]:
    instances = readings.instances(MODEL)
    if len(instances) > MAX_SLOTS:
        readings.refuse(Path(MODEL), f"{len(instances)} slots, at most {MAX_SLOTS} are read")
    return instances


def _energy_source(readings: Readings, path: Path) -> EnergySource | None:
    """A device that has both a battery and a plug runs on the plug. Source: LwM2M Core 1.1.1, appendix E.4, resource 6."""
    try:
        sources = {
            readings.whole(each, 0, _MAX_POWER_SOURCE) for each in readings.multiple(path, _MAX_POWER_SOURCE + 1)
        }
    except BadRequest:
        return None
    if not sources:
        return None
    return EnergySource.BATTERY if sources <= _BATTERIES else EnergySource.MAINS


def _has_several(readings: Readings, path: Path) -> bool:
    try:
        return len(readings.multiple(path, _MAX_BEARER)) > 1
    except BadRequest:
        return False


def _tried_text(readings: Readings, path: Path) -> str:
    try:
        return readings.text_or(path, most=_MAX_TEXT_CHARS)
    except BadRequest:
        return ""


def _tried_texts(readings: Readings, path: Path) -> tuple[str, ...]:
    try:
        return readings.texts(path, _MAX_ADDRESSES)
    except BadRequest:
        return ()


def _tried_whole(readings: Readings, path: Path, low: int, high: int) -> int | None:
    try:
        return readings.whole(path, low, high)
    except BadRequest:
        return None


def _tried_software(readings: Readings, instance: int) -> Software | None:
    try:
        return read_software(readings, instance)
    except BadRequest:
        return None
