"""The verbs about the keys that sign modules, with what they answer."""

from typing import Annotated, Literal

from pydantic import Field

from gatewayd.api.models import utc
from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, Positional, Result, Role, Verb
from gatewayd.core.command import Effect
from gatewayd.core.errors import Conflict, NotFound
from gatewayd.core.keys import Key, KeyState

KeyId = Annotated[str, Field(min_length=16, max_length=16, pattern="^[0-9a-f]*$")]
"""A key's name: the first 8 bytes of its public half's SHA-256, in hex."""


class KeyRow(Result):
    """One key. `state`: signing (exactly one), trusted (verifies, does not sign), revoked."""

    key: str
    state: str
    made_at: str
    public_key: str


class KeyList(Result):
    """What keys.list answers."""

    keys: list[KeyRow]


class ExportedKeys(Result):
    """What keys.export answers: the text for a firmware's build, and the keys in it."""

    format: str
    text: str
    keys: list[str]


class ListKeys(Arguments):
    """Arguments of keys.list."""


class NewKey(Arguments):
    """Arguments of keys.new."""


class RotateKeys(Arguments):
    """Arguments of keys.rotate. `key` (of keys.new): sign with that one; left out: with a fresh one."""

    key: Annotated[KeyId | None, Positional(), Field(description="one of keys.new; left out: a fresh one")] = None


class RevokeKey(Arguments):
    """Arguments of keys.revoke."""

    key: Annotated[KeyId, Positional(), Field(description="its name, as keys.list shows it")]


class ExportKeys(Arguments):
    """Arguments of keys.export. `format`: hex (a key a line) or c (an array for the device agent)."""

    format: Annotated[Literal["hex", "c"], Field(description="hex: a key a line; c: an array for firmware")] = "hex"


async def list_keys(services: Services, args: ListKeys, caller: Caller) -> KeyList:  # noqa: ARG001 - a handler's shape
    """List every key ever made."""
    return KeyList(keys=[key_row(key) for key in services.keys.known()])


async def new(services: Services, args: NewKey, caller: Caller) -> KeyRow:  # noqa: ARG001 - a handler's shape
    """Make a key that does not sign yet."""
    return key_row(await services.keys.add())


async def rotate(services: Services, args: RotateKeys, caller: Caller) -> KeyRow:  # noqa: ARG001 - a handler's shape
    """Sign with another key from now on."""
    key = args.key or (await services.keys.add()).id
    return key_row(await services.keys.sign_with(key))


async def revoke(services: Services, args: RevokeKey, caller: Caller) -> KeyRow:  # noqa: ARG001 - a handler's shape
    """Trust a key no more."""
    return key_row(await services.keys.revoke(args.key))


async def export(services: Services, args: ExportKeys, caller: Caller) -> ExportedKeys:  # noqa: ARG001 - a handler's shape
    """Write the trusted public keys for a firmware."""
    keys = [key for key in services.keys.known() if key.state is not KeyState.REVOKED]
    text = _as_c(keys) if args.format == "c" else "".join(f"{key.public.hex()}\n" for key in keys)
    return ExportedKeys(format=args.format, text=text, keys=[key.id for key in keys])


def key_row(key: Key) -> KeyRow:
    """Return the key as callers see it."""
    made_at = utc(key.made_at)
    return KeyRow(key=key.id, state=key.state.value, made_at=made_at, public_key=key.public.hex())


def _as_c(keys: list[Key]) -> str:
    rows = "".join(f"    {{ /* {key.id} */ {', '.join(f'0x{byte:02x}' for byte in key.public)} }},\n" for key in keys)
    return f"#define GATEWAYD_KEY_COUNT {len(keys)}\nstatic const uint8_t gatewayd_keys[][32] = {{\n{rows}}};\n"


VERBS: tuple[AnyVerb, ...] = (
    Verb("keys.list", "List the keys that sign modules", ListKeys, KeyList, list_keys, Role.VIEWER, is_read=True),
    Verb(
        "keys.new",
        "Make a key that is trusted but does not sign yet, for firmware to learn first",
        NewKey,
        KeyRow,
        new,
        Role.ADMIN,
        errors=(Conflict,),
        changes=Effect.OUTSIDE,
    ),
    Verb(
        "keys.rotate",
        "Sign with another key from now on; the one before stays trusted",
        RotateKeys,
        KeyRow,
        rotate,
        Role.ADMIN,
        errors=(Conflict, NotFound),
        changes=Effect.OUTSIDE,
    ),
    Verb(
        "keys.revoke",
        "Trust a key no more",
        RevokeKey,
        KeyRow,
        revoke,
        Role.ADMIN,
        errors=(Conflict, NotFound),
        changes=Effect.OUTSIDE,
    ),
    Verb(
        "keys.export",
        "Write the trusted public keys as a firmware needs them",
        ExportKeys,
        ExportedKeys,
        export,
        Role.VIEWER,
        is_read=True,
    ),
)
