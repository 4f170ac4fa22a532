"""The verbs about models that leave a device because they are told to, with what they answer."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.models import utc
from gatewayd.api.services import Services
from gatewayd.api.verb import (
    AnyVerb,
    Arguments,
    Caller,
    Count,
    DeviceText,
    ModelText,
    Positional,
    Result,
    Role,
    Text,
    Verb,
)
from gatewayd.core.command import Effect
from gatewayd.core.dropping import Drop
from gatewayd.core.errors import (
    BadRequest,
    Conflict,
    DeviceRefused,
    DeviceTimeout,
    DeviceUnreachable,
    Forbidden,
    NotFound,
    UnknownDevice,
)
from gatewayd.core.names import parse_device_id, parse_model_name


class DropRow(Result):
    """One drop. `state` is asked, dropped, refused or failed; `reason` says why; `ended_at` null: not known for sure yet.

    A failed one of which that is not known is corrected by what the device reports next, also after a restart.
    """

    drop: int
    device: str
    slot: int
    model: str
    version: int
    state: str
    reason: str
    who: str
    why: str
    asked_at: str
    ended_at: str | None


class DropList(Result):
    """What devices.drops answers, newest first."""

    drops: list[DropRow]


class DropModel(Arguments):
    """Arguments of devices.drop. `last`: drop it even if no other model runs there."""

    device: Annotated[DeviceText, Positional()]
    model: Annotated[ModelText, Positional()]
    last: Annotated[bool, Field(description="drop it even if no other model runs there")] = False
    why: Text = ""


class ListDrops(Arguments):
    """Arguments of devices.drops; without `device`, of all of them."""

    device: Annotated[DeviceText | None, Field(description="only this one's")] = None
    limit: Count = 50


async def drop(services: Services, args: DropModel, caller: Caller) -> DropRow:
    """Have a device let go a model; answered when the device has."""
    device, model = parse_device_id(args.device), parse_model_name(args.model)
    dropped = await services.dropping.drop(device, model, who=caller.name, why=args.why, is_last=args.last)
    return _row(dropped)


async def list_drops(services: Services, args: ListDrops, caller: Caller) -> DropList:  # noqa: ARG001 - a handler's shape
    """List what devices were told to let go."""
    device = None if args.device is None else parse_device_id(args.device)
    return DropList(drops=[_row(each) for each in await services.dropping.recent(args.limit, device)])


def _row(drop: Drop) -> DropRow:
    return DropRow(
        drop=drop.id,
        device=drop.device,
        slot=drop.slot,
        model=drop.model,
        version=drop.version,
        state=drop.state.value,
        reason=drop.reason,
        who=drop.who,
        why=drop.why,
        asked_at=utc(drop.asked_at),
        ended_at=None if drop.ended_at is None else utc(drop.ended_at),
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "devices.drop",
        "Have a device let go a model, and want it there no more",
        DropModel,
        DropRow,
        drop,
        Role.OPERATOR,  # as a push, which undoes it: both change what runs where, and neither whom is trusted
        errors=(
            BadRequest,
            Conflict,
            DeviceRefused,
            DeviceTimeout,
            DeviceUnreachable,
            Forbidden,
            NotFound,
            UnknownDevice,
        ),
        changes=Effect.OUTSIDE,
    ),
    Verb(
        "devices.drops",
        "List the models that devices were told to let go, newest first",
        ListDrops,
        DropList,
        list_drops,
        Role.VIEWER,
        errors=(BadRequest,),
        is_read=True,
    ),
)
