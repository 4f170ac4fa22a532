"""The verbs about what is in the node's memory, and the repository's index, which tells it."""

from typing import Annotated

from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, ModelText, Positional, RefText, Result, Role, Verb
from gatewayd.core.command import Effect
from gatewayd.core.errors import BadRequest, Conflict, NodeError, NoPlacement, UnknownModel
from gatewayd.core.model import Version
from gatewayd.core.names import parse_model_name, parse_model_ref

_READY = "READY"


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

    model: Annotated[ModelText, Positional()]


class Loaded(Result):
    """What models.load and models.unload answer: how many workers hold versions of the model now."""

    model: str
    loaded: int


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


def _repository_row(services: Services, version: Version) -> RepositoryRow:
    runs = any(verdict.runs for variant in version.variants for verdict in variant.verdicts)
    reason = "loaded" if services.loading.is_loaded(version) else "loaded when it is asked"
    return RepositoryRow(
        name=version.model,
        version=str(version.number),
        state=_READY if runs else "UNAVAILABLE",
        reason=reason if runs else "no engine and no device runs it",
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "models.load",
        "Load a version on the node before it is needed",
        LoadModel,
        Loaded,
        load,
        Role.OPERATOR,
        errors=(BadRequest, NoPlacement, NodeError, UnknownModel),
        changes=Effect.MEMORY,
    ),
    Verb(
        "models.unload",
        "Let a model's workers go; its next request loads it again",
        UnloadModel,
        Loaded,
        unload,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
        changes=Effect.MEMORY,
    ),
)
