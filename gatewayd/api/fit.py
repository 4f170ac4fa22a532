"""The verb that tells where a model would run, and why not elsewhere."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, DeviceText, Positional, RefText, Result, Role, Verb
from gatewayd.core.errors import BadRequest, UnknownDevice, UnknownModel
from gatewayd.core.fit import Finding
from gatewayd.core.names import parse_device_id, parse_model_ref
from gatewayd.services.preflight import Check


class VariantFit(Result):
    """One variant on one device. `arena_bytes` null: nobody knows; `arena_source` tells how it is known."""

    variant: str
    runs: bool
    arena_bytes: int | None
    arena_source: str
    reasons: list[str]


class DeviceFit(Result):
    """One device. `variant` null: none runs there; `reason` is "" when it runs, else why not; `remark` is for information."""

    device: str
    runs: bool
    approved: bool
    online: bool
    variant: str | None
    reason: str
    remark: str
    variants: list[VariantFit]


class FitReport(Result):
    """What models.fit answers."""

    model: str
    version: int
    devices: list[DeviceFit]


class FitModel(Arguments):
    """Arguments of models.fit. `device` null: every device that was ever seen."""

    model: Annotated[RefText, Positional()]
    device: Annotated[DeviceText | None, Positional(), Field(description="only this one")] = None


async def fit_model(services: Services, args: FitModel, caller: Caller) -> FitReport:  # noqa: ARG001 - a handler's shape
    """Hold a version against devices, before a byte is sent."""
    device = None if args.device is None else parse_device_id(args.device)
    version, checks = services.preflight.check(parse_model_ref(args.model), device)
    return FitReport(model=version.model, version=version.number, devices=[_device_fit(check) for check in checks])


def _device_fit(check: Check) -> DeviceFit:
    return DeviceFit(
        device=check.device,
        runs=check.runs,
        approved=check.approved,
        online=check.online,
        variant=check.chosen.name if check.chosen else None,
        reason=_reason(check),
        remark=check.remark if check.findings else "",
        variants=[_variant_fit(finding) for finding in check.findings],
    )


def _reason(check: Check) -> str:
    if not check.findings:
        return check.remark
    if check.chosen is None:
        return "; ".join(f"{each.variant.name}: {'; '.join(each.obstacles)}" for each in check.findings)
    return check.room


def _variant_fit(finding: Finding) -> VariantFit:
    return VariantFit(
        variant=finding.variant.name,
        runs=not finding.obstacles,
        arena_bytes=finding.need.arena_bytes,
        arena_source=finding.need.source,
        reasons=list(finding.obstacles),
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "models.fit",
        "Tell on which devices a version would run, and why not on the others",
        FitModel,
        FitReport,
        fit_model,
        Role.VIEWER,
        errors=(BadRequest, UnknownDevice, UnknownModel),
        is_read=True,
    ),
)
