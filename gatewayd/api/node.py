"""The verbs about the node itself, with what they answer."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.pushes import PushRow, push_row
from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, Result, Role, Verb


class ShowStatus(Arguments):
    """Arguments of status. `pushes` is how many of the latest pushes to show."""

    pushes: Annotated[int, Field(ge=0, le=200)] = 20


class Status(Result):
    """What status answers. `pushes` holds the live ones first, then the latest that ended."""

    node: str
    version: str
    uptime_s: float
    mqtt_connected: bool
    models: int
    versions: int
    devices: int
    devices_online: int
    devices_waiting: int
    live_pushes: int
    pushes: list[PushRow]


async def status(services: Services, args: ShowStatus, caller: Caller) -> Status:  # noqa: ARG001 - a handler's shape
    """Tell how the node is and what it is doing."""
    versions, devices, node = services.catalog.versions(), services.tracking.devices(), services.node
    live = services.pushes.live()
    ids = {push.id for push in live}
    ended = [push for push in await services.pushes.recent(args.pushes) if push.id not in ids]
    return Status(
        node=node.name,
        version=node.version,
        uptime_s=round(node.uptime_s(), 3),
        mqtt_connected=node.connected(),
        models=len({version.model for version in versions}),
        versions=len(versions),
        devices=len(devices),
        devices_online=sum(device.online for device in devices),
        devices_waiting=sum(not device.approved for device in devices),
        live_pushes=len(live),
        pushes=[push_row(push) for push in (*live, *ended)],
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb("status", "Tell how the node is and what it is doing", ShowStatus, Status, status, Role.VIEWER, is_read=True),
)
