"""The main path: one inference request from its arrival to its answer. Read this file first.

resolve the model → gather the options → place → run the best, then the next best while time allows → learn, record, tell.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gatewayd.core.errors import BadRequest, DeadlineExceeded, DeviceError, GatewayError, NodeError, NoPlacement
from gatewayd.core.events import RequestFailed, RequestServed
from gatewayd.core.model import Version
from gatewayd.core.placement import Decision, Option, Placement, place
from gatewayd.core.request import NODE, InferenceRequest, InferenceResult, Measured
from gatewayd.core.tensor import Tensor, TensorSpec, converted
from gatewayd.services.catalog import Catalog
from gatewayd.services.decisions import Decisions
from gatewayd.services.options import Candidate, OptionFinder, Options
from gatewayd.services.ports import Clock, Notify
from gatewayd.services.running import Ran, Runner


@dataclass(frozen=True, slots=True)
class Served:
    """A request served, with everything that led to it: what rent-or-buy learns from."""

    request: InferenceRequest
    version: Version
    options: Options
    placement: Placement
    result: InferenceResult


class Inference:
    """Serves requests. `on_served` is called once per answer, on the event loop, and must return at once."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        finder: OptionFinder,
        runner: Runner,
        decisions: Decisions,
        notify: Notify,
        clock: Clock,
        on_served: Callable[[Served], None],
    ) -> None:
        self._catalog = catalog
        self._finder = finder
        self._runner = runner
        self._decisions = decisions
        self._notify = notify
        self._clock = clock
        self._on_served = on_served

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Serve one request.

        Raises: UnknownModel, BadRequest, NoPlacement (each option with its reason), DeadlineExceeded, or the last
        attempt's DeviceError or NodeError, with what was tried.
        """
        started_s = self._clock()
        try:
            return await self._served(request, started_s)
        except GatewayError as error:
            self._notify(RequestFailed(request, error.code, str(error), self._clock() - started_s))
            raise

    async def _served(self, request: InferenceRequest, started_s: float) -> InferenceResult:
        version = self._catalog.resolve(request.model)
        inputs = _inline_inputs(request, version)
        options = self._finder.find(request, version, now_s=started_s)
        placement = place(options.question, options.node, [each.facts for each in options.candidates])
        attempts: list[str] = []
        try:
            option, ran = await self._first_success(request, options, placement, inputs, attempts)
        except GatewayError as error:
            self._decisions.record(_decision(request, version, placement, attempts, outcome=str(error)))
            raise
        total_s = self._clock() - started_s
        result = _result(request, version, option, ran, reason=placement.reason, total_s=total_s, attempts=attempts)
        self._decisions.record(_decision(request, version, placement, attempts, outcome="served", result=result))
        self._notify(RequestServed(request, result))
        self._on_served(Served(request, version, options, placement, result))
        return result

    async def _first_success(
        self,
        request: InferenceRequest,
        options: Options,
        placement: Placement,
        inputs: Sequence[Tensor],
        attempts: list[str],
    ) -> tuple[Option, Ran]:
        """Try the feasible options in turn; what failed is added to `attempts`."""
        failure: GatewayError | None = None
        for option in placement.feasible:
            time_left_s = request.deadline_s - self._clock()
            if time_left_s <= 0:
                break
            try:
                return option, await self._run(option, options, inputs, timeout_s=time_left_s)
            except (DeviceError, NodeError) as error:
                attempts.append(f"{option.target}: {error}")
                failure = error
        raise _nothing_served(placement, attempts, failure)

    async def _run(self, option: Option, options: Options, inputs: Sequence[Tensor], *, timeout_s: float) -> Ran:
        if option.target == NODE:
            return await self._runner.on_node(options, inputs, timeout_s=timeout_s)
        candidate = _candidate(options, option)
        return await self._runner.on_device(options, candidate, inputs, timeout_s=timeout_s)


def _candidate(options: Options, option: Option) -> Candidate:
    return next(each for each in options.candidates if each.facts.device == option.target.device)


def _inline_inputs(request: InferenceRequest, version: Version) -> tuple[Tensor, ...]:
    """Bring inline inputs into the signature's order and types; () for a request by reference."""
    specs = version.signature.inputs
    if request.source is not None:
        return ()
    if request.raw is not None:
        return (_from_raw(request.raw, specs, version),)
    given = {tensor.name: tensor for tensor in request.inputs}
    if set(given) != {spec.name for spec in specs} or len(given) != len(request.inputs):
        names = ", ".join(repr(tensor.name) for tensor in request.inputs) or "none"
        wanted = ", ".join(f"{spec.name!r} {spec.dtype.value} {list(spec.shape)}" for spec in specs)
        raise BadRequest(f"inputs: {version} takes {wanted}; given: {names}")
    return tuple(_checked(given[spec.name], spec, version) for spec in specs)


