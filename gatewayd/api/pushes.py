"""The verbs about pushes, with what they answer."""

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
    Name,
    Number,
    Positional,
    RefText,
    Result,
    Role,
    Text,
    Verb,
)
from gatewayd.core.errors import (
    BadRequest,
    Conflict,
    DeviceUnreachable,
    NotFound,
    Overloaded,
    UnknownDevice,
    UnknownModel,
)
from gatewayd.core.names import PushId, parse_device_id, parse_model_name, parse_model_ref
from gatewayd.core.update import Push, awaits

# A push that is looked for by its number is among so many; protects the store from reading all of its journal.
_SEARCHED = 1000

_PushNumber = Annotated[Number, Positional(), Field(description="a push's number, as pushes.list shows it")]


class PushRow(Result):
    """One push. `offset` of `size_bytes` (what goes over the link) are there; `ended` says that nothing more will happen.

    `reason` says why it ended, `awaits` what it waits for; `replaces` is the newer version that an operator let it take over
    from (0: none), `instead_of` the other model that gives way when it is accepted (`kws@2`; "": none). `already`: nothing new
    was begun by this command, because the device runs the version (then this is the push that brought it; 0 and no moment:
    none is known) or because this push of it is under way.
    """

    push: int
    device: str
    model: str
    version: int
    variant: str
    state: str
    ended: bool
    offset: int
    size_bytes: int
    reason: str
    awaits: str = ""
    who: str = ""
    started_at: str = ""
    ended_at: str | None = None
    replaces: int = 0
    instead_of: str = ""
    already: bool = False


class PushList(Result):
    """What pushes.list and pushes.history answer, newest first."""

    pushes: list[PushRow]


class StartPush(Arguments):
    """Arguments of push."""

    device: DeviceText
    model: RefText
    allow_downgrade: Annotated[
        bool, Field(description="let an older version take over from the newer one that runs; recorded")
    ] = False
    instead_of: Annotated[
        Name | None, Field(description="another model there that gives way once the device has accepted this one")
    ] = None


class CancelPush(Arguments):
    """Arguments of pushes.cancel."""

    push: _PushNumber
    why: Text = "cancelled by an operator"


class WatchPush(Arguments):
    """Arguments of pushes.watch."""

    push: _PushNumber


class ListPushes(Arguments):
    """Arguments of pushes.list: those that run, and of the ended ones the latest."""

    limit: Count = 50


class PushHistory(Arguments):
    """Arguments of pushes.history."""

    device: Annotated[DeviceText, Positional()]
    limit: Count = 50


async def start(services: Services, args: StartPush, caller: Caller) -> PushRow:
    """Start getting a version onto a device, unless it is there or on its way; `status` shows how it goes on."""
    device, ref = parse_device_id(args.device), parse_model_ref(args.model)
    leaving = None if args.instead_of is None else parse_model_name(args.instead_of)
    started = await services.pushes.start(
        device,
        ref,
        who=caller.name,
        downgrade=args.allow_downgrade,
        instead_of=leaving,
        note_of=caller.note(push_row),
    )
    return push_row(started)


async def cancel(services: Services, args: CancelPush, caller: Caller) -> PushRow:
    """End a push and want its version no more."""
    why = f"{args.why} ({caller.name})"
    return push_row(await services.pushes.cancel(PushId(args.push), why=why, note_of=caller.note(push_row)))


async def watch(services: Services, args: WatchPush, caller: Caller) -> PushRow:  # noqa: ARG001 - a handler's shape
    """Show one push, whoever began it."""
    live = [push for push in services.pushes.live() if push.id == args.push]
    found = live or [push for push in await services.pushes.recent(_SEARCHED) if push.id == args.push]
    if not found:
        raise NotFound(f"push {args.push} is not among the latest {_SEARCHED}: pushes.list shows those that are")
    return push_row(found[0])


async def list_pushes(services: Services, args: ListPushes, caller: Caller) -> PushList:  # noqa: ARG001 - a handler's shape
    """List pushes, newest first; those that run are always there."""
    recent = await services.pushes.recent(args.limit)
    known = {push.id for push in recent}
    older = sorted((push for push in services.pushes.live() if push.id not in known), key=lambda push: -push.id)
    return PushList(pushes=[push_row(push) for push in (*recent, *older)])


async def history(services: Services, args: PushHistory, caller: Caller) -> PushList:  # noqa: ARG001 - a handler's shape
    """List what was pushed to one device, newest first."""
    pushes = await services.pushes.recent(args.limit, parse_device_id(args.device))
    return PushList(pushes=[push_row(push) for push in pushes])


def push_row(push: Push) -> PushRow:
    """Return the push as callers see it."""
    return PushRow(
        push=push.id,
        device=push.device,
        model=push.model,
        version=push.version,
        variant=push.variant,
        state=push.state.value,
        ended=push.state.is_end,
        offset=push.offset,
        size_bytes=push.size_bytes,
        reason=push.reason,
        awaits="" if push.state.is_end else awaits(push),
        who=push.who,
        started_at=utc(push.started_at) if push.started_at else "",
        ended_at=None if push.ended_at is None else utc(push.ended_at),
        replaces=push.replaces,
        instead_of="" if push.instead_of is None else str(push.instead_of),
        already=push.joined,
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "push",
        "Get a version onto a device; `status` shows how it goes on",
        StartPush,
        PushRow,
        start,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, DeviceUnreachable, Overloaded, UnknownDevice, UnknownModel),
    ),
    Verb(
        "pushes.cancel",
        "End a push; the device keeps its old model, and the new one is not wanted there any more",
        CancelPush,
        PushRow,
        cancel,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, NotFound),
    ),
    Verb(
        "pushes.watch",
        "Show one push; the command line follows it until it ends",
        WatchPush,
        PushRow,
        watch,
        Role.VIEWER,
        errors=(BadRequest, NotFound),
        is_read=True,
    ),
    Verb("pushes.list", "List pushes, newest first", ListPushes, PushList, list_pushes, Role.VIEWER, is_read=True),
    Verb(
        "pushes.history",
        "List what was pushed to a device, newest first",
        PushHistory,
        PushList,
        history,
        Role.VIEWER,
        errors=(BadRequest,),
        is_read=True,
    ),
)
