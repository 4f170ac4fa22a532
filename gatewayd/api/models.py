"""The verbs about models, with what they answer."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from gatewayd.api.services import Services
from gatewayd.api.verb import (
    AnyVerb,
    Arguments,
    Caller,
    FileContent,
    Name,
    Number,
    Positional,
    RefText,
    Result,
    Role,
    Text,
    Verb,
)
from gatewayd.core.errors import BadRequest, Conflict, ModelRefused, NodeError, NoPlacement, TooLarge, UnknownModel
from gatewayd.core.model import Signature, Variant, Version
from gatewayd.core.names import ModelName, parse_alias, parse_model_name, parse_model_ref
from gatewayd.core.registry import AliasMove
from gatewayd.core.tensor import TensorSpec

MAX_ADD_BYTES = 24 * 2**20  # a few variants in base64; protects memory
MAX_LABELS = 4096


class TensorRow(Result):
    """One input or output, as callers give and get it."""

    name: str
    datatype: str
    shape: list[int]


class VerdictRow(Result):
    """Whether an engine runs the variant; `latency_ms` null: not measured."""

    place: str
    engine: str
    runs: bool
    reason: str
    latency_ms: float | None


class VariantRow(Result):
    """One build of a version. `arena_bytes` null: not measured; `predicted_arena_bytes` null: not predictable.

    `runs_on` sums the verdicts up: node and devices, node-only, device-only, refused. `accelerator` is what the file was
    compiled for ("": nothing).
    """

    name: str
    digest: str
    size_bytes: int
    arena_bytes: int | None
    macs: int
    operators: list[str]
    verdicts: list[VerdictRow]
    runs_on: str
    predicted_arena_bytes: int | None
    accelerator: str


class VersionRow(Result):
    """One version; `created_at` is UTC."""

    model: str
    version: int
    created_at: str
    note: str
    inputs: list[TensorRow]
    outputs: list[TensorRow]
    labels: list[str]
    preprocessing: str
    variants: list[VariantRow]


class MoveRow(Result):
    """One move of an alias; `version` null: it was removed. `moved_at` is UTC."""

    model: str
    alias: str
    version: int | None
    moved_at: str
    who: str
    why: str


class ModelRow(Result):
    """One model. `moves` is the history of its aliases, oldest first, given when one model was asked for."""

    model: str
    aliases: dict[str, int]
    versions: list[VersionRow]
    moves: list[MoveRow]


class ModelMetadata(Result):
    """What the Open Inference Protocol tells of a model. Source: Open Inference Protocol v2, "Model Metadata"."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorRow]
    outputs: list[TensorRow]


class RepositoryRow(Result):
    """One version in the repository's index; `reason` says whether it is in the node's memory.

    Source: Triton Inference Server, "Model repository extension", "Index".
    """

    name: str
    version: str
    state: str
    reason: str


class LoadModel(Arguments):
    """Arguments of models.load. `model` is `kws` (its stable version), `kws:canary` or `kws@3`."""

    model: Annotated[RefText, Positional()]


class UnloadModel(Arguments):
    """Arguments of models.unload."""

    model: Annotated[Name, Positional()]


class Loaded(Result):
    """What models.load and models.unload answer: how many workers hold versions of the model now."""

    model: str
    loaded: int


class AddModel(Arguments):
    """Arguments of models.add. `labels` name the elements of the first output."""

    model: Annotated[Name, Positional()]
    files: Annotated[tuple[FileContent, ...], Field(min_length=1, max_length=8)]
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=MAX_LABELS)
    ] = ()
    preprocessing: Annotated[str, Field(max_length=128)] = ""
    note: Text = ""


class ListModels(Arguments):
    """Arguments of models.list. `model` null: all."""

    model: Annotated[Name | None, Positional()] = None


class ModelList(Result):
    """What models.list answers."""

    models: list[ModelRow]


class MoveAlias(Arguments):
    """Arguments of models.alias."""

    model: Annotated[Name, Positional()]
    alias: Annotated[Name, Positional()]
    version: Annotated[Number, Positional()]
    why: Text = ""


async def add(services: Services, args: AddModel, caller: Caller) -> VersionRow:
    """Admit the files as the variants of the model's next version."""
    version = await services.catalog.add(
        model=parse_model_name(args.model),
        files=args.files,
        labels=args.labels,
        preprocessing=args.preprocessing,
        note=args.note,
        who=caller.name,
    )
    return version_row(version)


async def list_models(services: Services, args: ListModels, caller: Caller) -> ModelList:  # noqa: ARG001 - a handler's shape
    """List models with their versions, variants and aliases."""
    versions = services.catalog.versions()
    names = sorted({version.model for version in versions})
    if args.model is None:
        return ModelList(models=[_model_row(services, name, versions, moves=[]) for name in names])
    name = parse_model_name(args.model)
    if name not in names:
        raise UnknownModel(f"no model {name!r}; there are: {', '.join(names[:20]) or 'none'}")
    moves = [_move_row(move) for move in await services.catalog.alias_history(name)]
    return ModelList(models=[_model_row(services, name, versions, moves=moves)])


