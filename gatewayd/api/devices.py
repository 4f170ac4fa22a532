"""The verbs about devices, with what they answer."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, DeviceText, Positional, Result, Role, Verb
from gatewayd.core.device import Capabilities, Connectivity, DeviceView, Sensor, Slot
from gatewayd.core.errors import BadRequest, UnknownDevice
from gatewayd.core.names import parse_device_id
from gatewayd.core.retry import Desire, Terms


class SensorRow(Result):
    """A source of samples; `input` is what a request by reference names."""

    input: str
    datatype: str
    shape: list[int]
    preprocessing: str


class SlotRow(Result):
    """A place for one model; `model` and `version` null: empty."""

    slot: int
    state: str
    model: str | None
    version: int | None


class BoardRow(Result):
    """What the device said of itself."""

    board: str
    cpu: str
    clock_mhz: int
    ram_bytes: int
    flash_bytes: int
    runtime: str
    runtime_version: str
    arena_bytes: int
    slot_bytes: int
    energy: str
    sensors: list[SensorRow]


class LinkRow(Result):
    """How it is reached: three figures as measured; from `bearer` on as the device says, null and [] where it does not."""

    kind: str
    rtt_ms: float
    goodput_bytes_per_s: float
    loss: float
    bearer: str | None = None
    signal_dbm: int | None = None
    link_quality: int | None = None
    addresses: list[str] = Field(default_factory=list)


class DesiredRow(Result):
    """What the gateway wants on a device. `settled`: why it is not tried any more ("": it is, while the device lacks it)."""

    model: str
    version: int
    who: str
    failures: int
    settled: str


class DeviceRow(Result):
    """One device. `board` and `battery` null: not reported; `desired` is what the gateway wants there (`kws@2`).

    `quarantine` says why it is not pushed to any more ("": it is); `one_slot` that it may be without a model during a push.
    `revoked`: it was taken out, and only `devices.approve` lets it in again.
    """

    device: str
    approved: bool
    online: bool
    board: BoardRow | None
    battery: float | None
    link: LinkRow
    slots: list[SlotRow]
    desired: list[str]
    running: int
    note: str
    wishes: list[DesiredRow] = Field(default_factory=list)
    one_slot: bool = False
    quarantine: str = ""
    revoked: bool = False


class ListDevices(Arguments):
    """Arguments of devices.list."""


class DeviceList(Result):
    """What devices.list answers."""

    devices: list[DeviceRow]


class ApproveDevice(Arguments):
    """Arguments of devices.approve."""

    device: Annotated[DeviceText, Positional()]


class ReleaseDevice(Arguments):
    """Arguments of devices.release."""

    device: Annotated[DeviceText, Positional()]


class OneSlot(Arguments):
    """Arguments of devices.one-slot. Without `allow` the permission is taken back."""

    device: Annotated[DeviceText, Positional()]
    allow: Annotated[bool, Field(description="allow it; left out: no longer")] = False


async def list_devices(services: Services, args: ListDevices, caller: Caller) -> DeviceList:  # noqa: ARG001 - a handler's shape
    """List devices with their slots and links."""
    return DeviceList(devices=[_row(services, view) for view in services.tracking.devices()])


async def approve(services: Services, args: ApproveDevice, caller: Caller) -> DeviceRow:
    """Let a device in."""
    device = parse_device_id(args.device)
    view = await services.tracking.approve(
        device, who=caller.name, note_of=caller.note(lambda approved: _row(services, approved))
    )
    return _row(services, view)


async def release(services: Services, args: ReleaseDevice, caller: Caller) -> DeviceRow:
    """End a quarantine, and try again what was given up."""
    view = services.tracking.device(parse_device_id(args.device))
    await services.pushes.release(view.id, note_of=caller.note(lambda wishes: device_row(view, *wishes)))
    return _row(services, services.tracking.device(view.id))


async def one_slot(services: Services, args: OneSlot, caller: Caller) -> DeviceRow:
    """Allow or forbid pushes to a device with a single slot."""
    view = services.tracking.device(parse_device_id(args.device))
    await services.pushes.allow_one_slot(
        view.id, allowed=args.allow, note_of=caller.note(lambda wishes: device_row(view, *wishes))
    )
    return _row(services, services.tracking.device(view.id))


def _row(services: Services, view: DeviceView) -> DeviceRow:
    return device_row(view, services.pushes.terms(view.id), services.pushes.desired(view.id))


def device_row(view: DeviceView, terms: Terms, desired: Sequence[Desire]) -> DeviceRow:
    """Return the device as callers see it."""
    report = view.report
    return DeviceRow(
        device=view.id,
        approved=view.approved,
        online=view.online,
        board=_board_row(report.capabilities) if report else None,
        battery=report.battery if report else None,
        link=_link_row(view),
        slots=[_slot_row(slot) for slot in report.slots] if report else [],
        desired=[f"{model}@{version}" for model, version in view.desired],
        running=view.running,
        note=view.note,
        wishes=[
            DesiredRow(
                model=each.model, version=each.version, who=each.who, failures=each.failures, settled=each.settled
            )
            for each in desired
        ],
        one_slot=terms.one_slot,
        quarantine=terms.quarantine,
        revoked=view.revoked,
    )


def _board_row(told: Capabilities) -> BoardRow:
    return BoardRow(
        board=told.board,
        cpu=told.cpu,
        clock_mhz=told.clock_mhz,
        ram_bytes=told.ram_bytes,
        flash_bytes=told.flash_bytes,
        runtime=told.runtime,
        runtime_version=told.runtime_version,
        arena_bytes=told.arena_bytes,
        slot_bytes=told.slot_bytes,
        energy=told.energy_source.value,
        sensors=[_sensor_row(sensor) for sensor in told.sensors],
    )


def _sensor_row(sensor: Sensor) -> SensorRow:
    spec = sensor.spec
    return SensorRow(
        input=sensor.name, datatype=spec.dtype.value, shape=list(spec.shape), preprocessing=sensor.preprocessing
    )


def _link_row(view: DeviceView) -> LinkRow:
    quality, said = view.quality, (view.report.connectivity if view.report else None) or Connectivity()
    return LinkRow(
        kind=view.link.value,
        rtt_ms=quality.rtt_s * 1000,
        goodput_bytes_per_s=quality.goodput_bytes_per_s,
        loss=quality.loss,
        bearer=said.bearer.value if said.bearer else None,
        signal_dbm=said.signal_dbm,
        link_quality=said.link_quality,
        addresses=list(said.addresses),
    )


def _slot_row(slot: Slot) -> SlotRow:
    return SlotRow(slot=slot.index, state=slot.state.value, model=slot.model, version=slot.version)


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "devices.list",
        "List devices with what they are, hold and measure",
        ListDevices,
        DeviceList,
        list_devices,
        Role.VIEWER,
        is_read=True,
    ),
    Verb(
        "devices.approve",
        "Let a device in",
        ApproveDevice,
        DeviceRow,
        approve,
        Role.ADMIN,
        errors=(BadRequest, UnknownDevice),
    ),
    Verb(
        "devices.release",
        "End a device's quarantine, and try again what was given up there",
        ReleaseDevice,
        DeviceRow,
        release,
        Role.OPERATOR,
        errors=(BadRequest, UnknownDevice),
    ),
    Verb(
        "devices.one-slot",
        "Allow pushes to a device with a single slot: it has no model while one runs, nor after one that fails",
        OneSlot,
        DeviceRow,
        one_slot,
        Role.ADMIN,
        errors=(BadRequest, UnknownDevice),
    ),
)
