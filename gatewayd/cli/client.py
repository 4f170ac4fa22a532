"""Calls a daemon's verbs over HTTP, with the standard library only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

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


@dataclass(frozen=True, slots=True)
class Client:
    """One daemon, by the address of its HTTP interface (`http://host:port`, with or without a path before /api)."""

    url: str

    def call(self, verb: str, arguments: Mapping[str, object]) -> bytes:
        """Call a verb and return its result in JSON.

        Raises: UsageError (the address), NotReachable, Refused.
        """
        status, body = self._post(f"/api/{verb.replace('.', '/')}", json.dumps(arguments).encode())
        if status != HTTP_OK:
            raise _refusal(status, body)
        return body

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        connection = self._connection()
        try:
            connection.request("POST", parts.path.rstrip("/") + path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(MAX_ANSWER_BYTES)
        except (OSError, HTTPException) as error:
            message = f"no gatewayd answers at {self.url}: {error or type(error).__name__}; is it running? see --url"
            raise NotReachable(message) from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        kinds: Mapping[str, type[HTTPConnection]] = {"http": HTTPConnection, "https": HTTPSConnection}
        try:
            port = parts.port
        except ValueError as error:
            raise UsageError(f"--url {self.url}: {error}") from error
        if parts.scheme not in kinds or not parts.hostname:
            raise UsageError(f"--url {self.url}: must look like http://127.0.0.1:8080")
        return kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT_S)


def _refusal(status: int, body: bytes) -> Refused:
    try:
        document = json.loads(body)
        error = document["error"]
        if isinstance(error, str):  # the Open Inference Protocol's shape
            return Refused(str(document["code"]), error)
        return Refused(str(error["code"]), str(error["message"]))
    except (ValueError, TypeError, KeyError):
        return Refused(f"http_{status}", f"status {status} without an explanation; is this a gatewayd?")
