"""The main path: one inference request from its arrival to its answer. Read this file first.

resolve the model → gather the options → place → run the best, then the next best while time allows → learn, record, tell.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gatewayd.core.decision import Decision, Rent
from gatewayd.core.device import RunResult, SampleResult
from gatewayd.core.errors import (
    DeadlineExceeded,
    DeviceError,
    DeviceRefused,
    GatewayError,
    NodeError,
    NoPlacement,
    Overloaded,
)
from gatewayd.core.events import RequestFailed, RequestServed
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId
from gatewayd.core.placement import NODE_INDEX, Option, Placement, place
from gatewayd.core.reasons import reason_of
from gatewayd.core.record import record
from gatewayd.core.request import NODE, InferenceRequest, InferenceResult
from gatewayd.core.tensor import Quantization, Tensor, converted, real_value
from gatewayd.services.catalog import Catalog
from gatewayd.services.decisions import Decisions
from gatewayd.services.opinions import Opinions
from gatewayd.services.options import OptionFinder, Options
from gatewayd.services.ports import Clock, Notify
from gatewayd.services.running import NodeState, Ran, Runner
from gatewayd.services.settling import Settling
from gatewayd.services.speech import Speech, Speeches


@record
class Served:
    """A request served, with everything that led to it: what rent-or-buy learns from."""

    request: InferenceRequest
    version: Version
    options: Options
    placement: Placement
    result: InferenceResult


class Inference:
    """Serves requests. `on_served` is called once per answer, must return at once, and tells what it learned.

    What an answer teaches is entered by way of `settling` (None: at once).
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        finder: OptionFinder,
        runner: Runner,
        decisions: Decisions,
        notify: Notify,
        clock: Clock,
        on_served: Callable[[Served], Rent | None],
        wall_clock: Clock = time.time,
        opinions: Opinions | None = None,
        settling: Settling | None = None,
    ) -> None:
        self._catalog = catalog
        self._finder = finder
        self._runner = runner
        self._decisions = decisions
        self._notify = notify
        self._clock = clock
        self._on_served = on_served
        self._wall_clock = wall_clock
        self._opinions = opinions
        self._settling = settling or Settling()
        self._speeches = Speeches()

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

    async def heard(self, request: InferenceRequest, told: RunResult) -> InferenceResult:
        """Serve a request, pinned to its sensor's device, with what that device inferred by itself and told: it is not asked.

        Raises: as `infer`; nobody asked, so nobody is told of a failure.
        """
        return await self._served(request, self._clock(), told)

    async def _served(
        self,
        request: InferenceRequest,
        started_s: float,
        told_run: RunResult | None = None,
        *,
        tried: Sequence[str] = (),
    ) -> InferenceResult:
        """Serve it; `tried` says what failed before it was placed anew, which happens once."""
        version = self._catalog.resolve(request.model)
        speech = self._speeches.of(request, version)
        options = self._finder.find(request, version, now_s=self._clock() if tried else started_s)
        placement = place(options.question, options.node, options.devices)
        attempts = list(tried)
        unsure = self._opinions.unsure_below(version, options) if self._opinions is not None else None
        try:
            option, ran = await self._first_success(
                request, options, placement, speech, attempts, told=told_run, unsure=unsure
            )
        except GatewayError as error:
            may_again = isinstance(error, DeviceRefused) and told_run is None and not tried
            if may_again and self._has_moved(request, version, options):
                return await self._served(request, started_s, tried=attempts)
            record = partial(self._record, request, version, placement, attempts, outcome=str(error))
            self._settling.enter(record)  # behind the answers before it
            raise
        total_s = self._clock() - started_s
        outputs = _outputs(speech, ran)
        label, score = _likeliest(outputs, version.signature.labels, speech.first_quantization)
        result = InferenceResult(
            id=request.id,
            model=str(version.model),
            version=version.number,
            variant=ran.variant.name,
            outputs=_chosen(outputs, request.outputs),
            ran_on=option.target,
            reason=_reason(option, placement, attempts),
            predicted=option.costs,
            measured=ran.measured.in_all(total_s),
            label=label,
            score=score,
            sample=ran.sample,
            attempts=tuple(attempts),
        )
        answer, told = result, ""
        if self._opinions is not None and result.ran_on.device is not None:
            about = (request, version, options, speech)
            answer, told = await self._second(self._opinions, *about, result, returned=ran.returned)
        served = Served(request, version, options, placement, result)
        self._settling.enter(partial(self._learn, served, attempts, answer, opinion=told))
        return answer

    def settle(self) -> None:
        """Enter what answers have taught since the last time; who shows it calls this first."""
        self._settling.settle()

    def _has_moved(self, request: InferenceRequest, version: Version, options: Options) -> bool:
        """Return whether what a device holds has changed since it was placed there: another slot or version may serve it.

        A request waits for its turn on a device; meanwhile the device may have accepted a newer model and let that one go.
        """
        now_s = self._clock()
        if now_s >= request.deadline_s:
            return False
        try:
            newest = self._catalog.resolve(request.model)
            now = self._finder.find(request, newest, now_s=now_s)
        except GatewayError:
            return False
        return newest.number != version.number or _held(now) != _held(options)

    def _learn(self, served: Served, attempts: Sequence[str], answer: InferenceResult, *, opinion: str) -> None:
        """Tell of an answer, learn from it and record it."""
        request, result = served.request, served.result
        self._notify(RequestServed(request, answer))
        rent = self._on_served(served)
        self._record(
            request,
            served.version,
            served.placement,
            attempts,
            outcome="served",
            result=result,
            rent=rent,
            opinion=opinion,
        )

    async def _second(
        self,
        opinions: Opinions,
        request: InferenceRequest,
        version: Version,
        options: Options,
        speech: Speech,
        first: InferenceResult,
        *,
        returned: SampleResult | None,
    ) -> tuple[InferenceResult, str]:
        """Ask the bigger model about a device's answer, where one is named and the answer is not sure enough.

        Returns the answer to give, and what is to be told of it.
        """
        score, asked_s = (first.label, first.score), self._clock()
        left_s = request.deadline_s - asked_s
        second = await opinions.second(version, options, speech, score, timeout_s=left_s, returned=returned)
        if second.ran is None or second.version is None:
            return first, second.told
        outputs = _outputs(speech, second.ran)
        label, sure = _likeliest(outputs, version.signature.labels, speech.first_quantization)
        told = opinions.saw(second, version, score, label)
        answer = replace(
            first,
            variant=f"{second.version} {second.ran.variant.name}",
            outputs=_chosen(outputs, request.outputs),
            ran_on=NODE,
            reason=f"second opinion: {told}",
            predicted=None,
            measured=second.ran.measured.in_all(first.measured.total_s + self._clock() - asked_s),
            label=label,
            score=sure,
            sample=second.ran.sample,
        )
        return answer, told

    def _record(
        self,
        request: InferenceRequest,
        version: Version,
        placement: Placement,
        attempts: Sequence[str],
        *,
        outcome: str,
        result: InferenceResult | None = None,
        rent: Rent | None = None,
        opinion: str = "",
    ) -> None:
        self._decisions.record(
            Decision(
                request.id,
                str(version.model),
                version.number,
                placement,
                tuple(attempts),
                outcome,
                result.ran_on if result else None,
                result.measured if result else None,
                request.request_class,
                self._wall_clock(),
                rent,
                opinion,
            )
        )

    async def _first_success(
        self,
        request: InferenceRequest,
        options: Options,
        placement: Placement,
        speech: Speech,
        attempts: list[str],
        *,
        told: RunResult | None,
        unsure: float | None,
    ) -> tuple[Option, Ran]:
        """Try the feasible options in turn; what failed is added to `attempts`."""
        failure: GatewayError | None = None
        for rank in placement.ranked:
            time_left_s = request.deadline_s - self._clock()
            if time_left_s <= 0:
                break
            option = placement.ranked_option(rank)
            try:
                if told is not None:
                    return option, self._runner.told(options.candidate(rank[2]), told)
                ran = await self._run(request, rank[2], options, speech, timeout_s=time_left_s, unsure=unsure)
                return option, ran  # noqa: TRY300 - what runs it belongs to the try
            except (DeviceError, NodeError) as error:
                attempts.append(f"{option.target}: {error}")
                failure = error
        raise _nothing_served(placement, attempts, failure, is_overloaded=options.is_overloaded)

    async def _run(
        self,
        request: InferenceRequest,
        index: int,
        options: Options,
        speech: Speech,
        *,
        timeout_s: float,
        unsure: float | None,
    ) -> Ran:
        if index == NODE_INDEX:
            state = NodeState(request.stream, request.is_reset)
            return await self._runner.on_node(options, speech, timeout_s=timeout_s, state=state)
        candidate = options.candidate(index)
        return await self._runner.on_device(options, candidate, speech, timeout_s=timeout_s, unsure_below=unsure)


