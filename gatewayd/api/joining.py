"""The verbs about how devices join and leave, with what they answer."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from gatewayd.api.doors import Doors
from gatewayd.api.models import utc
from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, DeviceText, Name, Positional, Result, Role, Verb
from gatewayd.core.command import Effect
from gatewayd.core.credentials import MAX_DEVICES_OF_A_USER, CredentialKind
from gatewayd.core.errors import BadRequest, Conflict, NotStored, TooLarge, UnknownDevice
from gatewayd.core.keys import KeyState
from gatewayd.core.names import DeviceId, parse_device_id
from gatewayd.services.join_window import MAX_WINDOW_S, WindowState
from gatewayd.services.joining import Issued, Removed
from gatewayd.wire.device_credentials import DeviceCredentials, OscoreCredentials
from gatewayd.wire.snippets import snippet
from gatewayd.wire.topics import Topics

SnippetName = Literal["esp-idf", "zephyr", "arduino", "mosquitto", "libcoap"]


class JoiningRow(Result):
    """Whether newcomers are let in by themselves. `admitted`: by this opening, or the last one; `waiting`: for approval."""

    open: bool
    left_s: float
    admitted: list[str]
    waiting: list[str]


class SnippetRow(Result):
    """Credentials as source code for one kind of firmware."""

    name: str
    text: str


class OscoreRow(Result):
    """An OSCORE context from the device's end, in hex; for AES-CCM-16-64-128 and HKDF with SHA-256."""

    master_secret: str = Field(repr=False)
    master_salt: str
    sender_id: str
    recipient_id: str


class NewCredentials(Result):
    """What devices.credentials.new answers: secrets that are shown this once.

    `password`, `psk_key` and `oscore` null: not asked for. `broker`: what is left to do at the broker ("": nothing);
    `coap` likewise before the key and the context are of use: a line for each of them.
    """

    device: str
    devices: list[str]
    prefix: str
    node: str
    host: str
    port: int
    ca: str
    username: str | None
    password: str | None = Field(repr=False)
    psk_identity: str | None
    psk_key: str | None = Field(repr=False)
    oscore: OscoreRow | None = Field(repr=False)
    trusted_keys: list[str]
    snippets: list[SnippetRow] = Field(repr=False)
    broker: str
    coap: list[str] = Field(default_factory=list)


class CredentialRow(Result):
    """Credentials without their secrets. `kind` mqtt: the user `name` speaks for `devices`; psk: an identity for DTLS."""

    kind: str
    name: str
    devices: list[str]
    made_at: str
    who: str


class CredentialList(Result):
    """What devices.credentials.list answers."""

    credentials: list[CredentialRow]


class RemovedRow(Result):
    """What was taken from a device, which is `revoked` or `forgotten` now.

    `credentials`: it had some, and they are void. `broker`: what is left to do before the broker refuses it ("": nothing).
    """

    device: str
    credentials: bool
    pushes_ended: int
    broker: str
    orders_ended: int = 0
    what: Literal["revoked", "forgotten"] = "revoked"


class PermitJoin(Arguments):
    """Arguments of devices.permit-join. `seconds` 0: no longer."""

    seconds: Annotated[
        float,
        Field(ge=0, le=MAX_WINDOW_S, description="for how long newcomers are let in by themselves; 0 ends it"),
        Positional(),
    ] = 120


class ShowJoining(Arguments):
    """Arguments of devices.joining."""


class MakeCredentials(Arguments):
    """Arguments of devices.credentials.new. `speaks_for`: further devices behind this one's connection (a concentrator)."""

    device: Annotated[DeviceText, Positional()]
    kind: Annotated[
        Literal["all", "mqtt", "psk", "oscore"],
        Field(
            description="mqtt: a user and password for the broker; psk: a key for CoAP over DTLS; "
            "oscore: a context for CoAP without DTLS; all: each of them"
        ),
    ] = "all"
    speaks_for: list[Name] = Field(
        default_factory=list,
        max_length=MAX_DEVICES_OF_A_USER,
        description="further devices that speak through this one's connection",
    )
    replace: bool = Field(default=False, description="give a device new ones; the old ones are no longer valid")
    snippets: list[SnippetName] = Field(
        default_factory=lambda: list(get_args(SnippetName)), max_length=8, description="only these, by default all"
    )


