"""The verbs about inferences, with what they answer.

`infer` here is for people and scripts; the edges' own infer routes skip these schemas and hand over decoded bodies.
"""

from dataclasses import asdict
from typing import Annotated

from pydantic import Field, JsonValue

from gatewayd.api.models import utc
from gatewayd.api.services import Services
from gatewayd.api.verb import (
    AnyVerb,
    Arguments,
    Caller,
    DeviceText,
    FileContent,
    Positional,
    RefText,
    Result,
    Role,
    Verb,
)
from gatewayd.core.command import Effect
from gatewayd.core.decision import Decision
from gatewayd.core.errors import BadRequest, DeadlineExceeded, DeviceUnreachable, NoPlacement, NotFound, UnknownModel
from gatewayd.core.names import RequestId
from gatewayd.core.placement import Option
from gatewayd.core.reasons import Margin, margin_of, reason_of
from gatewayd.wire.tensors import (
    MAX_INPUTS,
    InferenceBody,
    costs_document,
    measured_document,
    read_body,
    read_raw,
    result_document,
)

MAX_INFER_BYTES = 2**21  # a raw input in base64, or a JSON list; protects the loop


class Infer(Arguments):
    """Arguments of infer: `device` and `input` (data at a sensor), or `inputs` (tensors), or `raw` (the only input's bytes)."""

    model: Annotated[RefText, Positional()]
    device: Annotated[DeviceText | None, Field(description="the device with the sensor whose data is meant")] = None
    input: Annotated[str | None, Field(max_length=128, description="the name of that sensor: mic")] = None
    inputs: Annotated[
        list[dict[str, JsonValue]] | None,
        Field(
            max_length=MAX_INPUTS,
            description='tensors: {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}',
        ),
    ] = None
    raw: Annotated[FileContent | None, Field(description="the bytes of the only input, as the model takes them")] = None
    placement: Annotated[str, Field(description="auto, node, device:<id> or prefer:device:<id>")] = "auto"
    privacy: Annotated[str, Field(description="any or stay_on_device")] = "any"
    deadline_ms: Annotated[
        float | None, Field(gt=0, description="give up after so long; left out: requests.default_deadline_ms")
    ] = None
    request_class: Annotated[str, Field(alias="class", max_length=128, description="one of requests.classes")] = (
        "default"
    )
    stream: Annotated[str | None, Field(min_length=1, max_length=128, description="whose state a model keeps")] = None
    reset: Annotated[bool, Field(description="begin that state anew")] = False
    id: Annotated[str | None, Field(max_length=128, description="your own name for the request, for why")] = None


class CostsRow(Result):
    """Predicted costs."""

    latency_ms: float | None
    energy_uj: float | None
    link_bytes: float | None
    failure: float | None


class MeasuredRow(Result):
    """What was measured; energy is the device's."""

    total_ms: float | None
    queue_ms: float | None
    transfer_ms: float | None
    compute_ms: float | None
    energy_uj: float | None
    link_bytes: int


class OutputRow(Result):
    """One output tensor, flat, row-major; an element that is not finite is null."""

    name: str
    datatype: str
    shape: list[int]
    data: list[bool | int | float | None]


class AnswerParameters(Result):
    """Where it ran, why, what it was predicted to cost and what it cost."""

    ran_on: str
    reason: str
    version: int
    variant: str
    label: str | None
    score: float | None
    sample: int | None
    predicted: CostsRow | None
    measured: MeasuredRow
    attempts: list[str]


class Answer(Result):
    """The answer to an inference request. Source: Open Inference Protocol v2, "Inference Response JSON Object"."""

    id: str
    model_name: str
    model_version: str
    outputs: list[OutputRow]
    parameters: AnswerParameters


class Why(Arguments):
    """Arguments of why. `request` is the id in an answer."""

    request: Annotated[str, Field(min_length=1, max_length=128, description="the id in an answer"), Positional()]


class OptionRow(Result):
    """One place it could have run: what it would have cost, or why it was refused. `total` is the weighted sum."""

    target: str
    variant: str
    refusal: str
    total: float | None
    costs: CostsRow | None


