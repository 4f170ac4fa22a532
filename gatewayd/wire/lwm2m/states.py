"""What the update objects of a device say, as values: Software Management (/9), Firmware Update (/5), ML Model (/26242).

Both ends: the gateway reads them, a simulated device writes them. What follows from them is `gatewayd.links.lwm2m.slots`.
Source: OMA LwM2M Software Management 1.0.3, section 6.1; OMA LwM2M Core 1.1.1, appendix E.6; docs/lwm2m/26242.xml.
"""

from enum import IntEnum

from gatewayd.core.device import SlotState
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.wire.lwm2m.objects import FIRMWARE, MODEL, SOFTWARE
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.values import Record

_MAX_RESULT = 255
_MAX_REASON_CHARS = 200
_U31 = 2**31 - 1
_DIGEST_BYTES = 32
_MAX_VERSION_CHARS = 255  # of /9 and /5, which may hold any vendor's version text


class SoftwareState(IntEnum):
    """/9/i/7. DELIVERED also stands while an installation runs."""

    INITIAL = 0
    DOWNLOAD_STARTED = 1
    DOWNLOADED = 2
    DELIVERED = 3
    INSTALLED = 4


class SoftwareResult(IntEnum):
    """/9/i/9, the ones that lead somewhere; all from 50 on are failures."""

    INITIAL = 0
    DOWNLOADING = 1
    INSTALLED = 2
    VERIFIED = 3
    NO_STORAGE = 50
    NO_MEMORY = 51
    CONNECTION_LOST = 52
    INTEGRITY_FAILED = 53
    UNSUPPORTED_TYPE = 54
    INVALID_URI = 56
    UPDATE_ERROR = 57
    INSTALL_FAILED = 58
    UNINSTALL_FAILED = 59

    @classmethod
    def is_failure(cls, result: int) -> bool:
        """Return whether a result says that something went wrong."""
        return result >= cls.NO_STORAGE


class FirmwareState(IntEnum):
    """/5/0/3."""

    IDLE = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    UPDATING = 3


class Phase(IntEnum):
    """/26242/i/14: how far the push of resource 13 is."""

    NONE = 0
    WANT = 1
    WRITTEN = 2
    VERIFIED = 3
    TESTED = 4
    TRIAL = 5
    ACCEPTED = 6
    REJECTED = 7
    FAILED = 8


@record
class Software:
    """One instance of /9. Name and version may be "" before DELIVERED; `is_active` is /12, the truth about running."""

    instance: int
    state: SoftwareState
    result: int = 0
    name: str = ""
    version: str = ""
    is_active: bool = False


@record
class Firmware:
    """/5/0. `result` 0 initial, 1 success, others failures."""

    state: FirmwareState
    result: int = 0
    name: str = ""
    version: str = ""


@record
class ModelSlot:
    """One instance of /26242. Model, version and digest are "" and 0 in an empty slot; `push` 0: none."""

    instance: int
    state: SlotState
    model: str = ""
    version: int = 0
    digest: Digest | None = None
    push: int = 0
    phase: Phase = Phase.NONE
    offset: int = 0
    reason: str = ""


_SLOT_STATES = (SlotState.EMPTY, SlotState.STAGING, SlotState.TRIAL, SlotState.ACTIVE)


def read_software(readings: Readings, instance: int) -> Software:
    """Read one instance of /9. Raises: BadRequest when the state is missing or is none."""
    at = Path(SOFTWARE, instance)
    return Software(
        instance,
        SoftwareState(readings.whole(at / 7, SoftwareState.INITIAL, SoftwareState.INSTALLED)),
        result=readings.whole_or(at / 9, 0, _MAX_RESULT, 0),
        name=readings.text_or(at / 0, most=_MAX_VERSION_CHARS),
        version=readings.text_or(at / 1, most=_MAX_VERSION_CHARS),
        is_active=bool(readings.flag_or(at / 12, default=False)),
    )


def software_records(software: Software) -> tuple[Record, ...]:
    """Return what `read_software` reads."""
    at = Path(SOFTWARE, software.instance)
    return (
        Record(at / 0, software.name), Record(at / 1, software.version), Record(at / 7, int(software.state)),
        Record(at / 9, software.result), Record(at / 12, software.is_active),
    )  # fmt: skip


def read_firmware(readings: Readings) -> Firmware:
    """Read /5/0. Raises: BadRequest when the state is missing or is none."""
    at = Path(FIRMWARE, 0)
    return Firmware(
        FirmwareState(readings.whole(at / 3, FirmwareState.IDLE, FirmwareState.UPDATING)),
        result=readings.whole_or(at / 5, 0, _MAX_RESULT, 0),
        name=readings.text_or(at / 6, most=_MAX_VERSION_CHARS),
        version=readings.text_or(at / 7, most=_MAX_VERSION_CHARS),
    )


def firmware_records(firmware: Firmware) -> tuple[Record, ...]:
    """Return what `read_firmware` reads."""
    at = Path(FIRMWARE, 0)
    return (
        Record(at / 3, int(firmware.state)), Record(at / 5, firmware.result), Record(at / 6, firmware.name),
        Record(at / 7, firmware.version),
    )  # fmt: skip


def read_model_slot(readings: Readings, instance: int) -> ModelSlot:
    """Read one instance of /26242. Raises: BadRequest when the state is missing, or a value is out of its range."""
    at = Path(MODEL, instance)
    digest = readings.content(at / 3, _DIGEST_BYTES) if readings.has(at / 3) else b""
    if digest and len(digest) != _DIGEST_BYTES:
        readings.refuse(at / 3, f"must be the {_DIGEST_BYTES} bytes of a SHA-256, or empty")
    return ModelSlot(
        instance,
        _SLOT_STATES[readings.whole(at / 0, 0, len(_SLOT_STATES) - 1)],
        model=readings.text_or(at / 1),
        version=readings.whole_or(at / 2, 0, _U31, 0),
        digest=Digest(digest.hex()) if digest else None,
        push=readings.whole_or(at / 13, 0, _U31, 0),
        phase=Phase(readings.whole_or(at / 14, Phase.NONE, Phase.FAILED, Phase.NONE)),
        offset=readings.whole_or(at / 15, 0, _U31, 0),
        reason=readings.text_or(at / 10, most=_MAX_REASON_CHARS),
    )


def model_slot_records(slot: ModelSlot) -> tuple[Record, ...]:
    """Return what `read_model_slot` reads."""
    at = Path(MODEL, slot.instance)
    return (
        Record(at / 0, _SLOT_STATES.index(slot.state)), Record(at / 1, slot.model), Record(at / 2, slot.version),
        Record(at / 3, bytes.fromhex(slot.digest or "")), Record(at / 10, slot.reason), Record(at / 13, slot.push),
        Record(at / 14, int(slot.phase)), Record(at / 15, slot.offset),
    )  # fmt: skip