class ListCredentials(Arguments):
    """Arguments of devices.credentials.list."""


class RevokeDevice(Arguments):
    """Arguments of devices.revoke."""

    device: Annotated[DeviceText, Positional()]


class ForgetDevice(Arguments):
    """Arguments of devices.forget."""

    device: Annotated[DeviceText, Positional()]
    force: Annotated[bool, Field(description="although it is online and approved")] = False
    keep_credentials: Annotated[bool, Field(description="let it come back as a newcomer with what it has")] = False


async def permit_join(services: Services, args: PermitJoin, caller: Caller) -> JoiningRow:
    """Let newcomers in for a while."""
    return _joining_row(services, services.joining.permit(args.seconds, who=caller.name))


async def show_joining(services: Services, args: ShowJoining, caller: Caller) -> JoiningRow:  # noqa: ARG001 - a handler's shape
    """Tell whether newcomers are let in."""
    return _joining_row(services, services.joining.window())


async def make_credentials(services: Services, args: MakeCredentials, caller: Caller) -> NewCredentials:
    """Make what a device proves itself with."""
    kinds = tuple(CredentialKind) if args.kind == "all" else (CredentialKind(args.kind),)
    speaks_for = [parse_device_id(each) for each in args.speaks_for]
    if speaks_for and args.kind in {"psk", "oscore"}:
        raise BadRequest("speaks_for: a key or context stands for one device; give each its own")
    issued = await services.joining.issue(
        parse_device_id(args.device), kinds=kinds, speaks_for=speaks_for, may_replace=args.replace, who=caller.name
    )
    return _new_credentials(services, issued, args.snippets)


async def list_credentials(services: Services, args: ListCredentials, caller: Caller) -> CredentialList:  # noqa: ARG001 - a handler's shape
    """List who may come in, without secrets."""
    known = services.joining.credentials()
    users = [_credential_row("mqtt", each.name, each.devices, each.made_at, each.who) for each in known.users]
    keys = [_credential_row("psk", each.device, (each.device,), each.made_at, each.who) for each in known.keys]
    oscore = [_credential_row("oscore", each.device, (each.device,), each.made_at, each.who) for each in known.oscore]
    return CredentialList(credentials=[*users, *keys, *oscore])


async def revoke(services: Services, args: RevokeDevice, caller: Caller) -> RemovedRow:
    """Take a device out."""
    device = parse_device_id(args.device)
    return _removed_row(await services.joining.revoke(device, who=caller.name, note_of=caller.note(_removed_row)))


async def forget(services: Services, args: ForgetDevice, caller: Caller) -> RemovedRow:
    """Remove what is known of a device."""
    device = parse_device_id(args.device)
    removed = await services.joining.forget(
        device,
        force=args.force,
        keep_credentials=args.keep_credentials,
        who=caller.name,
        note_of=caller.note(_removed_row),
    )
    return _removed_row(removed)


def _joining_row(services: Services, state: WindowState) -> JoiningRow:
    views = services.tracking.devices()
    waiting = [view.id for view in views if view.online and not view.approved and not view.revoked]
    return JoiningRow(
        open=state.left_s > 0, left_s=round(state.left_s, 1), admitted=list(state.admitted), waiting=waiting
    )


