"""The verbs about what stands beside versions: history of aliases, retirement, garbage collection. With what they answer."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from gatewayd.api.models import MoveRow, VersionRow, move_row, utc, version_row, version_row_of
from gatewayd.api.services import Services
from gatewayd.api.verb import (
    AliasText,
    AnyVerb,
    Arguments,
    Caller,
    ModelText,
    Positional,
    RefText,
    Result,
    Role,
    Text,
    Verb,
)
from gatewayd.core.command import Effect
from gatewayd.core.errors import BadRequest, Conflict, UnknownModel
from gatewayd.core.names import STABLE, ModelRef, parse_alias, parse_model_name, parse_model_ref


class ShowVersion(Arguments):
    """Arguments of models.show."""

    model: Annotated[RefText, Positional()]


class ShownVersion(VersionRow):
    """A version with its model card, and the aliases that name it."""

    card: str
    aliases: list[str]


class ShowHistory(Arguments):
    """Arguments of models.history. `alias` null: all of them."""

    model: Annotated[ModelText, Positional()]
    alias: Annotated[AliasText | None, Positional(), Field(description="only this one")] = None


class History(Result):
    """Moves of aliases, oldest first."""

    moves: list[MoveRow]


class When(Arguments):
    """Arguments of models.when. `model` is `kws` or `kws:canary`, `at` a time such as 2026-11-22T19:00Z (UTC without a zone)."""

    model: Annotated[RefText, Positional(), Field(description="kws (its alias stable) or kws:canary")]
    at: Annotated[
        str,
        Field(min_length=1, max_length=40, description="a moment: 2026-11-22T19:00Z (UTC where no zone is given)"),
        Positional(),
    ]


class Meaning(Result):
    """What an alias meant at a time; `version` null: nothing. `move` is what had decided so."""

    model: str
    alias: str
    at: str
    version: int | None
    move: MoveRow | None


class OneAlias(Arguments):
    """Arguments of models.back and models.unalias."""

    model: Annotated[ModelText, Positional()]
    alias: Annotated[AliasText, Positional()]
    why: Text = ""


class OneVersion(Arguments):
    """Arguments of models.retire and models.restore. `model` is `kws@3`."""

    model: Annotated[RefText, Positional(), Field(description="one version: kws@3")]
    why: Text = ""


class Collect(Arguments):
    """Arguments of models.collect. With `dry_run` nothing is removed."""

    dry_run: Annotated[bool, Field(description="only tell what would go")] = False


class ArtifactRow(Result):
    """An artifact that was removed, or would be."""

    digest: str
    size_bytes: int


class KeptRow(Result):
    """An artifact of no version in use, and what needs it all the same."""

    digest: str
    reason: str


class Collection(Result):
    """What models.collect answers. `kept_count` and `kept_bytes` are of all that stays, `kept` only what may surprise."""

    dry_run: bool
    removed: list[ArtifactRow]
    removed_bytes: int
    kept: list[KeptRow]
    kept_count: int
    kept_bytes: int


async def show(services: Services, args: ShowVersion, caller: Caller) -> ShownVersion:  # noqa: ARG001 - a handler's shape
    """Show one version with its card."""
    version = services.catalog.resolve(parse_model_ref(args.model))
    aliases = services.catalog.aliases(version.model)
    named = sorted(alias for alias, number in aliases.items() if number == version.number)
    row = version_row(services, version).model_dump()
    return ShownVersion(**row, card=version.about.card, aliases=named)


async def history(services: Services, args: ShowHistory, caller: Caller) -> History:  # noqa: ARG001 - a handler's shape
    """Tell who moved a model's aliases, where, when and why."""
    model = parse_model_name(args.model)
    alias = None if args.alias is None else parse_alias(args.alias)
    moves = await services.catalog.alias_history(model)
    if not moves and all(version.model != model for version in services.catalog.versions()):
        raise UnknownModel(f"no model {model!r}")
    return History(moves=[move_row(move) for move in moves if alias in {None, move.alias}])


