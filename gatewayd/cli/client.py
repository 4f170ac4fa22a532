"""Calls a daemon's verbs over HTTP, with the standard library only."""

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

TIMEOUT_S = 150.0  # over the longest deadline that a daemon grants by default
MAX_ANSWER_BYTES = 64 * 2**20  # protects this process from something that is no daemon
HTTP_OK = 200


class UsageError(Exception):
    """What was asked for makes no sense; the message says what to change."""


class NotReachable(Exception):
    """No daemon answered."""


class Refused(Exception):
    """The daemon answered with an error; `code` is its stable name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _UnixConnection(HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the file instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Client:
    """One daemon, by the address of its HTTP interface.

    `http://host:port` (with or without a path before /api), `https://…`, or `unix:/path/of/socket`. `token` None: none is
    sent; `tls` None: the system's authorities.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    def call(self, verb: str, arguments: Mapping[str, object]) -> bytes:
        """Call a verb and return its result in JSON.

        Raises: UsageError (the address), NotReachable, Refused.
        """
        status, body = self._post(f"/api/{verb.replace('.', '/')}", json.dumps(arguments).encode())
        if status != HTTP_OK:
            raise _refusal(status, body)
        if body[:1] != b"{":
            raise Refused("http_200", f"{self.url} answered something else than JSON; is this a gatewayd?")
        return body

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        parts = self._parts()
        connection = self._connection(parts)
        before = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        headers = {"Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request("POST", before + path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(MAX_ANSWER_BYTES)
        except (OSError, HTTPException) as error:
            why = str(error).strip() or type(error).__name__
            message = f"no gatewayd answers at {self.url}: {why}; is it running? see --url"
            raise NotReachable(message) from error
        except ValueError as error:  # a token or path that no header holds; its text is not repeated
            raise UsageError("the token or --url holds characters that HTTP does not") from error
        finally:
            connection.close()

    def _parts(self) -> SplitResult:
        try:
            return urlsplit(self.url)
        except ValueError as error:
            raise UsageError(f"--url {self.url}: {error}") from error

    def _connection(self, parts: SplitResult) -> HTTPConnection:
        try:
            port = parts.port
        except ValueError as error:
            raise UsageError(f"--url {self.url}: {error}") from error
        if parts.scheme == "unix" and parts.path:
            return _UnixConnection(parts.path)
        if parts.scheme == "https" and parts.hostname:
            return HTTPSConnection(parts.hostname, port, timeout=TIMEOUT_S, context=self.tls)
        if parts.scheme == "http" and parts.hostname:
            return HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
        raise UsageError(f"--url {self.url}: must look like http://127.0.0.1:8080 or unix:/run/gatewayd/http.sock")


def _refusal(status: int, body: bytes) -> Refused:
    try:
        document = json.loads(body)
        error = document["error"]
        if isinstance(error, str):  # the Open Inference Protocol's shape
            return Refused(str(document["code"]), error)
        return Refused(str(error["code"]), str(error["message"]))
    except (ValueError, TypeError, KeyError):
        return Refused(f"http_{status}", f"status {status} without an explanation; is this a gatewayd?")