def _new_credentials(services: Services, issued: Issued, names: list[SnippetName]) -> NewCredentials:
    broker, made = services.broker, issued.oscore
    trusted = [key.public.hex() for key in services.keys.known() if key.state is not KeyState.REVOKED]
    of = DeviceCredentials(
        issued.device,
        issued.devices,
        Topics(broker.prefix, services.node.name),
        broker.host,
        broker.port,
        broker.ca,
        username=issued.device if issued.password is not None else "",
        password=issued.password or "",
        psk_identity=issued.device if issued.key is not None else "",
        psk_key=issued.key or b"",
        trusted_keys=tuple(trusted),
        oscore=None
        if made is None
        else OscoreCredentials(made.secret, made.salt, sender_id=made.kid, recipient_id=made.gateway_id),
    )
    texts = {name: snippet(name, of) for name in names}
    return NewCredentials(
        device=issued.device,
        devices=list(issued.devices),
        prefix=broker.prefix,
        node=services.node.name,
        host=broker.host,
        port=broker.port,
        ca=broker.ca,
        username=of.username or None,
        password=issued.password,
        psk_identity=of.psk_identity or None,
        psk_key=issued.key.hex() if issued.key is not None else None,
        oscore=_oscore_row(of.oscore),
        trusted_keys=trusted,
        snippets=[SnippetRow(name=name, text=text) for name, text in texts.items() if text],
        broker=issued.broker,
        coap=_closed(services.doors, issued),
    )


def _closed(doors: Doors, issued: Issued) -> list[str]:
    """Return why what was made cannot be used yet over CoAP, with what helps."""
    key = [f"the key: {doors.psk}"] if issued.key is not None and doors.psk else []
    context = [f"the OSCORE context: {doors.oscore}"] if issued.oscore is not None and doors.oscore else []
    return key + context


def _oscore_row(of: OscoreCredentials | None) -> OscoreRow | None:
    if of is None:
        return None
    return OscoreRow(
        master_secret=of.master_secret.hex(),
        master_salt=of.master_salt.hex(),
        sender_id=of.sender_id.hex(),
        recipient_id=of.recipient_id.hex(),
    )


def _credential_row(kind: str, name: str, devices: tuple[DeviceId, ...], made_at: float, who: str) -> CredentialRow:
    at = utc(made_at)
    return CredentialRow(kind=kind, name=name, devices=list(devices), made_at=at, who=who)


def _removed_row(removed: Removed) -> RemovedRow:
    return RemovedRow(
        device=removed.device,
        credentials=removed.had_credentials,
        pushes_ended=removed.pushes,
        broker=removed.broker,
        orders_ended=removed.orders,
        what="forgotten" if removed.is_forgotten else "revoked",
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "devices.permit-join",
        "Let newcomers in by themselves for a while; after a restart nobody is",
        PermitJoin,
        JoiningRow,
        permit_join,
        Role.ADMIN,
        errors=(BadRequest,),
        changes=Effect.MEMORY,
    ),
    Verb(
        "devices.joining",
        "Tell whether newcomers are let in by themselves, who was, and who waits",
        ShowJoining,
        JoiningRow,
        show_joining,
        Role.VIEWER,
        is_read=True,
    ),
    Verb(
        "devices.credentials.new",
        "Make a password for the broker, a key for DTLS and an OSCORE context; they are shown this once",
        MakeCredentials,
        NewCredentials,
        make_credentials,
        Role.ADMIN,
        errors=(BadRequest, Conflict, TooLarge, NotStored),
        has_secret=True,
    ),
    Verb(
        "devices.credentials.list",
        "List who may come in, without passwords and keys",
        ListCredentials,
        CredentialList,
        list_credentials,
        Role.VIEWER,
        is_read=True,
    ),
    Verb(
        "devices.revoke",
        "Take a device out: its credentials, its approval, what is pushed to it and ordered there",
        RevokeDevice,
        RemovedRow,
        revoke,
        Role.ADMIN,
        errors=(BadRequest, UnknownDevice, NotStored),
    ),
    Verb(
        "devices.forget",
        "Remove a device with all that is known of it, wanted and ordered there",
        ForgetDevice,
        RemovedRow,
        forget,
        Role.ADMIN,
        errors=(BadRequest, UnknownDevice, Conflict, NotStored),
    ),
)
