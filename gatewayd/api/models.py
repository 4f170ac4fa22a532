"""The verbs about models, with what they answer."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from gatewayd.api.services import Services
from gatewayd.api.verb import (
    AliasText,
    AnyVerb,
    Arguments,
    Caller,
    FileContent,
    ModelText,
    Number,
    Positional,
    Result,
    Role,
    Text,
    Verb,
)
from gatewayd.core.errors import BadRequest, Conflict, ModelRefused, NotFound, TooLarge, UnknownModel
from gatewayd.core.model import About, Signature, Variant, Version
from gatewayd.core.names import ModelName, parse_alias, parse_model_name
from gatewayd.core.registry import AliasMove, Retirement
from gatewayd.core.tensor import TensorSpec
from gatewayd.wire.model_manifest import MAX_CARD, MAX_FILES, MAX_TAGS, parse_tag

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
    compiled for ("": nothing). `vectors` is how many given samples it is tested with.
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
    vectors: int = 0


class RetirementRow(Result):
    """When (UTC), by whom and why a version was taken out of use."""

    retired_at: str
    who: str
    why: str


class VersionRow(Result):
    """One version; `created_at` is UTC. `retired` null: in use. `source` tells where it came from, as far as known."""

    model: str
    version: int
    created_at: str
    note: str
    inputs: list[TensorRow]
    outputs: list[TensorRow]
    labels: list[str]
    preprocessing: str
    variants: list[VariantRow]
    licence: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    source: str = ""
    samples: str | None = None
    retired: RetirementRow | None = None


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


class Described(Arguments):
    """What is told of a new version, wherever its files come from. `labels` name the elements of the first output.

    `samples` are float32 values of the only input, one sample after the other.
    """

    model: Annotated[ModelText, Positional()]
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...],
        Field(max_length=MAX_LABELS, description="the names of the first output's elements, in order"),
    ] = ()
    preprocessing: Annotated[
        str, Field(max_length=128, description="what is done to raw samples before the model sees them: kws-mfcc@1")
    ] = ""
    note: Annotated[Text, Field(description="words about this version, kept with it")] = ""
    licence: Annotated[str, Field(max_length=128, description="SPDX id")] = ""
    card: Annotated[str, Field(max_length=MAX_CARD, description="model card, Markdown")] = ""
    tags: Annotated[tuple[str, ...], Field(max_length=MAX_TAGS, description="key=value")] = ()
    samples: Annotated[FileContent | None, Field(description="float32 samples, for test vectors and calibration")] = (
        None
    )


class AddModel(Described):
    """Arguments of models.add. `files` come in the message, `uploads` came before in parts (upload.begin); give one of them."""

    files: Annotated[
        tuple[FileContent, ...],
        Field(max_length=MAX_FILES, description="a model file for each variant (.tflite, .onnx …)"),
    ] = ()
    uploads: Annotated[
        tuple[Annotated[str, Field(max_length=64)], ...],
        Field(max_length=MAX_FILES, description="files that came in parts (upload.begin), instead"),
    ] = ()


class ListModels(Arguments):
    """Arguments of models.list. `model` null: all."""

    model: Annotated[ModelText | None, Positional(), Field(description="only this one")] = None


class ModelList(Result):
    """What models.list answers."""

    models: list[ModelRow]


class MoveAlias(Arguments):
    """Arguments of models.alias. `expect` is the version it must point at now (0: at none), or somebody was faster."""

    model: Annotated[ModelText, Positional()]
    alias: Annotated[AliasText, Positional()]
    version: Annotated[Number, Positional(), Field(description="the version that it is to name from now on")]
    why: Text = ""
    expect: Annotated[
        int | None,
        Field(ge=0, le=2**31 - 1, description="the version it must name now (0: none), or it is left alone"),
    ] = None


async def add(services: Services, args: AddModel, caller: Caller) -> VersionRow:
    """Admit the files as the variants of the model's next version."""
    uploaded = [services.uploads.content(each) for each in args.uploads]
    source = "upload in parts" if args.uploads and not args.files else "upload"
    version = await admit(services, args, [*args.files, *uploaded], source=source, caller=caller)
    for each in args.uploads:
        services.uploads.cancel(each)
    return version_row(services, version)


async def admit(services: Services, args: Described, files: Sequence[bytes], *, source: str, caller: Caller) -> Version:
    """Hand files and what is told of them to the catalog. Raises: BadRequest, ModelRefused, TooLarge."""
    tags = dict(parse_tag(each) for each in args.tags)
    return await services.catalog.add(
        model=parse_model_name(args.model),
        files=files,
        labels=args.labels,
        preprocessing=args.preprocessing,
        note=args.note,
        who=caller.name,
        about=About(args.licence, args.card, tuple(sorted(tags.items())), source),
        samples=args.samples or b"",
        note_of=caller.note(lambda version: version_row(services, version)),
    )


async def list_models(services: Services, args: ListModels, caller: Caller) -> ModelList:  # noqa: ARG001 - a handler's shape
    """List models with their versions, variants and aliases."""
    versions = services.catalog.versions()
    names = sorted({version.model for version in versions})
    if args.model is None:
        return ModelList(models=[_model_row(services, name, versions, moves=[]) for name in names])
    name = parse_model_name(args.model)
    if name not in names:
        raise UnknownModel(f"no model {name!r}; there are: {', '.join(names[:20]) or 'none'}")
    moves = [move_row(move) for move in await services.catalog.alias_history(name)]
    return ModelList(models=[_model_row(services, name, versions, moves=moves)])


async def move_alias(services: Services, args: MoveAlias, caller: Caller) -> MoveRow:
    """Point an alias at a version."""
    model, alias = parse_model_name(args.model), parse_alias(args.alias)
    move = await services.catalog.move_alias(
        model, alias, args.version, who=caller.name, why=args.why, expect=args.expect, note_of=caller.note(move_row)
    )
    return move_row(move)


def version_row(services: Services, version: Version) -> VersionRow:
    """Return the version as callers see it."""
    return version_row_of(version, services.catalog.retirement(version))


def version_row_of(version: Version, retired: Retirement | None) -> VersionRow:
    """Return the version as callers see it, in use (None) or retired."""
    signature = version.signature
    return VersionRow(
        model=version.model,
        version=version.number,
        created_at=utc(version.created_at),
        note=version.note,
        inputs=tensor_rows(signature.inputs),
        outputs=tensor_rows(signature.outputs),
        labels=list(signature.labels),
        preprocessing=signature.preprocessing,
        variants=[_variant_row(variant) for variant in version.variants],
        licence=version.about.licence,
        tags=dict(version.about.tags),
        source=version.about.source,
        samples=version.samples,
        retired=RetirementRow(retired_at=utc(retired.retired_at), who=retired.who, why=retired.why)
        if retired
        else None,
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
    rows = [version_row(services, version) for version in versions if version.model == name]
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
        vectors=len(variant.vectors),
    )


def move_row(move: AliasMove) -> MoveRow:
    """Return the move as callers see it."""
    moved_at = utc(move.moved_at)
    return MoveRow(
        model=move.model, alias=move.alias, version=move.version, moved_at=moved_at, who=move.who, why=move.why
    )


def utc(seconds: float) -> str:
    """Return a wall time as people and programs read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "models.add",
        "Admit model files as the next version of a model",
        AddModel,
        VersionRow,
        add,
        Role.ADMIN,
        errors=(BadRequest, Conflict, ModelRefused, NotFound, TooLarge),
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
        errors=(BadRequest, Conflict, UnknownModel),
    ),
)
