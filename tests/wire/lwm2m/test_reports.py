from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.compression import Decoder, decoder_of
from gatewayd.core.device import Bearer, Capabilities, Connectivity, EnergySource, Report, Sensor, Slot, SlotState
from gatewayd.core.errors import BadRequest
from gatewayd.core.names import Digest
from gatewayd.core.tensor import DType, TensorSpec
from gatewayd.wire.lwm2m.formats import Format, decode, encode
from gatewayd.wire.lwm2m.objects import MODEL, RUNTIME, STANDARD
from gatewayd.wire.lwm2m.paths import ROOT, Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.reports import (
    DeviceInfo,
    device_records,
    read_connectivity,
    read_device,
    read_report,
    read_software_all,
    runtime_records,
    sensor_spec,
    slot_of,
    software_slot_state,
)
from gatewayd.wire.lwm2m.states import (
    Firmware,
    FirmwareState,
    ModelSlot,
    Phase,
    Software,
    SoftwareResult,
    SoftwareState,
    firmware_records,
    model_slot_records,
    read_firmware,
    read_model_slot,
    read_software,
    software_records,
)
from gatewayd.wire.lwm2m.values import Record, Value
from tests.wire.test_mqttdevice import capabilities, digests, names, reasons, versions

AT = Path(RUNTIME, 0)
texts = st.text(max_size=64).filter(str.isprintable)


@st.composite
def model_slots(draw: st.DrawFn, *, instance: int = 0) -> ModelSlot:
    state = draw(st.sampled_from(SlotState))
    told = {
        "push": draw(versions),
        "phase": draw(st.sampled_from(Phase)),
        "offset": draw(versions),
        "reason": draw(reasons),
    }
    if state is SlotState.EMPTY:
        return ModelSlot(instance, state, **told)
    return ModelSlot(instance, state, draw(names), draw(versions), draw(digests), **told)


MIC = Sensor("mic", TensorSpec("mic", DType.INT16, (1, 29, 1, 12)), "lpc12@1")
BOARD = Capabilities(
    board="nucleo-l4r5zi", cpu="cortex-m4", clock_mhz=120, ram_bytes=655_360, flash_bytes=2_097_152, runtime="tflm",
    runtime_version="2.15", runtime_abi=3, arena_bytes=65_536, slot_bytes=131_072, chunk_bytes=1024,
    energy_source=EnergySource.BATTERY, operators=frozenset({"CONV_2D"}), sensors=(MIC,),
)  # fmt: skip


@settings(deadline=None)
@given(capabilities, st.lists(model_slots(), max_size=4), st.none() | st.integers(0, 100))
def test_what_a_simulated_device_says_is_what_the_gateway_reads(
    has: Capabilities, held: list[ModelSlot], percent: int | None
) -> None:
    held = [replace(each, instance=index) for index, each in enumerate(held)]
    info = DeviceInfo("ACME", "board", battery=None if percent is None else percent / 100)
    has = replace(has, operators=has.operators or None)  # no operator is none named
    records = [
        *runtime_records(has),
        *device_records(info),
        *(one for each in held for one in model_slot_records(each)),
    ]
    travelled = decode(Format.SENML_CBOR, ROOT, encode(Format.SENML_CBOR, ROOT, records, STANDARD), STANDARD)
    battery = info.battery if has.energy_source is EnergySource.BATTERY else None
    assert read_report(travelled) == Report(has, tuple(slot_of(each) for each in held), battery)
    assert [read_model_slot(Readings(travelled), each.instance) for each in held] == held


def born(**changes: Value | None) -> list[Record]:
    """Return a plain device's records, some resources of /26241/0 changed or (None) left out, by `r` and their number."""
    values: dict[Path, Value] = {each.path: each.value for each in runtime_records(BOARD)}
    for key, value in changes.items():
        path = AT / int(key[1:])
        values.pop(path, None)
        if value is not None:
            values[path] = value
    return [Record(path, value) for path, value in values.items()]


@pytest.mark.parametrize(
    ("page", "decoder"),
    [
        (1024, Decoder(12, BOARD.slot_bytes, 1024)),
        (0, Decoder(12, BOARD.slot_bytes, None)),  # it decodes as it receives
        (None, None),  # firmware from before the page was told: whether the stream has room there is not known
    ],
)
def test_what_a_device_decodes_is_known_only_with_its_page(page: int | None, decoder: Decoder | None) -> None:
    assert decoder_of(read_report(born(r16=12, r22=page)).capabilities) == decoder


