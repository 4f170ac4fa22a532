"""The composition root's part for devices over CoAP: the LwM2M link, and its resources beside the CoAP edge's on one port."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from gatewayd.adapters.coap_context import open_context
from gatewayd.adapters.store import Store
from gatewayd.api.table import Api
from gatewayd.assembly import Core
from gatewayd.config import Config
from gatewayd.core.device import LinkKind
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.names import DeviceId
from gatewayd.edges.coap import Opener, serve_coap, serve_resources
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import Guard, LinkOptions, Lwm2mDeviceLink
from gatewayd.links.lwm2m.registrations import Access
from gatewayd.links.lwm2m.slot_terms import Way
from gatewayd.parts import load_profiles
from gatewayd.services.ports import DeviceLink
from gatewayd.startup import listening


@dataclass(frozen=True, slots=True)
class Lwm2m:
    """The link and what carries it."""

    link: Lwm2mDeviceLink
    endpoint: CoapEndpoint

    def resources(self) -> dict[str, Any]:
        """Return what is served to devices, as aiocoap resources by their first path segment."""
        return {segment: Served(serve) for segment, serve in self.link.resources().items()}


@dataclass(slots=True)
class Links:
    """Every link by its kind; a device is reached by the one it was heard on last. Satisfies `Pinger`."""

    of_kind: dict[LinkKind, DeviceLink] = field(default_factory=dict)
    kind_of: Callable[[DeviceId], LinkKind] = lambda _: LinkKind.MQTT

    def of(self, device: DeviceId) -> DeviceLink:
        """Return the link that reaches a device."""
        return self.of_kind.get(self.kind_of(device), self.of_kind[LinkKind.MQTT])

    async def ping(self, device: DeviceId, *, timeout_s: float) -> float:
        """See `services.ports.Pinger`."""
        return await self.of(device).ping(device, timeout_s=timeout_s)


def lwm2m_parts(
    config: Config, store: Store, core: Core, *, notify: Callable[[GatewayEvent], None], guard: Guard
) -> Lwm2m:
    """Make the link; it serves once its resources are mounted and `link.run` runs."""
    section = config.lwm2m
    options = LinkOptions(
        most=section.max_registrations,
        newcomers_per_s=section.newcomers_per_s,
        newcomers_burst=float(section.max_registrations),
        line=replace(LineLimits(), awake_s=section.awake_s, ack_first_s=section.ack_timeout_s),
        profiles=tuple(load_profiles(config.devices.profiles_dir).values()),
        ways=(Way.PUSH, Way.PULL) if section.transfer == "push" else (Way.PULL, Way.PUSH),
        access=Access(plain=section.allows_plain(lwm2m_address(config)[0])),
    )
    endpoint = CoapEndpoint()
    link = Lwm2mDeviceLink(
        endpoint,
        store,
        options=options,
        on_event=core.device_event,
        on_refused=_counting(notify),
        clock=time.monotonic,
        guard=guard,
    )
    return Lwm2m(link, endpoint)


async def open_coap(
    config: Config, api: Api, lwm2m: Lwm2m | None, *, notify: Callable[[GatewayEvent], None], stack: AsyncExitStack
) -> dict[str, int]:
    """Listen for clients and for devices, on one port where the config gives them the same; return the ports.

    Raises: StartRefused.
    """
    coap, ports = config.coap, {}
    host, port = lwm2m_address(config)
    is_shared = coap.enabled and (host, port) == (coap.host, coap.port)
    if coap.enabled:
        beside = lwm2m if is_shared else None
        server = serve_coap(
            api,
            host=coap.host,
            port=coap.port,
            max_payload_bytes=coap.max_payload_bytes,
            notify=notify,
            beside={} if beside is None else beside.resources(),
            opener=_opener(beside, notify),
        )
        ports["coap_port"] = await listening(stack, server, section="coap", host=coap.host, port=coap.port)
    if lwm2m is not None and not is_shared:
        own = serve_resources(lwm2m.resources(), host=host, port=port, opener=_opener(lwm2m, notify))
        ports["lwm2m_port"] = await listening(stack, own, section="lwm2m", host=host, port=port)
    return ports


def lwm2m_address(config: Config) -> tuple[str, int]:
    """Return where devices register."""
    section, coap = config.lwm2m, config.coap
    return section.host or coap.host, coap.port if section.port is None else section.port


def _opener(lwm2m: Lwm2m | None, notify: Callable[[GatewayEvent], None]) -> Opener:
    @asynccontextmanager
    async def opened(site: Any, host: str, port: int) -> AsyncIterator[Any]:  # noqa: ANN401 - aiocoap ships no types
        async with open_context(site, host=host, port=port, on_refused=_counting(notify)) as context:
            if lwm2m is not None:
                lwm2m.endpoint.opened(context)
            yield context

    return opened


def _counting(notify: Callable[[GatewayEvent], None]) -> Callable[[str, str, str], None]:
    def refused(where: str, code: str, message: str) -> None:
        notify(InputRefused(where, code, message))

    return refused