def _from_raw(raw: bytes, specs: Sequence[TensorSpec], version: Version) -> Tensor:
    if len(specs) != 1:
        raise BadRequest(f"{version} takes {len(specs)} inputs: raw bytes serve for one; send JSON")
    spec = specs[0]
    if len(raw) != spec.byte_count:
        kind = f"{spec.dtype.value} of shape {list(spec.shape)}"
        raise BadRequest(f"raw input: {version} takes {spec.byte_count} bytes ({kind}), got {len(raw)}")
    return Tensor(spec.name, spec.dtype, spec.shape, raw)


def _checked(tensor: Tensor, spec: TensorSpec, version: Version) -> Tensor:
    if tensor.shape != spec.shape:
        raise BadRequest(f"input {spec.name!r}: {version} takes shape {list(spec.shape)}, got {list(tensor.shape)}")
    if tensor.dtype is not spec.dtype:
        raise BadRequest(f"input {spec.name!r}: {version} takes {spec.dtype.value}, got {tensor.dtype.value}")
    return tensor


def _nothing_served(placement: Placement, attempts: Sequence[str], failure: GatewayError | None) -> GatewayError:
    if not placement.feasible:
        return NoPlacement(placement.reason)
    tried = "; ".join(attempts)
    if failure is None:
        return DeadlineExceeded("the deadline passed before anything could be tried")
    return type(failure)(f"tried {tried}")


def _result(
    request: InferenceRequest,
    version: Version,
    option: Option,
    ran: Ran,
    *,
    reason: str,
    total_s: float,
    attempts: Sequence[str],
) -> InferenceResult:
    outputs = tuple(
        converted(tensor, source=stored.quantization, target=spec)
        for tensor, stored, spec in zip(
            ran.outputs, ran.variant.structure.outputs, version.signature.outputs, strict=False
        )
    )
    label, score = _likeliest(outputs, version.signature.labels)
    return InferenceResult(
        id=request.id,
        model=str(version.model),
        version=version.number,
        variant=ran.variant.name,
        outputs=outputs,
        ran_on=option.target,
        reason=f"{option.target} serves because what came first failed: {'; '.join(attempts)}" if attempts else reason,
        predicted=option.costs,
        measured=replace(ran.measured, total_s=total_s),
        label=label,
        score=score,
        sample=ran.sample,
        attempts=tuple(attempts),
    )


def _likeliest(outputs: Sequence[Tensor], labels: Sequence[str]) -> tuple[str | None, float | None]:
    if not labels or not outputs:
        return None, None
    values = outputs[0].values()
    finite = [index for index in range(len(labels)) if math.isfinite(values[index])]
    if not finite:
        return None, None
    best = max(finite, key=values.__getitem__)
    return labels[best], values[best]


def _decision(
    request: InferenceRequest,
    version: Version,
    placement: Placement,
    attempts: Sequence[str],
    *,
    outcome: str,
    result: InferenceResult | None = None,
) -> Decision:
    measured: Measured | None = result.measured if result else None
    target = result.ran_on if result else None
    return Decision(
        request.id, str(request.model), version.number, placement, tuple(attempts), outcome, target, measured
    )