def test_a_plain_device() -> None:
    assert read_report(born()) == Report(BOARD, (), None)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"r0": None}, "/26241/0/0"), ({"r0": "x" * 65}, "/26241/0/0"), ({"r0": "a\nb"}, "/26241/0/0"),
        ({"r0": b"board"}, "/26241/0/0"),
        ({"r2": 0}, "/26241/0/2"), ({"r2": 120.5}, "/26241/0/2"), ({"r3": 2**32}, "/26241/0/3"), ({"r8": True}, "/26241/0/8"),
        ({"r10": 65_537}, "/26241/0/10"), ({"r15": 2}, "/26241/0/15"), ({"r16": 8}, "/26241/0/16"), ({"r12": 7}, "/26241/0/12"),
        ({"r16": 12, "r22": -1}, "/26241/0/22"), ({"r16": 12, "r22": 2**31}, "/26241/0/22"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(changes: dict[str, Value | None], where: str) -> None:
    with pytest.raises(BadRequest, match=where):
        read_report(born(**changes))


def sensed(names_: dict[int, str], specs: dict[int, bytes]) -> list[Record]:
    records = [each for each in born() if each.path not in AT / 13 and each.path not in AT / 14]
    records += [Record(AT / 13 / index, name) for index, name in names_.items()]
    return [*records, *(Record(AT / 14 / index, spec) for index, spec in specs.items())]


MIC_SPEC = sensor_spec(MIC)


@pytest.mark.parametrize(
    ("names_", "specs"),
    [
        ({0: "mic"}, {}), ({1: "mic"}, {1: MIC_SPEC}), ({0: "mic"}, {1: MIC_SPEC}), ({0: "cam"}, {0: MIC_SPEC}),
        ({0: "mic"}, {0: b"\xa0"}), ({0: "mic"}, {0: b""}), ({0: "mic"}, {0: b"\x80"}), ({0: "mic"}, {0: MIC_SPEC + b"\x00"}),
        ({0: "mic"}, {0: b"\x5b" + b"\xff" * 8}), ({0: "mic", 1: "mic"}, {0: MIC_SPEC, 1: MIC_SPEC}),
        (dict.fromkeys(range(9), "mic"), dict.fromkeys(range(9), MIC_SPEC)),
    ],
)  # fmt: skip
def test_sensors_that_make_no_sense_are_refused(names_: dict[int, str], specs: dict[int, bytes]) -> None:
    with pytest.raises(BadRequest):
        read_report(sensed(names_, specs))


def test_too_many_slots_are_refused() -> None:
    nine = [one for index in range(9) for one in model_slot_records(ModelSlot(index, SlotState.EMPTY))]
    with pytest.raises(BadRequest, match="9 slots"):
        read_report([*born(), *nine])
    with pytest.raises(BadRequest, match=r"0\.\.7"):
        read_report([*born(), *model_slot_records(ModelSlot(8, SlotState.EMPTY))])


def test_a_slot_that_runs_something_says_what() -> None:
    held = ModelSlot(0, SlotState.ACTIVE, "kws", 3, Digest("ab" * 32))
    assert slot_of(held) == Slot(0, SlotState.ACTIVE, held.model, 3, held.digest)  # type: ignore[arg-type]  # a name
    for nameless in (replace(held, model=""), replace(held, version=0), replace(held, digest=None)):
        with pytest.raises(BadRequest, match="names its model"):
            slot_of(nameless)
    assert slot_of(replace(held, state=SlotState.STAGING, digest=None)) == Slot(0, SlotState.STAGING)


@pytest.mark.parametrize(
    ("sources", "energy"),
    [
        ([0], "mains"),
        ([1], "battery"),
        ([2, 1], "battery"),
        ([1, 5], "mains"),
        ([6], "mains"),
        ([], None),
        ([9], None),
        ([-1], None),
    ],
)
def test_power_sources(sources: list[int], energy: str | None) -> None:
    found = read_device([Record(Path(3, 0, 6, index), each) for index, each in enumerate(sources)]).energy_source
    assert (None if found is None else found.value) == energy


def test_a_strange_resource_of_the_device_object_costs_only_itself() -> None:
    at = Path(3, 0)
    found = read_device([
        Record(at / 0, b"\xff\xfe"), Record(at / 1, "nrf52840dk"), Record(at / 2, 17), Record(at / 3, "1.0"), Record(at / 9, 250),
        Record(at / 6, 1), Record(at / 21, -5),
    ])  # fmt: skip
    assert found == DeviceInfo(model_number="nrf52840dk", firmware_version="1.0", energy_source=EnergySource.BATTERY)


def test_connectivity() -> None:
    at = Path(4, 0)
    records = [
        Record(at / 0, 7),
        Record(at / 1 / 0, 7),
        Record(at / 1 / 1, 21),
        Record(at / 2, -71),
        Record(at / 3, "good"),
        Record(at / 4 / 0, "fe80::1"),
        Record(at / 4 / 1, "10.0.0.7"),
    ]
    said = Connectivity(Bearer.NB_IOT, -71, None, ("fe80::1", "10.0.0.7"), has_choice=True)
    assert read_connectivity(records) == said
    assert read_connectivity([]) == Connectivity()
    assert read_connectivity([Record(at / 0, 40), Record(at / 1, 21), Record(at / 2, 5000)]) == Connectivity()


softwares = st.builds(
    Software, st.integers(0, 65534), st.sampled_from(SoftwareState), st.integers(0, 255), texts, texts, st.booleans()
)
firmwares = st.builds(Firmware, st.sampled_from(FirmwareState), st.integers(0, 255), texts, texts)


@settings(deadline=None)
@given(softwares)
def test_software_is_written_and_read(software: Software) -> None:
    assert read_software(Readings(software_records(software)), software.instance) == software
    assert read_software_all(software_records(software)) == (software,)


@settings(deadline=None)
@given(firmwares)
def test_firmware_is_written_and_read(firmware: Firmware) -> None:
    assert read_firmware(Readings(firmware_records(firmware))) == firmware


def test_name_and_version_may_come_late() -> None:
    assert read_software(Readings([Record(Path(9, 2, 7), 1)]), 2) == Software(2, SoftwareState.DOWNLOAD_STARTED)


def test_an_instance_that_says_nonsense_is_left_out() -> None:
    good = Software(1, SoftwareState.INITIAL)
    assert read_software_all([Record(Path(9, 0, 7), 9), Record(Path(9, 3, 7), "x"), *software_records(good)]) == (good,)


@pytest.mark.parametrize(
    ("state", "is_active", "slot"),
    [
        (0, False, "empty"), (0, True, "empty"), (1, False, "staging"), (2, False, "staging"), (3, True, "staging"),
        (4, False, "staging"), (4, True, "active"),
    ],
)  # fmt: skip
def test_installed_is_not_active(state: int, is_active: bool, slot: str) -> None:  # noqa: FBT001 - a table's column
    assert software_slot_state(Software(0, SoftwareState(state), is_active=is_active)).value == slot


def test_failures_are_told_from_progress() -> None:
    assert next(each for each in range(256) if SoftwareResult.is_failure(each)) == 50
    assert SoftwareResult.is_failure(SoftwareResult.INSTALL_FAILED)


values = st.integers() | st.text(max_size=5) | st.binary(max_size=40) | st.booleans() | st.floats()
paths = st.builds(
    Path, st.sampled_from([3, 4, 5, 9, RUNTIME, MODEL]), st.integers(0, 2), st.integers(0, 20)
) | st.builds(Path, st.just(RUNTIME), st.just(0), st.sampled_from([11, 13, 14]), st.integers(0, 2))


@settings(deadline=None)
@given(st.lists(st.builds(Record, paths, values), max_size=30))
def test_any_records_are_a_report_or_the_one_error(records: list[Record]) -> None:
    read_device(records)
    read_connectivity(records)
    read_software_all(records)
    for reader in (
        read_report,
        lambda each: read_firmware(Readings(each)),
        lambda each: read_model_slot(Readings(each), 0),
    ):
        with suppress(BadRequest):
            reader([*born(), *records])


def test_readings_say_what_is_there() -> None:
    readings = Readings(
        [Record(AT / 11 / 0, "ADD"), Record(AT / 19, 2.5), Record(Path(9, 0, 12), 7), Record(Path(3, 0, 6), 1)]
    )
    assert readings.has(AT / 11)
    assert readings.value(AT / 12) is None
    assert readings.number_or(AT / 19, 0.0, 9.0, 0.0) == 2.5
    assert readings.number_or(AT / 18, 0.0, 9.0, 1.0) == 1.0
    assert readings.multiple(Path(3, 0, 6), 8) == (Path(3, 0, 6),)
    with pytest.raises(BadRequest, match="/26241/0/19"):
        readings.number_or(AT / 19, 0.0, 1.0, 0.0)
    with pytest.raises(BadRequest, match="boolean"):
        readings.flag_or(Path(9, 0, 12), default=None)
    with pytest.raises(BadRequest, match="at most 0"):
        readings.multiple(AT / 11, 0)


def test_a_device_object_says_its_memory() -> None:
    info = DeviceInfo("ACME", "board", energy_source=EnergySource.MAINS, memory_total_bytes=655_360)
    assert read_device(device_records(info)) == info


@pytest.mark.parametrize("times", [(-60.0, 0.0), (0.0, -60.0), (-60.0, None), (None, -60.0), (None, None)])
def test_the_newest_of_several_measurements_counts(times: tuple[float | None, float | None]) -> None:
    # A device that slept sends what it kept; clients differ in the order.
    at = Path(3, 0, 9)
    newest = 1 if times[0] is not None and (times[1] is None or times[1] > times[0]) else 0
    newest = 1 if times == (None, None) else newest
    readings = Readings([Record(at, 50 + index, time_s) for index, time_s in enumerate(times)])
    assert readings.value(at) == 50 + newest
