"""The verbs about the node itself, with what they answer."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.pushes import PushRow, push_row
from gatewayd.api.services import Node, Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, Positional, Result, Role, Verb
from gatewayd.core.command import Effect
from gatewayd.core.errors import NotFound
from gatewayd.core.names import Digest


class ShowStatus(Arguments):
    """Arguments of status. `pushes` is how many of the latest pushes to show."""

    pushes: Annotated[int, Field(ge=0, le=200, description="how many of the latest pushes to show")] = 20


class WorkerRow(Result):
    """One variant loaded on the node: the engine chosen, its process (null: between two), requests here, mean compute time."""

    variant: str
    digest: str
    engine: str
    pid: int | None
    waiting: int
    compute_ms: float


class QuarantineRow(Result):
    """A variant that killed its worker twice in a row; `models.release` lets it be tried again."""

    digest: str
    reason: str


class AcceleratorRow(Result):
    """An accelerator of the node, and what it still lacks."""

    kind: str
    detail: str
    missing: list[str]


class Release(Arguments):
    """Arguments of models.release. `digest` is that of the quarantined variant, or enough of its beginning."""

    digest: Annotated[
        str,
        Field(
            min_length=8,
            max_length=64,
            pattern="^[0-9a-f]+$",
            description="of the quarantined variant (status names it), or enough of its beginning",
        ),
        Positional(),
    ]


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
    workers: list[WorkerRow]
    quarantined: list[QuarantineRow]
    accelerators: list[AcceleratorRow]
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
        workers=_workers(node),
        quarantined=_quarantined(node),
        accelerators=[
            AcceleratorRow(kind=each.kind.value, detail=each.detail, missing=list(each.missing))
            for each in node.accelerators()
        ],
        pushes=[push_row(push) for push in (*live, *ended)],
    )


async def release(services: Services, args: Release, caller: Caller) -> QuarantineRow:  # noqa: ARG001 - a handler's shape
    """Let a quarantined variant be tried again."""
    for row in _quarantined(services.node):
        if row.digest.startswith(args.digest) and services.node.runtime is not None:
            services.node.runtime.release(Digest(row.digest))
            return row
    raise NotFound(f"no quarantined variant begins with {args.digest} (see `gatewayd status`)")


def _workers(node: Node) -> list[WorkerRow]:
    return [
        WorkerRow(
            variant=seat.variant,
            digest=seat.digest,
            engine=seat.engine,
            pid=seat.pid,
            waiting=seat.waiting,
            compute_ms=round(seat.compute_s * 1000, 4),
        )
        for seat in (node.runtime.seats() if node.runtime else ())
    ]


def _quarantined(node: Node) -> list[QuarantineRow]:
    held = node.runtime.quarantined() if node.runtime else {}
    return [QuarantineRow(digest=digest, reason=reason) for digest, reason in held.items()]


VERBS: tuple[AnyVerb, ...] = (
    Verb("status", "Tell how the node is and what it is doing", ShowStatus, Status, status, Role.VIEWER, is_read=True),
    Verb(
        "models.release",
        "Let a quarantined variant be tried again",
        Release,
        QuarantineRow,
        release,
        Role.OPERATOR,
        errors=(NotFound,),
        changes=Effect.MEMORY,
    ),
)
