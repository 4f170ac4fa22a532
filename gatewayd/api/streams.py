"""The verbs about standing orders, with what they answer."""

import secrets
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated

from pydantic import Field

from gatewayd.api.models import utc
from gatewayd.api.services import Services
from gatewayd.api.verb import (
    AnyVerb,
    Arguments,
    Caller,
    DeviceText,
    Name,
    Positional,
    RefText,
    Result,
    Role,
    Text,
    Verb,
)
from gatewayd.core.errors import BadRequest, Conflict, Forbidden, NotFound, Overloaded, UnknownDevice, UnknownModel
from gatewayd.core.names import parse_device_id, parse_model_ref
from gatewayd.core.request import SensorRef
from gatewayd.core.standing import MAX_PERIOD_S, MIN_PERIOD_S, Progress, StandingOrder
from gatewayd.wire.tensors import InferenceBody, read_body

_MAX_DEADLINE_S = 120.0


class StartStream(Arguments):
    """Arguments of stream.start: `model` runs on the data of `input` at `device`, again and again.

    `id` names the order: the same order again under the same id is the one that runs. `until` (ISO 8601) or `for_s` end it.
    `topic` is where its answers are published over MQTT; the default is `stream/<id>` below the node's topics. `deadline_ms` is
    for each request; the default is the period, at most ten seconds.
    """

    model: Annotated[RefText, Positional()]
    device: DeviceText
    input: Annotated[str, Field(min_length=1, max_length=128, description="the name of a sensor there: mic")]
    period_ms: Annotated[
        float, Field(ge=MIN_PERIOD_S * 1000, le=MAX_PERIOD_S * 1000, description="from one request to the next")
    ]
    id: Annotated[Name | None, Field(description="the order's name; left out: one is made")] = None
    deadline_ms: Annotated[
        float | None,
        Field(
            gt=0,
            le=_MAX_DEADLINE_S * 1000,
            description="give each request up after so long; left out: the period, at most 10 s",
        ),
    ] = None
    until: Annotated[datetime | None, Field(description="when it ends: 2026-11-22T19:00Z")] = None
    for_s: Annotated[
        float | None, Field(gt=0, le=10 * 366 * 86_400, description="for how long, in seconds, instead")
    ] = None
    topic: Annotated[
        str,
        Field(
            max_length=1024, description="where answers are published; left out: stream/<id> below the node's topics"
        ),
    ] = ""
    qos: Annotated[int, Field(ge=0, le=1, description="at which they are published")] = 0
    placement: Annotated[str, Field(description="auto, node, device:<id> or prefer:device:<id>")] = "auto"
    privacy: Annotated[str, Field(description="any or stay_on_device")] = "any"
    request_class: Annotated[str, Field(alias="class", max_length=128, description="one of requests.classes")] = (
        "default"
    )
    stream: Annotated[str | None, Field(min_length=1, max_length=128, description="whose state a model keeps")] = None


class StopStream(Arguments):
    """Arguments of stream.stop."""

    id: Annotated[Name, Positional(), Field(description="the order's name, as stream.list shows it")]
    why: Text = "stopped by an operator"


class StreamRow(Result):
    """One standing order and how it goes since the daemon started.

    `missed` were due while the one before was still on its way. `failing` counts the failures since the latest answer, `failure`
    says why the latest one failed.
    """

    id: str
    model: str
    device: str
    input: str
    period_ms: float
    deadline_ms: float
    until: str | None
    topic: str
    who: str
    started_at: str
    answered: int
    failed: int
    missed: int
    failing: int
    failure: str
    ran_on: str | None
    last_ms: float | None


class StreamList(Result):
    """What stream.list answers, the oldest first."""

    streams: list[StreamRow]


class NoArguments(Arguments):
    """Arguments of stream.list: none."""


async def start(services: Services, args: StartStream, caller: Caller) -> StreamRow:
    """Begin an order."""
    if args.topic:
        services.streams.check_topic(args.topic)
    order = await services.streams.orders.start(
        _order(services, args, caller), note_of=caller.note(lambda begun: _row(services, begun, Progress()))
    )
    progress = next((found for known, found in services.streams.orders.orders() if known.id == order.id), Progress())
    return _row(services, order, progress)


async def list_streams(services: Services, args: NoArguments, caller: Caller) -> StreamList:  # noqa: ARG001 - a handler's shape
    """List what runs."""
    return StreamList(streams=[_row(services, order, progress) for order, progress in services.streams.orders.orders()])


async def stop(services: Services, args: StopStream, caller: Caller) -> StreamRow:
    """End an order."""
    order, progress = await services.streams.orders.stop(
        args.id, why=f"{args.why} ({caller.name})", note_of=caller.note(lambda ended: _row(services, *ended))
    )
    return _row(services, order, progress)


def _order(services: Services, args: StartStream, caller: Caller) -> StandingOrder:
    period_s, body, now = args.period_ms / 1000, _body(args), services.streams.wall_clock()
    default_s = min(period_s, services.requests.default_deadline_s)
    return StandingOrder(
        id=args.id or f"order-{secrets.token_hex(4)}",
        model=parse_model_ref(args.model),
        source=SensorRef(parse_device_id(args.device), args.input),
        period_s=period_s,
        deadline_s=default_s if args.deadline_ms is None else args.deadline_ms / 1000,
        until=_until(args, now),
        who=caller.name,
        started_at=now,
        topic=args.topic,
        qos=args.qos,
        request_class=body.request_class,
        privacy=body.privacy,
        pin=body.pin,
        prefer=body.prefer,
        stream=body.stream,
    )


def _body(args: StartStream) -> InferenceBody:
    parameters: dict[str, object] = {
        "placement": args.placement,
        "privacy": args.privacy,
        "class": args.request_class,
        **({"stream": args.stream} if args.stream else {}),
    }
    return read_body({"device": args.device, "input": args.input, "parameters": parameters})


def _until(args: StartStream, now: float) -> float | None:
    if args.until is not None and args.for_s is not None:
        raise BadRequest("until: give either until or for_s, not both")
    if args.for_s is not None:
        return now + args.for_s
    if args.until is None:
        return None
    until = (args.until if args.until.tzinfo else args.until.replace(tzinfo=UTC)).timestamp()
    if not isfinite(until) or until <= now:
        raise BadRequest(f"until: {args.until.isoformat()} is over already; the node's clock says {utc(now)}")
    return until


def _row(services: Services, order: StandingOrder, progress: Progress) -> StreamRow:
    return StreamRow(
        id=order.id,
        model=str(order.model),
        device=order.source.device,
        input=order.source.sensor,
        period_ms=order.period_s * 1000,
        deadline_ms=order.deadline_s * 1000,
        until=None if order.until is None else utc(order.until),
        topic=order.topic or services.streams.default_topic(order.id),
        who=order.who,
        started_at=utc(order.started_at),
        answered=progress.answered,
        failed=progress.failed,
        missed=progress.missed,
        failing=progress.failing,
        failure=progress.failure,
        ran_on=None if progress.ran_on is None else str(progress.ran_on),
        last_ms=progress.last_s * 1000 if progress.answered else None,
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "stream.start", "Run a model on a sensor's data again and again, until stopped", StartStream, StreamRow, start,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, Forbidden, Overloaded, UnknownDevice, UnknownModel),
    ),
    Verb("stream.list", "List the standing orders", NoArguments, StreamList, list_streams, Role.VIEWER, is_read=True),
    Verb("stream.stop", "End a standing order", StopStream, StreamRow, stop, Role.OPERATOR, errors=(BadRequest, NotFound)),
)  # fmt: skip
