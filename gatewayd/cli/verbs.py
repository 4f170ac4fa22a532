"""Renders the verb table as commands: `models.add` becomes `gatewayd models add`, its arguments become options."""

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pydantic import ValidationError

from gatewayd.api.joining import NewCredentials
from gatewayd.api.pushes import PushRow
from gatewayd.api.table import VERBS
from gatewayd.api.verb import MAX_FILE_BYTES, AnyVerb, Positional
from gatewayd.cli import dropping_tables as _dropping_tables  # noqa: F401 - it teaches `text_of` these results
from gatewayd.cli import stream_tables as _stream_tables  # noqa: F401 - likewise
from gatewayd.cli.access import access_of, add_arguments
from gatewayd.cli.client import Client, NotReachable, Refused, UsageError
from gatewayd.cli.joining_tables import credential_notes
from gatewayd.cli.progress import DONE, Screen, wait
from gatewayd.cli.tables import already_text, text_of
from gatewayd.cli.why_text import explanation_text, opinions_text

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse names this type no other way

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
text_of.register(explanation_text)
text_of.register(opinions_text)

# Keeps the verbs' arguments apart from the options of the program.
_DEST = "argument_"

# The verbs whose commands show progress until the end.
_WAITS = ("push", "pushes.watch")

# The verb whose result is better kept in a file than on a screen.
_SAVES = "devices.credentials.new"

NOUNS: Mapping[str, str] = {
    "models": "the model registry",
    "devices": "the devices",
    "devices.credentials": "what devices prove themselves with",
    "pushes": "pushes to devices",
    "keys": "the keys that sign what devices install",
    "opinions": "second opinions: a bigger model for answers that are not sure",
    "stream": "standing orders: a model on a sensor's data again and again",
    "upload": "model files in parts",
}


def add_verbs(subparsers: "Subparsers", given: Sequence[str] | None = None) -> None:
    """Add one command per verb; `run` carries out what the parser then returns.

    Only verbs that the words of `given` can mean get their arguments, whose schemas take time; None or a completion: all.
    """
    nouns: dict[str, Subparsers] = {"": subparsers}
    for verb in VERBS.values():
        noun, _, action = verb.name.rpartition(".")
        group = _group(nouns, noun)
        parser = group.add_parser(
            action, help=verb.summary, description=f"{verb.summary} (role: {verb.role.name.lower()})"
        )
        words = verb.name.split(".")
        if given is None or given[:1] == ["completion"] or given[: len(words)] == words:
            _add_verb(parser, verb)


def _group(nouns: dict[str, "Subparsers"], noun: str) -> "Subparsers":
    """Return the commands of a noun, made when it is met first: `devices.credentials` stands within `devices`."""
    if noun not in nouns:
        outer, _, name = noun.rpartition(".")
        parser = _group(nouns, outer).add_parser(name, help=NOUNS[noun])
        nouns[noun] = parser.add_subparsers(metavar="verb", required=True)
    return nouns[noun]


