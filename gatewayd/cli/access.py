"""How the command line reaches a daemon: its address, the token and the authority, from options or the environment."""

import argparse
import os
import secrets
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gatewayd.cli.client import Client, UsageError
from gatewayd.core.errors import BadRequest
from gatewayd.wire.access_tokens import MAX_FILE_BYTES, ROLES, AccessToken, parse_tokens, token_of

DEFAULT_URL = "http://127.0.0.1:8080"
TOKEN_VARIABLE = "GATEWAYD_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Access:
    """Where the daemon is and with what it is asked."""

    url: str
    token: str | None = field(repr=False)
    ca_file: Path | None

    def client(self) -> Client:
        """Return the client. Raises: UsageError (the authority's file)."""
        return Client(self.url, self.token, self._tls())

    def _tls(self) -> ssl.SSLContext | None:
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.ca_file))
        except OSError as error:
            raise UsageError(f"--ca {self.ca_file}: {error.strerror or error}") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client command has. The token is no option: every user of the machine sees arguments."""
    url = os.environ.get("GATEWAYD_URL", DEFAULT_URL)
    parser.add_argument(
        "--url", default=url, help="the daemon: http(s)://host:port or unix:/path/of/socket (default: %(default)s)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        default=_path("GATEWAYD_TOKEN_FILE"),
        help=f"file with the access token (or the token itself in ${TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--ca", type=Path, default=_path("GATEWAYD_CA"), help="certificate of the authority to trust, for https"
    )


def access_of(args: argparse.Namespace) -> Access:
    """Return what the options and the environment say. Raises: UsageError."""
    return Access(args.url, _token(args.token_file), args.ca)


def add_token_command(parser: argparse.ArgumentParser) -> None:
    """Fill the command that makes a token."""
    parser.add_argument("name", help="who will have it; commands are recorded under this name")
    parser.add_argument("--role", choices=ROLES, default="operator", help="default: %(default)s")
    parser.add_argument(
        "--add-to",
        type=Path,
        metavar="FILE",
        help="add the line to the file that http.tokens_file names, made when it is missing",
    )
    parser.set_defaults(run=make_token)


def make_token(args: argparse.Namespace, *, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> int:
    """Print a new token, and on the error stream the line for http.tokens_file: the token itself is kept nowhere."""
    try:
        token, kept = token_of(args.name, args.role, secrets.token_bytes(TOKEN_BYTES))
    except BadRequest:
        err.write(f"gatewayd: {args.name!r}: a name is 1 to 63 letters, digits, '_', '.', '@' or '-'\n")
        return 2
    if args.add_to is not None:
        problem = _added(args.add_to, kept)
        if problem:
            err.write(f"gatewayd: --add-to {args.add_to}: {problem}\n")
            return 1
        out.write(f"{token}\n")
        err.write("added; it holds when gatewayd is reloaded (SIGHUP)\n")
        return 0
    out.write(f"{token}\n")
    err.write(f"add this line to http.tokens_file, then reload gatewayd (SIGHUP):\n{kept.line()}\n")
    return 0


def _added(path: Path, kept: AccessToken) -> str:
    """Add a line to the file of tokens; return what is in the way ("": nothing). One write: a reader sees it whole or not."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+") as file:
            before = file.read(MAX_FILE_BYTES + 1)
            if any(each.name == kept.name for each in parse_tokens(before)):
                return f"{kept.name} has a token there: take its line out first"
            os.write(descriptor, f"{'' if before.endswith(chr(10)) or not before else chr(10)}{kept.line()}\n".encode())
    except (OSError, BadRequest, UnicodeDecodeError) as error:
        return str(error)
    return ""


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UsageError(f"--token-file {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--token-file {path}: holds no token: {error}") from error


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
