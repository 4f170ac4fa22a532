"""What a verb is: a name, an argument and a result schema, a handler, a role. Every edge and the CLI render these.

Arguments come as JSON bytes or as a mapping (an address's query); they are checked here, once, whatever they came by.
"""

import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from gatewayd.api.services import Services
from gatewayd.core.command import Effect, Note, Receipt
from gatewayd.core.errors import BadRequest, Forbidden, GatewayError, TooLarge
from gatewayd.core.record import record

MAX_ARGUMENTS_BYTES = 2**18  # protects the loop; verbs that take files say otherwise
MAX_FILE_BYTES = 8 * 2**20  # the largest model file; protects memory
MAX_MISTAKES = 10  # protects the answer from a list of a thousand wrong elements


T = TypeVar("T")


class Role(IntEnum):
    """What a caller may do; each role may do what the ones before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@record
class Caller:
    """Who calls: a name for the records, and what they may do.

    `receipt` is there when this call is a command that is to be obeyed once. `limited_by` names the option of the config that
    gave the role where the caller themselves have none ("": the role is theirs).
    """

    name: str
    role: Role
    receipt: Receipt | None = None
    limited_by: str = ""

    def note(self, answer: Callable[[T], "Result"]) -> Note[T] | None:
        """Return what a service writes with the effect of this call; `answer` makes the verb's result of the outcome."""
        receipt = self.receipt
        if receipt is None:
            return None
        return lambda outcome: receipt.write(answer(outcome))


# A model is built by its first use, in 1 to 5 ms: a node starts without the 100 models of verbs that nobody may call.
_WHEN_USED: Final = True


class Arguments(BaseModel):
    """Base of all argument models: unknown arguments are refused, NaN too."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=_WHEN_USED)


class Result(BaseModel):
    """Base of all result models and their rows. A client reads what it knows of a newer daemon's answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=_WHEN_USED)


@record
class Positional:
    """Marks an argument that the command line takes by position."""


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value
    if len(value) > math.ceil(MAX_FILE_BYTES / 3) * 4:
        raise ValueError(f"is over the limit of {MAX_FILE_BYTES} bytes")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is no base64: {error}") from error


def _not_bool(value: object) -> object:
    # true is 1 to Python, and nobody means it.
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not true or false")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


FileContent = Annotated[
    bytes,
    Field(min_length=1, max_length=MAX_FILE_BYTES),
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 4}),
]
"""A file's bytes; base64 in JSON. The command line knows it by its content encoding and takes a path."""

Name = Annotated[
    str,
    Field(min_length=1, max_length=63, json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9_.:-]*$"}),
]
"""A model name, alias or device id; its grammar is checked by `core.names`."""

ModelText = Annotated[Name, Field(description="a model's name, as models.list shows it")]
AliasText = Annotated[Name, Field(description="an alias of the model, such as stable or canary")]
DeviceText = Annotated[Name, Field(description="a device's id, as devices.list shows it")]

RefText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        description="kws (its stable version), kws:canary or kws@3",
        json_schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]*(:[a-z0-9][a-z0-9_-]*|@[1-9][0-9]{0,8})?$"},
    ),
]
"""`kws` (its stable version), `kws:canary` or `kws@3`."""

Number = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_not_bool)]
"""A version or push number."""

Count = Annotated[int, Field(ge=1, le=1000, description="at most so many, the newest")]
"""How many rows of a list to answer; protects the store and the answer."""

Text = Annotated[str, Field(max_length=500, description="why; kept in the records")]
"""Words for people."""

A = TypeVar("A", bound=Arguments)
R = TypeVar("R", bound=Result)


@record
class Verb(Generic[A, R]):
    """One verb. `is_read` changes nothing and may be repeated; `errors` are those its caller should expect.

    `changes` is what carrying it out changes (read it as `effect`): a verb of ROWS writes its caller's note with its rows, or
    finds its work done when it is begun anew.
    `has_secret`: the result holds a secret that is shown once, so it is never written down to answer a repetition.
    """

    name: str
    summary: str
    arguments: type[A]
    result: type[R]
    handler: Callable[[Services, A, Caller], Awaitable[R]]
    role: Role
    errors: tuple[type[GatewayError], ...] = ()
    is_read: bool = False
    max_bytes: int = MAX_ARGUMENTS_BYTES
    changes: Effect = Effect.ROWS
    has_secret: bool = False

    @property
    def effect(self) -> Effect:
        """What it changes, and with it how a repetition is told from a new command."""
        if self.is_read:
            return Effect.NOTHING
        return Effect.MEMORY if self.has_secret else self.changes

    def parse(self, arguments: bytes | Mapping[str, object]) -> A:
        """Check the arguments; no bytes at all mean none.

        Raises: BadRequest listing every mistake with its path; TooLarge.
        """
        if isinstance(arguments, bytes) and len(arguments) > self.max_bytes:
            raise TooLarge(f"{self.name}: {len(arguments)} bytes of arguments are over the limit of {self.max_bytes}")
        try:
            if isinstance(arguments, bytes):
                return self.arguments.model_validate_json(arguments or b"{}")
            return self.arguments.model_validate(arguments)
        except ValidationError as error:
            raise BadRequest(f"{self.name}: {self._mistakes(error)}") from error

    def check_role(self, caller: Caller) -> None:
        """Raises: Forbidden when the caller's role is not enough."""
        if caller.role < self.role:
            needed, has = self.role.name.lower(), caller.role.name.lower()
            option = f" ({caller.limited_by})" if caller.limited_by else ""
            raise Forbidden(f"{self.name} needs the role {needed}; {caller.name!r} is {has}{option}")

    def _mistakes(self, error: ValidationError) -> str:
        found = error.errors(include_url=False, include_input=False)
        mistakes = [self._mistake(each) for each in found if not _is_echo(each, found)]
        more = len(mistakes) - MAX_MISTAKES
        tail = [f"and {more} more"] if more > 0 else []
        return "; ".join(mistakes[:MAX_MISTAKES] + tail)

    def _mistake(self, details: ErrorDetails) -> str:
        path = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in details["loc"]).lstrip(".")
        if details["type"] == "extra_forbidden" and len(details["loc"]) == 1:
            known = ", ".join(field.alias or name for name, field in self.arguments.model_fields.items())
            return f"{path[:63]}: no such argument; known: {known or 'none'}"
        message = details["msg"].removeprefix("Value error, ")
        return f"{path[:200]}: {message}" if path else message


def _is_echo(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Whether a list is only too short because its elements were refused, which is told already."""
    path = details["loc"]
    is_inside = (other["loc"][: len(path)] == path and len(other["loc"]) > len(path) for other in found)
    return details["type"] == "too_short" and any(is_inside)


AnyVerb = Verb[Any, Any]  # the table holds verbs of every schema; each checks its own arguments
