"""The section `http` of the config: where the HTTP API listens, who may come in, and how much of it."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from gatewayd.config.types import FilePath, Seconds, Section, matched, within

_MIB = 2**20
_GIB = 2**30


def _address(text: str) -> str:
    return matched(
        text, r"[A-Za-z0-9_.:%-]{1,253}", "must be a host name or an IP address (the port is an option of its own)"
    )


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


AnyPort = Annotated[int, within(0, 65535)]
Host = Annotated[str, AfterValidator(_address)]


class HttpTls(Section):
    """TLS of the HTTP API. `client_ca_file` null: clients need no certificate."""

    cert_file: FilePath
    key_file: FilePath
    client_ca_file: FilePath | None = None


class Http(Section):
    """The HTTP API. Port 0: any free one, which the log names.

    `tokens_file` null: the systemd credential `http-tokens` where there is one. `insecure`: beyond loopback all the same.
    """

    host: Host = "127.0.0.1"
    port: AnyPort = 8080
    unix_socket: FilePath | None = None
    tls: HttpTls | None = None
    tokens_file: FilePath | None = None
    hosts: tuple[Host, ...] = Field((), max_length=32, strict=False)
    max_body_bytes: Annotated[int, within(1024, _GIB)] = 8 * _MIB
    max_connections: Annotated[int, within(8, 100_000)] = 1000
    max_requests_per_s: Annotated[float, within(0, 1e6)] = 0.0
    idle_s: Seconds = 30.0
    body_s: Seconds = 30.0
    insecure: bool = False

    @field_validator("insecure")
    @classmethod
    def _is_said_beyond_loopback(cls, insecure: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's shape
        host = info.data.get("host", "127.0.0.1")
        is_guarded = info.data.get("tls") is not None and cls.tokens_path(info.data.get("tokens_file")) is not None
        if not insecure and not is_guarded and not is_loopback(host):
            raise ValueError(
                f"http.host {host} opens the API to the network: give http.tls and http.tokens_file, or write true here"
            )
        return insecure

    @staticmethod
    def tokens_path(tokens_file: Path | None) -> Path | None:
        """Where the tokens are: the file named, or the systemd credential; None: no tokens."""
        if tokens_file is not None:
            return tokens_file
        credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), "http-tokens")
        return credential if credential.is_file() else None