def run(
    args: argparse.Namespace,
    *,
    out: TextIO = sys.stdout,
    err: TextIO = sys.stderr,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Carry out a command of `add_verbs`.

    Returns: 0 done, 1 refused or failed, 2 wrong usage, 3 no daemon reachable.
    """
    verb = VERBS[args.verb]
    try:
        client = access_of(args).client()
        if verb.name == _SAVES and args.save is not None:
            return _saved(client, args, out=out)
        body = client.call(verb.name, _arguments(args, verb))
        if verb.name in _WAITS and not args.no_wait:
            return _pushed(client, body, args, out=out, err=err, sleep=sleep)
        out.write(_rendered(verb, body, is_json=args.json) + "\n")
    except (UsageError, NotReachable, Refused, ValidationError) as error:
        return _failed(err, verb, error)
    return OK


def _pushed(
    client: Client, body: bytes, args: argparse.Namespace, *, out: TextIO, err: TextIO, sleep: Callable[[float], None]
) -> int:
    # With --json the result alone goes to the output, so that a program can read it.
    begun, told = PushRow.model_validate_json(body), err if args.json else out
    if begun.already:
        told.write(already_text(begun) + "\n")
    try:
        ended = begun if begun.already and begun.ended else wait(client, begun, screen=Screen(told), sleep=sleep)
    except KeyboardInterrupt:
        err.write(
            f"\ngatewayd: push {begun.push} goes on: gatewayd pushes watch {begun.push}, or pushes cancel {begun.push}\n"
        )
        raise
    if args.json:
        out.write(ended.model_copy(update={"already": begun.already}).model_dump_json() + "\n")
    return OK if ended.state == DONE else FAILED


def _saved(client: Client, args: argparse.Namespace, *, out: TextIO) -> int:
    """Write secrets to a file of their own; nothing is asked for before the file is there to take them."""
    verb, path = VERBS[args.verb], args.save
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"--save {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            body = client.call(verb.name, _arguments(args, verb))
            file.write(body)
    except (NotReachable, Refused, UsageError):
        path.unlink()
        raise
    except OSError as error:
        path.unlink()
        raise UsageError(f"--save {path}: {error.strerror}; they were made, so make others with --replace") from error
    out.write(f"written to {path}, which only you may read\n")
    if notes := credential_notes(NewCredentials.model_validate_json(body)):
        out.write(f"{notes}\n")
    return OK


def _rendered(verb: AnyVerb, body: bytes, *, is_json: bool) -> str:
    if not is_json:
        try:
            return text_of(verb.result.model_validate_json(body))
        except ValidationError:
            pass  # another version's answer: shown as it is
    return body.decode(errors="replace")


def _failed(err: TextIO, verb: AnyVerb, error: UsageError | NotReachable | Refused | ValidationError) -> int:
    """Tell what went wrong; return the exit code."""
    match error:
        case UsageError():
            code, message = USAGE, str(error)
        case NotReachable():
            code, message = UNREACHABLE, str(error)
        case Refused():
            code, message = FAILED, f"{error.code}: {error}"
        case ValidationError():
            code, message = FAILED, f"the answer to {verb.name} cannot be read: is the daemon of another version?"
    err.write(f"gatewayd: {message}\n")
    return code


@dataclass(frozen=True, slots=True)
class _Option:
    """One argument of a verb as the command line sees it, read from the verb's JSON schema.

    `kind` is a JSON type, or `file`; `is_many` whether it is a list of these, `singular` what one of them is called.
    """

    name: str
    kind: str
    is_many: bool
    singular: str
    is_required: bool
    is_positional: bool
    help: str


def _add_verb(parser: argparse.ArgumentParser, verb: AnyVerb) -> None:
    parser.set_defaults(verb=verb.name, run=run)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    if verb.name in _WAITS:
        parser.add_argument("--no-wait", action="store_true", help="show how it stands now, and return")
    if verb.name == _SAVES:
        parser.add_argument("--save", type=Path, metavar="FILE", help="write all to a new file instead of the screen")
    for option in _options(verb):
        _add_option(parser, option)


def _add_option(parser: argparse.ArgumentParser, option: _Option) -> None:
    kinds: Mapping[str, Callable[[str], object]] = {"integer": int, "number": float, "file": Path, "object": _json}
    kind = kinds.get(option.kind, str)
    dest = _DEST + option.name
    if option.is_positional:
        parser.add_argument(
            dest, metavar=option.name, type=kind, nargs=None if option.is_required else "?", help=option.help
        )
        return
    flag = f"--{option.name.replace('_', '-')}"
    if option.kind == "boolean":
        parser.add_argument(flag, dest=dest, action="store_true", default=None, help=option.help)
        return
    metavar = "FILE" if option.kind == "file" else option.kind.upper() if option.kind == "object" else None
    if option.is_many:
        flags = dict.fromkeys([f"--{option.singular.replace('_', '-')}", flag])
        parser.add_argument(
            *flags, dest=dest, type=kind, nargs="+", action="extend", required=option.is_required,
            metavar=metavar or option.singular.upper(), help=option.help,
        )  # fmt: skip
        return
    parser.add_argument(
        flag,
        dest=dest,
        type=kind,
        required=option.is_required,
        metavar=metavar or option.name.upper(),
        help=option.help,
    )


def _options(verb: AnyVerb) -> list[_Option]:
    schema = verb.arguments.model_json_schema()
    positional = {
        field.alias or name
        for name, field in verb.arguments.model_fields.items()
        if any(isinstance(each, Positional) for each in field.metadata)
    }
    required = schema.get("required", [])
    fields: Mapping[str, Mapping[str, object]] = schema.get("properties", {})
    return [
        _Option(
            name,
            *_kind(field),
            is_required=name in required,
            is_positional=name in positional,
            # `inputs` stays `inputs` where there is an `input` too.
            singular=name if name.removesuffix("s") in fields else name.removesuffix("s"),
            help=_help(field),
        )
        for name, field in fields.items()
    ]


def _help(field: Mapping[str, object]) -> str:
    """Return what the argument is for, with the default where there is one to tell; argparse reads % as its own."""
    text, default = str(field.get("description") or _not_null(field).get("description", "")), field.get("default")
    told = f"{text} (default: {default})" if default is not False and default not in (None, "", []) else text
    return told.replace("%", "%%")


def _kind(field: Mapping[str, object]) -> tuple[str, bool]:
    """Return the JSON type (or `file`) of the field or of its elements, and whether it is a list."""
    whole = _not_null(field)
    items = whole.get("items")
    element = items if isinstance(items, dict) else whole
    kind = "file" if element.get("contentEncoding") == "base64" else str(element.get("type", "string"))
    return kind, isinstance(items, dict)


def _not_null(field: Mapping[str, object]) -> Mapping[str, object]:
    choices = field.get("anyOf")
    if not isinstance(choices, list):
        return field
    return next((each for each in choices if each.get("type") != "null"), field)


def _arguments(args: argparse.Namespace, verb: AnyVerb) -> dict[str, object]:
    given = {option.name: getattr(args, _DEST + option.name) for option in _options(verb)}
    return {name: _sent(name, value) for name, value in given.items() if value is not None}


def _sent(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_sent(name, each) for each in value]
    if not isinstance(value, Path):
        return value
    try:
        with value.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name}: {value}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(
            f"{name}: {value}: is over the limit of {MAX_FILE_BYTES} bytes; larger ones go in parts (upload begin)"
        )
    return base64.b64encode(content).decode()


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