def _nothing_served(
    placement: Placement, attempts: Sequence[str], failure: GatewayError | None, *, is_overloaded: bool
) -> GatewayError:
    tried = "; ".join(attempts)
    if not placement.ranked:
        why = f"tried {tried}; then {reason_of(placement)}" if tried else reason_of(placement)
        return Overloaded(why) if is_overloaded else NoPlacement(why)
    if failure is None:
        return DeadlineExceeded("the deadline passed before anything could be tried")
    return type(failure)(f"tried {tried}")


def _held(options: Options) -> list[tuple[DeviceId, int | None]]:
    """Return in which slot each device holds the model."""
    slots = [options.candidate(index).holding.slot for index in range(len(options.devices))]
    indices = (None if slot is None else slot.index for slot in slots)
    return [(facts.device, index) for facts, index in zip(options.devices, indices, strict=True)]


def _reason(option: Option, placement: Placement, attempts: Sequence[str]) -> str:
    if attempts:
        return f"{option.target} serves because what came first failed: {'; '.join(attempts)}"
    return reason_of(placement)


def _outputs(speech: Speech, ran: Ran) -> tuple[Tensor, ...]:
    stored = ran.variant.structure.outputs
    return tuple(
        converted(tensor, source=spec.quantization, target=spoken)
        for tensor, spec, spoken in zip(ran.outputs, stored, speech.output_specs, strict=False)
    )


def _chosen(outputs: tuple[Tensor, ...], names: Sequence[str]) -> tuple[Tensor, ...]:
    by_name = {tensor.name: tensor for tensor in outputs}
    return tuple(by_name[name] for name in names if name in by_name) if names else outputs


def _likeliest(
    outputs: Sequence[Tensor], labels: Sequence[str], quantization: Quantization | None = None
) -> tuple[str | None, float | None]:
    if not labels or not outputs:
        return None, None
    values = outputs[0].values()
    finite = [index for index in range(len(labels)) if math.isfinite(values[index])]
    if not finite:
        return None, None
    best = max(finite, key=values.__getitem__)
    return labels[best], real_value(values[best], quantization)