async def load(services: Services, args: LoadModel, caller: Caller) -> Loaded:  # noqa: ARG001 - a handler's shape
    """Load a version on the node before it is needed."""
    version = await services.loading.load(parse_model_ref(args.model))
    versions = [each for each in services.catalog.versions() if each.model == version.model]
    return Loaded(model=version.model, loaded=sum(map(services.loading.is_loaded, versions)))


async def unload(services: Services, args: UnloadModel, caller: Caller) -> Loaded:  # noqa: ARG001 - a handler's shape
    """Let a model's workers go; its next request loads it again."""
    await services.loading.unload(parse_model_name(args.model))
    return Loaded(model=args.model, loaded=0)


def repository_rows(services: Services, *, only_ready: bool) -> list[RepositoryRow]:
    """Return the repository's index: every version can be asked, loaded or not, unless nothing runs it."""
    rows = [_repository_row(services, version) for version in services.catalog.versions()]
    return [row for row in rows if row.state == _READY or not only_ready]


_READY = "READY"


def _repository_row(services: Services, version: Version) -> RepositoryRow:
    runs = any(verdict.runs for variant in version.variants for verdict in variant.verdicts)
    reason = "loaded" if services.loading.is_loaded(version) else "loaded when it is asked"
    return RepositoryRow(
        name=version.model,
        version=str(version.number),
        state=_READY if runs else "UNAVAILABLE",
        reason=reason if runs else "no engine and no device runs it",
    )


async def move_alias(services: Services, args: MoveAlias, caller: Caller) -> MoveRow:
    """Point an alias at a version."""
    model, alias = parse_model_name(args.model), parse_alias(args.alias)
    move = await services.catalog.move_alias(model, alias, args.version, who=caller.name, why=args.why)
    return _move_row(move)


def version_row(version: Version) -> VersionRow:
    """Return the version as callers see it."""
    signature = version.signature
    return VersionRow(
        model=version.model,
        version=version.number,
        created_at=_utc(version.created_at),
        note=version.note,
        inputs=tensor_rows(signature.inputs),
        outputs=tensor_rows(signature.outputs),
        labels=list(signature.labels),
        preprocessing=signature.preprocessing,
        variants=[_variant_row(variant) for variant in version.variants],
    )


def metadata(version: Version, versions: tuple[Version, ...]) -> ModelMetadata:
    """Return the protocol's metadata of `version`; `versions` is the whole catalog."""
    signature: Signature = version.signature
    return ModelMetadata(
        name=version.model,
        versions=[str(each.number) for each in versions if each.model == version.model],
        platform="tflite",
        inputs=tensor_rows(signature.inputs),
        outputs=tensor_rows(signature.outputs),
    )


def tensor_rows(specs: tuple[TensorSpec, ...]) -> list[TensorRow]:
    """Return tensor descriptions as callers see them."""
    return [TensorRow(name=spec.name, datatype=spec.dtype.value, shape=list(spec.shape)) for spec in specs]


def _model_row(services: Services, name: ModelName, versions: tuple[Version, ...], *, moves: list[MoveRow]) -> ModelRow:
    rows = [version_row(version) for version in versions if version.model == name]
    return ModelRow(model=name, aliases=dict(services.catalog.aliases(name)), versions=rows, moves=moves)


def _variant_row(variant: Variant) -> VariantRow:
    verdicts = [
        VerdictRow(
            place=verdict.place.value,
            engine=verdict.engine,
            runs=verdict.runs,
            reason=verdict.reason,
            latency_ms=None if verdict.latency_s is None else verdict.latency_s * 1000,
        )
        for verdict in variant.verdicts
    ]
    return VariantRow(
        name=variant.name,
        digest=variant.digest,
        size_bytes=variant.size_bytes,
        arena_bytes=variant.arena_bytes,
        macs=variant.structure.macs,
        operators=sorted({operator.name for operator in variant.structure.operators}),
        verdicts=verdicts,
        runs_on=variant.runs_on.value,
        predicted_arena_bytes=variant.structure.forecast.host_bytes if variant.structure.forecast else None,
        accelerator=variant.structure.accelerator,
    )


def _move_row(move: AliasMove) -> MoveRow:
    moved_at = _utc(move.moved_at)
    return MoveRow(
        model=move.model, alias=move.alias, version=move.version, moved_at=moved_at, who=move.who, why=move.why
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "models.add",
        "Admit model files as the next version of a model",
        AddModel,
        VersionRow,
        add,
        Role.ADMIN,
        errors=(BadRequest, ModelRefused, TooLarge),
        max_bytes=MAX_ADD_BYTES,
    ),
    Verb(
        "models.list",
        "List models with their versions, variants and aliases",
        ListModels,
        ModelList,
        list_models,
        Role.VIEWER,
        errors=(UnknownModel,),
        is_read=True,
    ),
    Verb(
        "models.alias",
        "Point an alias at a version",
        MoveAlias,
        MoveRow,
        move_alias,
        Role.OPERATOR,
        errors=(BadRequest, UnknownModel),
    ),
    Verb(
        "models.load",
        "Load a version on the node before it is needed",
        LoadModel,
        Loaded,
        load,
        Role.OPERATOR,
        errors=(BadRequest, NoPlacement, NodeError, UnknownModel),
    ),
    Verb(
        "models.unload",
        "Let a model's workers go; its next request loads it again",
        UnloadModel,
        Loaded,
        unload,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
    ),
)
