"""The section `lwm2m` of the config: the server that devices attach to over CoAP."""

from typing import Annotated, Literal

from gatewayd.config.http import AnyPort, Host, is_loopback
from gatewayd.config.types import FilePath, Seconds, Section, within


class Lwm2m(Section):
    """The LwM2M server. `host` null: that of the CoAP edge. `port` null: that of the CoAP edge if it listens, else no UDP port.

    `plain`: devices may register without DTLS and OSCORE; on loopback they always may. `dtls` auto: when there is any key at
    the start. `transfer`: which way a package takes first to a device with our objects.
    """

    enabled: bool = True
    host: Host | None = None
    port: AnyPort | None = None
    plain: bool = False
    credentials_file: FilePath | None = None
    dtls: Literal["auto", "always", "never"] = "auto"
    dtls_port: AnyPort = 5684
    transfer: Literal["push", "pull"] = "push"
    max_registrations: Annotated[int, within(1, 10_000)] = 1000
    newcomers_per_s: Annotated[float, within(1, 10_000)] = 50.0
    awake_s: Seconds = 20.0
    ack_timeout_s: Annotated[float, within(0.1, 60)] = 2.0

    def allows_plain(self, host: str) -> bool:
        """Whether a device may register without DTLS and OSCORE at this address."""
        return self.plain or is_loopback(host)
