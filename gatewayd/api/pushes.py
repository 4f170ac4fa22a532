"""The verbs about pushes, with what they answer."""

from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, Name, RefText, Result, Role, Verb
from gatewayd.core.errors import BadRequest, Conflict, DeviceUnreachable, NoPlacement, UnknownDevice, UnknownModel
from gatewayd.core.names import parse_device_id, parse_model_ref
from gatewayd.core.update import Push


class PushRow(Result):
    """One push. `offset` of `size_bytes` are there; `ended` says that nothing more will happen, `reason` why."""

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


class StartPush(Arguments):
    """Arguments of push. `model` is `kws` (its stable version), `kws:canary` or `kws@3`."""

    device: Name
    model: RefText


async def start(services: Services, args: StartPush, caller: Caller) -> PushRow:
    """Start getting a version onto a device; `status` shows how it goes on."""
    device, ref = parse_device_id(args.device), parse_model_ref(args.model)
    return push_row(await services.pushes.start(device, ref, who=caller.name))


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
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "push",
        "Get a version onto a device; `status` shows how it goes on",
        StartPush,
        PushRow,
        start,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, DeviceUnreachable, NoPlacement, UnknownDevice, UnknownModel),
    ),
)
