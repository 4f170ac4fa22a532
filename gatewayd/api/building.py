"""The verb that builds variants, with what it answers."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.models import VersionRow, version_row
from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, Positional, RefText, Result, Role, Verb
from gatewayd.core.errors import BadRequest, Conflict, DeadlineExceeded, EngineMissing, ModelRefused, UnknownModel
from gatewayd.core.names import parse_model_ref
from gatewayd.services.building import Built


class BuildModel(Arguments):
    """Arguments of models.build. `for` is a device, or a target such as int8 or ethos-u55-128."""

    model: Annotated[RefText, Positional()]
    target: Annotated[
        str, Field(alias="for", min_length=1, max_length=63, description="a device or a target (int8, ethos-u55-128)")
    ]


class BuildRow(Result):
    """What a build led to. `is_new` false: the variant was there already; `fits` null: built for a target, not a device."""

    version: VersionRow
    variant: str
    is_new: bool
    is_cached: bool
    report: str
    device: str | None
    fits: bool | None
    obstacles: list[str]


async def build(services: Services, args: BuildModel, caller: Caller) -> BuildRow:
    """Build the variant that a device or a target needs, and tell whether it fits."""

    def row(built: Built) -> BuildRow:
        return _row(services, built)

    ref = parse_model_ref(args.model)
    return row(await services.building.build(ref, args.target, who=caller.name, note_of=caller.note(row)))


def _row(services: Services, built: Built) -> BuildRow:
    return BuildRow(
        version=version_row(services, built.version),
        variant=built.variant,
        is_new=built.is_new,
        is_cached=built.is_cached,
        report=built.report,
        device=built.device,
        fits=None if built.device is None else not built.obstacles,
        obstacles=list(built.obstacles),
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "models.build", "Build the variant that a device or a target needs", BuildModel, BuildRow, build, Role.ADMIN,
        errors=(BadRequest, Conflict, DeadlineExceeded, EngineMissing, ModelRefused, UnknownModel),
    ),
)  # fmt: skip
