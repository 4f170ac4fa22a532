"""Says on the local network where this gateway is (multicast DNS service discovery). Optional: needs the package zeroconf.

Sources: RFC 6762, RFC 6763; service names of MQTT and CoAP as registered with IANA.
"""

import asyncio
import importlib.util
import logging
import socket
from collections.abc import Sequence
from dataclasses import field

from gatewayd.core.errors import NodeError
from gatewayd.core.record import record

_LOG = logging.getLogger(__name__)

_AGAIN_S = 60.0  # a network that is not there yet


@record
class Service:
    """What is announced: `kind` such as `_mqtt._tcp`, the name of this one of them, its port and what is told beside."""

    kind: str
    name: str
    port: int
    told: dict[str, str] = field(default_factory=dict)


def check_available() -> None:
    """Raises: NodeError saying what to install."""
    if importlib.util.find_spec("zeroconf") is None:
        raise NodeError(
            "mdns.enabled: needs the package zeroconf: pip install 'gatewayd[mdns]', or set mdns.enabled: false"
        )


async def advertise(services: Sequence[Service], *, host: str, addresses: Sequence[str] = ()) -> None:
    """Announce until cancelled, then say goodbye. A network that is not there is tried again; it ends nothing.

    `host` is this machine's name without `.local`, `addresses` the interfaces to announce on, by their address (none: all of
    them, with the address that this machine uses towards the network).
    """
    while True:
        try:
            await _announced(services, host=host, addresses=addresses)
        except OSError as error:
            _LOG.warning("mdns not announced", extra={"fields": {"reason": str(error)}})
        await asyncio.sleep(_AGAIN_S)


async def _announced(services: Sequence[Service], *, host: str, addresses: Sequence[str]) -> None:
    from zeroconf import InterfaceChoice, ServiceInfo  # noqa: PLC0415 - an optional package
    from zeroconf.asyncio import AsyncZeroconf  # noqa: PLC0415 - as above

    own = list(addresses) or [_towards_the_network()]
    infos = [
        ServiceInfo(
            f"{each.kind}.local.", f"{each.name}.{each.kind}.local.", port=each.port, properties=each.told,
            server=f"{host}.local.", parsed_addresses=own,
        )
        for each in services
    ]  # fmt: skip
    zeroconf = AsyncZeroconf(interfaces=list(addresses) or InterfaceChoice.All)
    try:
        for info in infos:
            # Another gateway of that name is no reason to be silent: the later one gets a number.
            await (await zeroconf.async_register_service(info, allow_name_change=True))
            _LOG.info("mdns announced", extra={"fields": {"name": info.name, "port": info.port}})
        await asyncio.Event().wait()
    finally:
        await zeroconf.async_unregister_all_services()
        await zeroconf.async_close()


def _towards_the_network() -> str:
    """Return the address this machine would use. Raises: OSError when there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # Source: RFC 5737, an address that nobody has; no packet is sent
        return str(probe.getsockname()[0])
