"""The section `joining` of the config: the devices' credentials, and what they are told of the broker."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from gatewayd.config.http import Host
from gatewayd.config.types import FilePath, Section
from gatewayd.config.values import Port


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r:.60} is no IP address: name an address of this machine") from None


IpAddress = Annotated[str, AfterValidator(_ip_address)]


class Joining(Section):
    """How devices join. `folder` null: `credentials` in the data folder.

    `host` and `port` null: those of the broker as others see it.
    `mosquitto_pid_file` null: telling mosquitto of new credentials is somebody else's task.
    """

    folder: FilePath | None = None
    mosquitto_pid_file: FilePath | None = None
    host: Host | None = None
    port: Port | None = None
    ca_file: FilePath | None = None


class Mdns(Section):
    """Saying on the local network where this gateway is. `addresses` empty: on every interface."""

    enabled: bool = False
    addresses: tuple[IpAddress, ...] = Field((), max_length=16, strict=False)
