"""The verbs about second opinions, with what they answer."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, ModelText, Positional, RefText, Result, Role, Verb
from gatewayd.core.command import Effect
from gatewayd.core.errors import BadRequest, Conflict, NotFound, UnknownModel
from gatewayd.core.names import parse_model_name, parse_model_ref
from gatewayd.core.opinion import DEFAULT_WRONG_J, SecondOpinion


class SetOpinion(Arguments):
    """Arguments of opinions.set: answers of `model` that a device is not sure of go to `bigger` on the node.

    `wrong_cost` is what a wrong answer costs, in the unit of a placement's cost (read it as milliseconds).
    """

    model: Annotated[ModelText, Positional()]
    bigger: Annotated[
        RefText, Positional(), Field(description="the model that is asked when it is not sure: kws-large")
    ]
    wrong_cost: Annotated[
        float, Field(ge=0, le=1e9, description="what a wrong answer costs; read it as milliseconds of waiting")
    ] = DEFAULT_WRONG_J


class UnsetOpinion(Arguments):
    """Arguments of opinions.unset."""

    model: Annotated[ModelText, Positional()]


class ListOpinions(Arguments):
    """Arguments of opinions.list: none."""


class OpinionRow(Result):
    """One second opinion."""

    model: str
    bigger: str
    wrong_cost: float


class OpinionList(Result):
    """Every second opinion that is set."""

    opinions: list[OpinionRow]


async def set_opinion(services: Services, args: SetOpinion, caller: Caller) -> OpinionRow:  # noqa: ARG001 - a handler's shape
    """Have a bigger model on the node asked about answers that a device is not sure of."""
    opinion = SecondOpinion(parse_model_name(args.model), parse_model_ref(args.bigger), args.wrong_cost)
    await services.opinions.set(opinion)
    return _row(opinion)


async def unset_opinion(services: Services, args: UnsetOpinion, caller: Caller) -> OpinionList:  # noqa: ARG001 - as above
    """Ask nobody about the model's answers any more."""
    await services.opinions.unset(parse_model_name(args.model))
    return _listed(services)


async def list_opinions(services: Services, args: ListOpinions, caller: Caller) -> OpinionList:  # noqa: ARG001 - as above
    """List which models have a second opinion."""
    return _listed(services)


def _listed(services: Services) -> OpinionList:
    return OpinionList(opinions=[_row(each) for each in services.opinions.all()])


def _row(opinion: SecondOpinion) -> OpinionRow:
    return OpinionRow(model=opinion.model, bigger=str(opinion.bigger), wrong_cost=opinion.wrong_j)


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "opinions.set",
        "Ask a bigger model on the node when a device's answer is not sure enough",
        SetOpinion,
        OpinionRow,
        set_opinion,
        Role.OPERATOR,
        errors=(BadRequest, Conflict, UnknownModel),
        changes=Effect.OUTSIDE,
    ),
    Verb(
        "opinions.unset",
        "Ask nobody about a model's answers any more",
        UnsetOpinion,
        OpinionList,
        unset_opinion,
        Role.OPERATOR,
        errors=(NotFound,),
        changes=Effect.OUTSIDE,
    ),
    Verb(
        "opinions.list",
        "List which models have a second opinion",
        ListOpinions,
        OpinionList,
        list_opinions,
        Role.VIEWER,
        is_read=True,
    ),
)
