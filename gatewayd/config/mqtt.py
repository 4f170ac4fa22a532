"""The section `mqtt`: the broker, who we are there, and what we take from there."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from gatewayd.config.http import Host
from gatewayd.config.types import FilePath, Section, within
from gatewayd.config.values import Port, Version, reply_prefix, topic

_MIB = 2**20


class Tls(Section):
    """TLS towards the broker. `ca_file` null: the system's authorities."""

    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    @field_validator("key_file")
    @classmethod
    def _belongs_to_the_certificate(cls, key_file: Path | None, info: ValidationInfo) -> Path | None:
        if "cert_file" in info.data and (key_file is None) != (info.data["cert_file"] is None):
            raise ValueError("goes with cert_file: give both, or neither")
        return key_file


class Embedded(Section):
    """The broker that gatewayd can bring along. Loopback only; a port for each protocol version."""

    enabled: bool = False
    port: Port = 1883
    port_v5: Port = 1884

    @field_validator("port_v5")
    @classmethod
    def _differs(cls, port_v5: int, info: ValidationInfo) -> int:
        if port_v5 == info.data.get("port"):
            raise ValueError(f"{port_v5} is mqtt.embedded.port too: the two protocol versions need a port each")
        return port_v5


class Commands(Section):
    """What is obeyed over MQTT: verbs that need a higher role than this are refused, whoever sends them."""

    role: Literal["viewer", "operator", "admin"] = "admin"


class Mqtt(Section):
    """The broker and who we are there. `tls` null: none."""

    host: Host = "127.0.0.1"
    port: Port = 1883
    version: Version = "auto"
    prefix: Annotated[str, AfterValidator(topic)] = "gatewayd"
    username: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    password_file: FilePath | None = None
    keepalive_s: Annotated[int, within(5, 3600)] = 30
    max_payload_bytes: Annotated[int, within(1024, 64 * _MIB)] = _MIB
    max_requests_per_s: Annotated[float, within(0, 1_000_000)] = 0.0
    websocket_path: Annotated[str, Field(pattern="^/[!-~]*$", max_length=255)] | None = None
    reconnect_max_s: Annotated[float, within(0.1, 3600)] = 1.5
    session_expiry_s: Annotated[int, within(0, 7 * 86_400)] = 3600
    commands_kept: Annotated[int, within(1000, 1_000_000)] = 10_000
    commands_kept_days: Annotated[float, within(1, 365)] = 7.0
    reply_prefixes: tuple[Annotated[str, AfterValidator(reply_prefix)], ...] = Field(
        ("gatewayd-reply/", "reply/"), max_length=32, strict=False
    )
    commands: Commands = Commands()
    tls: Tls | None = None
    embedded: Embedded = Embedded()

    @field_validator("password_file")
    @classmethod
    def _has_a_user(cls, password_file: Path | None, info: ValidationInfo) -> Path | None:
        if password_file is not None and info.data.get("username", "") is None:
            raise ValueError("needs mqtt.username: MQTT knows no password without a user")
        return password_file

    @field_validator("reply_prefixes")
    @classmethod
    def _are_not_ours(cls, prefixes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        own = f"{info.data.get('prefix', '')}/"
        for prefix in prefixes:
            if own != "/" and (prefix.startswith(own) or own.startswith(prefix)):
                raise ValueError(f"{prefix!r} overlaps with mqtt.prefix: replies could then command devices")
        return prefixes

    @field_validator("embedded")
    @classmethod
    def _is_without_tls(cls, embedded: Embedded, info: ValidationInfo) -> Embedded:
        if embedded.enabled and info.data.get("tls") is not None:
            raise ValueError("enabled goes without mqtt.tls: the embedded broker is reached over loopback only")
        return embedded