async def when(services: Services, args: When, caller: Caller) -> Meaning:  # noqa: ARG001 - a handler's shape
    """Tell what an alias meant at a time."""
    ref = parse_model_ref(args.model)
    if ref.version is not None:
        raise BadRequest(f"model: {args.model} means the same at all times; name an alias, as in {ref.name}:{STABLE}")
    alias, at = ref.alias or STABLE, _seconds(args.at)
    move = await services.catalog.meaning_at(ref.name, alias, at)
    version = None if move is None else move.version
    row = None if move is None else move_row(move)
    return Meaning(model=ref.name, alias=alias, at=utc(at), version=version, move=row)


async def back(services: Services, args: OneAlias, caller: Caller) -> MoveRow:
    """Point an alias where it pointed before its last move."""
    model, alias = parse_model_name(args.model), parse_alias(args.alias)
    note = caller.note(move_row)
    return move_row(await services.catalog.move_back(model, alias, who=caller.name, why=args.why, note_of=note))


async def unalias(services: Services, args: OneAlias, caller: Caller) -> MoveRow:
    """Remove an alias; its history stays."""
    model, alias = parse_model_name(args.model), parse_alias(args.alias)
    note = caller.note(move_row)
    return move_row(await services.catalog.move_alias(model, alias, None, who=caller.name, why=args.why, note_of=note))


async def retire(services: Services, args: OneVersion, caller: Caller) -> VersionRow:
    """Take a version out of use."""
    version = services.catalog.resolve(_numbered(args.model))
    retired = await services.catalog.retire(
        version.model,
        version.number,
        who=caller.name,
        why=args.why,
        note_of=caller.note(lambda retirement: version_row_of(version, retirement)),
    )
    return version_row(services, retired)


async def restore(services: Services, args: OneVersion, caller: Caller) -> VersionRow:
    """Take a retired version into use again."""
    ref = _numbered(args.model)
    version = await services.catalog.bring_back(
        ref.name, ref.version or 0, note_of=caller.note(lambda back: version_row_of(back, None))
    )
    return version_row(services, version)


async def collect(services: Services, args: Collect, caller: Caller) -> Collection:  # noqa: ARG001 - a handler's shape
    """Remove the artifacts that nothing needs."""
    found = await services.collecting.collect(dry_run=args.dry_run)
    return Collection(
        dry_run=args.dry_run,
        removed=[ArtifactRow(digest=digest, size_bytes=size) for digest, size in sorted(found.removed.items())],
        removed_bytes=sum(found.removed.values()),
        kept=[KeptRow(digest=digest, reason=reason) for digest, reason in sorted(found.kept.items())],
        kept_count=found.kept_count,
        kept_bytes=found.kept_bytes,
    )


def _numbered(text: str) -> ModelRef:
    ref = parse_model_ref(text)
    if ref.version is None:
        raise BadRequest(f"model: name a version by its number, as in {ref.name}@3; an alias may move under your hands")
    return ref


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"at: {text!r} is no time; write it as 2026-11-22T19:00Z") from error


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "models.show", "Show one version with its model card", ShowVersion, ShownVersion, show, Role.VIEWER,
        errors=(BadRequest, UnknownModel), is_read=True,
    ),
    Verb(
        "models.history", "Tell who moved a model's aliases, where and why", ShowHistory, History, history, Role.VIEWER,
        errors=(BadRequest, UnknownModel), is_read=True,
    ),
    Verb(
        "models.when", "Tell what an alias meant at a time", When, Meaning, when, Role.VIEWER,
        errors=(BadRequest,), is_read=True,
    ),
    Verb(
        "models.back", "Point an alias where it pointed before", OneAlias, MoveRow, back, Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
    ),
    Verb(
        "models.unalias", "Remove an alias", OneAlias, MoveRow, unalias, Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
    ),
    Verb(
        "models.retire", "Take a version out of use", OneVersion, VersionRow, retire, Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
    ),
    Verb(
        "models.restore", "Take a retired version into use again", OneVersion, VersionRow, restore, Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
    ),
    Verb(
        "models.collect", "Remove the artifacts that nothing needs", Collect, Collection, collect, Role.ADMIN,
        changes=Effect.MEMORY,
    ),
)  # fmt: skip
