"""Devices without our objects: what a profile knows of them, and what their /9 (or /5) instances are as slots.

The digest of what an instance holds is not to be read there: the gateway remembers what it gave. Pure, but for that memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from gatewayd.core.device import Capabilities, EnergySource, Lwm2mTraits, Packaging, Profile, Report, Slot, SlotState
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.push import Offer
from gatewayd.core.registration import NOT_WHOLE, StoredPackage
from gatewayd.wire.lwm2m.objects import SOFTWARE
from gatewayd.wire.lwm2m.reports import DeviceInfo, software_slot_state
from gatewayd.wire.lwm2m.states import Firmware, Software, SoftwareState

_TFLITE_SCHEMA = 3
_LENGTH_BYTES = 2
_NO_TRAITS = Lwm2mTraits(slot_bytes=0, arena_bytes=0)
_MAX_SLOT = 7  # a slot's number is below 8 everywhere (docs/device-protocol-mqtt.md)


def profile_of(device: DeviceId, info: DeviceInfo, profiles: Iterable[Profile]) -> Profile | None:
    """Return the first profile whose patterns fit the endpoint name and what /3 says."""
    for profile in profiles:
        traits = profile.lwm2m
        if traits is not None and (
            fnmatchcase(device, traits.endpoint)
            and fnmatchcase(info.manufacturer, traits.manufacturer)
            and fnmatchcase(info.model_number, traits.model_number)
        ):
            return profile
    return None


def stranger_report(info: DeviceInfo, profile: Profile | None, slots: Sequence[Slot]) -> Report:
    """Return what such a device is: by its profile, else nothing that a model would fit on."""
    traits = _NO_TRAITS if profile is None or profile.lwm2m is None else profile.lwm2m
    energy = info.energy_source or traits.energy_source
    capabilities = Capabilities(
        board=profile.board if profile else info.model_number or "unknown",
        cpu=profile.cpu if profile else "",
        clock_mhz=profile.clock_mhz if profile else 0,
        ram_bytes=profile.ram_bytes if profile else info.memory_total_bytes or 0,
        flash_bytes=profile.flash_bytes if profile else 0,
        runtime=profile.runtime if profile else "",
        runtime_version=info.firmware_version,
        runtime_abi=_TFLITE_SCHEMA,
        arena_bytes=traits.arena_bytes,
        slot_bytes=traits.slot_bytes,
        chunk_bytes=traits.block_bytes,
        energy_source=energy,
        operators=None,
        sensors=(),
        runs_on_request=False,
        # A package with a manifest before it would show what gives way to a reader that knows nothing of it.
        drops_models=traits.carrier == SOFTWARE and traits.packaging is Packaging.ARTIFACT and profile is not None,
    )
    return Report(capabilities, tuple(slots), info.battery if energy is EnergySource.BATTERY else None)


def software_slots(
    found: Iterable[Software], traits: Lwm2mTraits, given: Mapping[int, StoredPackage]
) -> tuple[Slot, ...]:
    """Return the instances of /9 that are for models, as slots; one that runs what nobody here gave it is somebody else's."""
    slots = []
    for each in found:
        if each.instance > _MAX_SLOT or (traits.instances is not None and each.instance not in traits.instances):
            continue
        state, package = software_slot_state(each), given.get(each.instance)
        is_whole = package is not None and package.digest != NOT_WHOLE and each.state is not SoftwareState.INITIAL
        if package is not None and is_whole and is_what_was_given(each, package):
            slots.append(slot_with(each.instance, state, package))
        elif state is not SlotState.ACTIVE:
            slots.append(Slot(each.instance, state))
    return tuple(slots)


def firmware_slots(firmware: Firmware | None, given: Mapping[int, StoredPackage]) -> tuple[Slot, ...]:
    """Return /5 as the one slot: it runs what it was given last, if anything."""
    if firmware is None:
        return ()
    package = given.get(0)
    return (Slot(0, SlotState.EMPTY) if package is None else slot_with(0, SlotState.ACTIVE, package),)


def slot_with(instance: int, state: SlotState, package: StoredPackage) -> Slot:
    """Return a slot that holds what the gateway gave it."""
    return Slot(instance, state, ModelName(package.model), package.version, Digest(package.digest))


def package_prefix(offer: Offer, packaging: Packaging) -> bytes:
    """Return what stands before the artifact's bytes: nothing, or the signed manifest behind its length (2 bytes, big-endian)."""
    if packaging is Packaging.ARTIFACT:
        return b""
    return len(offer.signed).to_bytes(_LENGTH_BYTES, "big") + offer.signed


def given_instances(found: Iterable[Software], given: Mapping[int, StoredPackage]) -> frozenset[int]:
    """Return the instances of /9 that hold what the gateway wrote there, whole or not, as far as they tell."""
    return frozenset(each.instance for each in found if _is_of(each, given.get(each.instance)))


def _is_of(software: Software, package: StoredPackage | None) -> bool:
    return package is not None and is_what_was_given(software, package)


def is_what_was_given(software: Software, package: StoredPackage) -> bool:
    """An instance that tells no name or version is believed to hold what it was given; another name or version says otherwise."""
    name, version = software.name or package.model, software.version or str(package.version)
    return (name, version) == (package.model, str(package.version))