class RentRow(Result):
    """Rent or buy, for a request about a device without the model: `saved` J after it, `price` of a push (null: none)."""

    device: str
    saved: float
    requests: int
    price: float | None
    state: str


class FlipRow(Result):
    """One change that alone would have turned the decision over; `unit` is s, uJ, B, or empty for a probability or weight."""

    what: str
    unit: str
    now: float
    then: float


class MarginRow(Result):
    """How firm the decision was: by how much J the second place was dearer, and what would have turned it over."""

    winner: str
    runner_up: str
    by: float
    flips: list[FlipRow]


class Explanation(Result):
    """What was decided for one request, and how it went."""

    request: str
    model: str
    version: int
    reason: str
    served_by: str | None
    outcome: str
    attempts: list[str]
    measured: MeasuredRow | None
    options: list[OptionRow]
    request_class: str
    decided_at: str
    rent: RentRow | None
    margin: MarginRow | None
    opinion: str


async def infer(services: Services, args: Infer, caller: Caller) -> Answer:  # noqa: ARG001 - a handler's shape
    """Run one inference wherever it is cheapest."""
    request = services.requests.make(args.model, _body(args))
    return Answer.model_validate(result_document(await services.inference.infer(request)))


async def why(services: Services, args: Why, caller: Caller) -> Explanation:  # noqa: ARG001 - a handler's shape
    """Tell where a request could have run, at which cost, and why it ran where it did."""
    return _explanation(services.decisions.why(RequestId(args.request)))


def _body(args: Infer) -> InferenceBody:
    parameters: dict[str, object] = {
        "placement": args.placement,
        "privacy": args.privacy,
        "deadline_ms": args.deadline_ms,
        "class": args.request_class,
        "reset": args.reset,
        **({"stream": args.stream} if args.stream else {}),
    }
    document: dict[str, object] = {"id": args.id, "parameters": parameters}
    by_body = {"device": args.device, "input": args.input, "inputs": args.inputs}
    given = {key: value for key, value in by_body.items() if value is not None}
    if args.raw is None:
        return read_body(document | given)
    if given:
        raise BadRequest(f"raw: give either raw or {' and '.join(given)}, not both")
    return read_raw(args.raw, document)


def _explanation(decision: Decision) -> Explanation:
    measured = decision.measured
    return Explanation(
        request=decision.request,
        model=decision.model,
        version=decision.version,
        reason=reason_of(decision.placement),
        served_by=None if decision.served_by is None else str(decision.served_by),
        outcome=decision.outcome,
        attempts=list(decision.attempts),
        measured=None if measured is None else MeasuredRow.model_validate(measured_document(measured)),
        options=[_option_row(option) for option in decision.placement.options],
        request_class=decision.request_class,
        decided_at=utc(decision.decided_at),
        rent=None if decision.rent is None else RentRow.model_validate(asdict(decision.rent)),
        margin=_margin_row(margin_of(decision.placement)),
        opinion=decision.opinion,
    )


def _margin_row(margin: Margin | None) -> MarginRow | None:
    return None if margin is None else MarginRow.model_validate(asdict(margin))


def _option_row(option: Option) -> OptionRow:
    costs = option.costs
    return OptionRow(
        target=str(option.target),
        variant=option.variant,
        refusal=option.refusal,
        total=None if costs is None else option.total,
        costs=None if costs is None else CostsRow.model_validate(costs_document(costs)),
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "infer",
        "Run one inference wherever it is cheapest",
        Infer,
        Answer,
        infer,
        Role.OPERATOR,
        errors=(BadRequest, DeadlineExceeded, DeviceUnreachable, NoPlacement, UnknownModel),
        max_bytes=MAX_INFER_BYTES,
        changes=Effect.NOTHING,
    ),
    Verb(
        "why",
        "Tell why a request ran where it did",
        Why,
        Explanation,
        why,
        Role.VIEWER,
        errors=(NotFound,),
        is_read=True,
    ),
)
