"""A command as its sender named it, and what is remembered of it so that it is obeyed once.

The record of a command is written in the transaction of its effect: both are there, or neither is.
"""

import hashlib
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

from gatewayd.core.errors import GatewayError
from gatewayd.core.record import record

T = TypeVar("T")

MAX_ANSWER_BYTES = 64 * 1024
"""Protects the database: a longer answer is not remembered word for word."""


class Effect(Enum):
    """What carrying a verb out changes, and with it how a repetition is told from a new command.

    NOTHING: a question; it is answered again. ROWS: rows of the database; the record is part of their transaction. MEMORY:
    what a restart forgets anyhow; the record is forgotten with it. OUTSIDE: files or the like; the record stands before and
    is completed after, and what a crash leaves in between is never tried again.
    """

    NOTHING = "nothing"
    ROWS = "rows"
    MEMORY = "memory"
    OUTSIDE = "outside"


@record
class Record:
    """What is known of a command. `key` is who named it how, `body` what it says, both SHA-256; `at` is wall time.

    `answer` None: it was begun, and nobody saw its end. `tries` is how often it was begun.
    """

    key: bytes
    body: bytes
    verb: str
    answer: bytes | None
    at: float
    tries: int = 0


@record
class CommandId:
    """A command that its sender gave a name: repeated under that name, it is the same command."""

    key: bytes
    body: bytes
    verb: str


Note = Callable[[T], Record]
"""Makes the record that goes with an outcome; whoever is given one writes its record together with the outcome's rows."""


def command_id(*, reply_topic: str, name: bytes, verb: str, payload: bytes) -> CommandId:
    """Identify a command. `name` is its correlation data or its id, unique among those answered at `reply_topic`."""
    return CommandId(
        key=_digest(reply_topic.encode(), name),
        body=_digest(verb.encode(), hashlib.sha256(payload).digest()),
        verb=verb,
    )


def _digest(*parts: bytes) -> bytes:
    # Each part with its length, so that no two lists of parts give the same bytes.
    return hashlib.sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()


class Receipt:
    """Goes with a command while it is carried out, and makes its record when the outcome is known.

    `encode` turns the verb's result into the answer that is sent; `record` is None until the record was made.
    """

    def __init__(self, command: CommandId, *, at: float, encode: Callable[[object], bytes]) -> None:
        self._command = command
        self._at = at
        self._encode = encode
        self.record: Record | None = None

    def write(self, result: object) -> Record:
        """Return the record of a command whose answer is `result`."""
        self.record = answered(self._command, self._encode(result), at=self._at)
        return self.record


def answered(command: CommandId, answer: bytes, *, at: float) -> Record:
    """Return the record of a command that has its answer."""
    kept = answer if len(answer) <= MAX_ANSWER_BYTES else b""
    return Record(command.key, command.body, command.verb, kept, at)


@record
class Work:
    """How to carry a command out. `run` returns its answer, and given a receipt may write the record with the effect.

    `encode` makes an answer of the verb's result, `refusal` of an error.
    """

    run: Callable[[Receipt], Awaitable[bytes]]
    encode: Callable[[object], bytes]
    refusal: Callable[[GatewayError], bytes]


@record
class Obeyed:
    """The answer to a command. `is_repeated`: it was carried out before, and the answer is empty if it was too long to keep."""

    answer: bytes
    is_repeated: bool = False
    is_refused: bool = False
