"""Which ports a config opens, and to whom: told by `--check-config` and `doctor`, obeyed by the daemon. It opens none."""

from collections.abc import Iterator
from dataclasses import dataclass

from gatewayd.config import Config


@dataclass(frozen=True, slots=True)
class Listener:
    """One port. `protocol` tcp or udp; `port` 0: any free one. `whom`: who is served there, and how they have to come."""

    host: str
    port: int
    protocol: str
    whom: str

    def __str__(self) -> str:
        place = f"[{self.host}]" if ":" in self.host else self.host
        return f"{place}:{self.port or 'any'}/{self.protocol}  {self.whom}"


def udp_address(config: Config) -> tuple[str, int] | None:
    """Return where devices come without DTLS: plain, or with OSCORE; None: nowhere."""
    section, coap = config.lwm2m, config.coap
    if not section.enabled or (section.port is None and not coap.enabled):
        return None
    return section.host or coap.host, coap.port if section.port is None else section.port


def wants_dtls(config: Config, *, has_keys: bool) -> bool:
    """Whether to listen with DTLS, given whether there is any key."""
    section = config.lwm2m
    return section.enabled and (section.dtls == "always" or (section.dtls == "auto" and has_keys))


def listeners(config: Config, *, has_dtls: bool = True) -> tuple[Listener, ...]:
    """Return what the daemon listens on with this config; `has_dtls`: whether the package for DTLS is installed."""
    return (*_tcp(config), *_udp(config, has_dtls=has_dtls))


def _tcp(config: Config) -> Iterator[Listener]:
    http = config.http
    yield Listener(http.host, http.port, "tcp", f"http: clients and operators, {'TLS' if http.tls else 'no TLS'}")
    broker = config.mqtt.embedded
    if broker.enabled:
        yield Listener("127.0.0.1", broker.port, "tcp", "mqtt.embedded: MQTT 3.1.1, no TLS")
        yield Listener("127.0.0.1", broker.port_v5, "tcp", "mqtt.embedded: MQTT 5, no TLS")


def _udp(config: Config, *, has_dtls: bool) -> Iterator[Listener]:
    coap, section, devices = config.coap, config.lwm2m, udp_address(config)
    clients = "coap: clients, unprotected"
    is_shared = coap.enabled and devices == (coap.host, coap.port)
    if coap.enabled and not is_shared:
        yield Listener(coap.host, coap.port, "udp", clients)
    if devices is not None:
        how = "unprotected or with OSCORE" if section.allows_plain(devices[0]) else "with OSCORE only"
        whom = f"lwm2m: devices, {how}"
        yield Listener(*devices, "udp", f"{clients}; {whom}" if is_shared else whom)
    if section.enabled and section.dtls != "never":
        when = "" if section.dtls == "always" else ", if there is a key for it at the start"
        lacks = "" if has_dtls else " (python-mbedtls is missing: pip install 'gatewayd[dtls]')"
        yield Listener(section.host or coap.host, section.dtls_port, "udp", f"lwm2m: devices, with DTLS{when}{lacks}")
