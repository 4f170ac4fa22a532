"""Reading what a device is and holds: /3, our two objects where it has them, else /9 or /5 and what its profile says; and /4.

Source: docs/lwm2m.md, "What the gateway reads".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gatewayd.core.device import Connectivity, Profile, Report, Slot
from gatewayd.core.errors import BadRequest, DeviceError, DeviceRefused, NodeError
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.core.registration import StoredPackage
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.strangers import firmware_slots, profile_of, software_slots, stranger_report
from gatewayd.wire.lwm2m.objects import DEVICE, FIRMWARE, MODEL, MONITORING, RUNTIME, SOFTWARE
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.registration import Registration
from gatewayd.wire.lwm2m.reports import read_connectivity, read_device, read_report, read_software_all, slot_of
from gatewayd.wire.lwm2m.states import Firmware, ModelSlot, Software, read_firmware, read_model_slot
from gatewayd.wire.lwm2m.values import Record

ANSWER_S = 10.0
"""How long one read may take. A device that does not answer the first is not asked the next: nobody's address is flooded."""


@record
class Prior:
    """What the gateway knows before it asks: profiles that have LwM2M traits, and what it gave to which instance of a device."""

    profiles: tuple[Profile, ...] = ()
    given: Callable[[DeviceId], Mapping[int, StoredPackage]] = lambda _: {}


@record
class Birth:
    """A device as it was read. `profile` None: it has our objects, or nobody knows its kind."""

    report: Report
    profile: Profile | None = None
    records: tuple[Record, ...] = ()


def has_our_objects(registration: Registration) -> bool:
    """Return whether the device is one of ours: it says what it is in our words."""
    return registration.object(RUNTIME) is not None and registration.object(MODEL) is not None


async def read_birth(operations: Operations, registration: Registration, prior: Prior) -> Birth:
    """Ask a device what it is.

    Raises: BadRequest when what it says cannot be; DeviceTimeout, DeviceUnreachable, DeviceRefused.
    """
    about = await _tried(operations, Path(DEVICE, 0))
    if has_our_objects(registration):
        records = [*about, *await operations.read(Path(RUNTIME, 0), timeout_s=ANSWER_S)]
        records += await read_instances(operations, registration, MODEL)
        birth = Birth(read_report(records), records=tuple(records))
    else:
        birth = await _stranger(operations, registration, prior, about)
    connectivity = await read_reception(operations, registration)
    return replace(birth, report=replace(birth.report, connectivity=connectivity))


async def read_reception(operations: Operations, registration: Registration) -> Connectivity | None:
    """Ask a device how it is connected; None where it does not say. Raises nothing: a device is worth having without it."""
    if registration.object(MONITORING) is None:
        return None
    try:
        return read_connectivity(await operations.read(Path(MONITORING, 0), timeout_s=ANSWER_S))
    except (DeviceError, NodeError):
        return None


async def read_slots(operations: Operations, registration: Registration, prior: Prior, birth: Birth) -> Birth:
    """Read only what the slots hold now. Raises: as `read_birth`."""
    if has_our_objects(registration):
        records = await read_instances(operations, registration, MODEL)
        slots: Sequence[Slot] = [slot_of(each) for each in model_slots(records)]
        return replace(birth, report=replace(birth.report, slots=tuple(slots)), records=tuple(records))
    slots = await _stranger_slots(operations, registration, prior, birth.profile)
    return replace(birth, report=replace(birth.report, slots=tuple(slots)))


async def read_instances(operations: Operations, registration: Registration, object_id: int) -> list[Record]:
    """Read every registered instance of an object; where none is registered, the object as a whole."""
    instances = registration.instances(object_id)
    if not instances:
        return list(await operations.read(Path(object_id), timeout_s=ANSWER_S))
    records: list[Record] = []
    for instance in instances:
        records += await operations.read(Path(object_id, instance), timeout_s=ANSWER_S)
    return records


def model_slots(records: Sequence[Record]) -> list[ModelSlot]:
    """Return the slots of our model object. Raises: BadRequest."""
    readings = Readings(records)
    return [read_model_slot(readings, each) for each in readings.instances(MODEL)]


async def read_software(operations: Operations, registration: Registration) -> tuple[Software, ...]:
    """Read every instance of /9 that tells its state. Raises: DeviceTimeout, DeviceUnreachable, DeviceRefused."""
    if registration.object(SOFTWARE) is None:
        return ()
    return read_software_all(await read_instances(operations, registration, SOFTWARE))


async def read_firmware_object(operations: Operations) -> Firmware | None:
    """Read /5/0; None where it makes no sense. Raises: DeviceTimeout, DeviceUnreachable, DeviceRefused."""
    records = await operations.read(Path(FIRMWARE, 0), timeout_s=ANSWER_S)
    try:
        return read_firmware(Readings(records))
    except BadRequest:
        return None


async def _stranger(operations: Operations, registration: Registration, prior: Prior, about: Sequence[Record]) -> Birth:
    info = read_device(about)
    profile = profile_of(operations.line.device, info, prior.profiles)
    slots = await _stranger_slots(operations, registration, prior, profile)
    return Birth(stranger_report(info, profile, slots), profile, tuple(about))


async def _stranger_slots(
    operations: Operations, registration: Registration, prior: Prior, profile: Profile | None
) -> Sequence[Slot]:
    traits = None if profile is None else profile.lwm2m
    if traits is None:
        return ()
    given = prior.given(operations.line.device)
    if traits.carrier == FIRMWARE:
        return firmware_slots(await read_firmware_object(operations), given)
    return software_slots(await read_software(operations, registration), traits, given)


async def _tried(operations: Operations, path: Path) -> tuple[Record, ...]:
    """Read what is good to know; a device may refuse it."""
    try:
        return await operations.read(path, timeout_s=ANSWER_S)
    except DeviceRefused:
        return ()
