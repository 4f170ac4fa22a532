"""The composition root's part for devices over CoAP: the LwM2M link, and its resources beside the CoAP edge's on one port."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gatewayd.adapters.coap_context import Refused, open_context
from gatewayd.adapters.coap_dtls import DtlsOptions, dtls_on
from gatewayd.adapters.store import Store
from gatewayd.api.table import Api
from gatewayd.assembly import Core
from gatewayd.config import Config
from gatewayd.core.device import LinkKind
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.names import DeviceId
from gatewayd.daemon_keyring import Keyring
from gatewayd.edges.coap import Opener, serve_coap, serve_resources
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.interface import Bucket
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import Guard, LinkOptions, Lwm2mDeviceLink
from gatewayd.links.lwm2m.registrations import Access
from gatewayd.links.lwm2m.slot_terms import Way
from gatewayd.parts import load_profiles
from gatewayd.services.ports import DeviceLink
from gatewayd.startup import StartRefused, listening
from gatewayd.wire.lwm2m.credentials import Credential, parse_credentials


@dataclass(slots=True)
class Lwm2m:
    """The link and what carries it. `dtls` None: plain CoAP only; `dtls_port` is the one it got."""

    link: Lwm2mDeviceLink
    endpoint: CoapEndpoint
    dtls: DtlsOptions | None = None
    dtls_port: int | None = None

    def resources(self) -> dict[str, Any]:
        """Return what is served to devices, as aiocoap resources by their first path segment."""
        return {segment: Served(serve) for segment, serve in self.link.resources().items()}


_TOLD_PER_S, _TOLD_AT_ONCE = 5.0, 50.0


@dataclass(slots=True)
class Telling:
    """Where events go: forged datagrams must not fill the disk.

    What strangers send by UDP is all counted (`count`), and told (`notify`: log, topics, streams) a few times a second.
    """

    notify: Callable[[GatewayEvent], None]
    count: Callable[[GatewayEvent], None]
    _told: Bucket = field(default_factory=lambda: Bucket(_TOLD_PER_S, _TOLD_AT_ONCE, time.monotonic))

    def refused(self, where: str, code: str, message: str) -> None:
        """Take something malformed, or over a limit."""
        tell = self.notify if self._told.take() else self.count
        tell(InputRefused(where, code, message))


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


def lwm2m_parts(config: Config, store: Store, core: Core, *, telling: Telling, guard: Guard) -> Lwm2m:
    """Make the link; it serves once its resources are mounted and `link.run` runs."""
    section = config.lwm2m
    keys = Keyring(_credentials(section.credentials_file), core.credentials)
    options = LinkOptions(
        most=section.max_registrations,
        newcomers_per_s=section.newcomers_per_s,
        newcomers_burst=float(section.max_registrations),
        line=replace(LineLimits(), awake_s=section.awake_s, ack_first_s=section.ack_timeout_s),
        profiles=tuple(load_profiles(config.devices.profiles_dir).values()),
        ways=(Way.PUSH, Way.PULL) if section.transfer == "push" else (Way.PULL, Way.PUSH),
        access=Access(keys.owners(), plain=section.allows_plain(lwm2m_address(config)[0])),
    )
    endpoint = CoapEndpoint()
    link = Lwm2mDeviceLink(
        endpoint,
        store,
        options=options,
        on_event=core.device_event,
        on_refused=telling.refused,
        clock=time.monotonic,
        guard=guard,
    )
    if not keys:
        return Lwm2m(link, endpoint)
    host = lwm2m_address(config)[0]
    return Lwm2m(link, endpoint, DtlsOptions(host, section.dtls_port, keys, section.max_registrations))


def _credentials(path: Path | None) -> tuple[Credential, ...]:
    """Read the pre-shared keys. Raises: StartRefused, BadRequest naming the line."""
    if path is None:
        return ()
    try:
        return parse_credentials(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"lwm2m.credentials_file: {path} cannot be read ({error}): make it readable") from None


async def open_coap(
    config: Config, api: Api, lwm2m: Lwm2m | None, *, telling: Telling, stack: AsyncExitStack
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
            notify=telling.notify,
            beside={} if beside is None else beside.resources(),
            opener=_opener(beside, telling.refused),
        )
        ports["coap_port"] = await listening(stack, server, section="coap", host=coap.host, port=coap.port)
    if lwm2m is not None and not is_shared:
        own = serve_resources(lwm2m.resources(), host=host, port=port, opener=_opener(lwm2m, telling.refused))
        ports["lwm2m_port"] = await listening(stack, own, section="lwm2m", host=host, port=port)
    if lwm2m is not None and lwm2m.dtls_port is not None:
        ports["coaps_port"] = lwm2m.dtls_port
    return ports


def lwm2m_address(config: Config) -> tuple[str, int]:
    """Return where devices register."""
    section, coap = config.lwm2m, config.coap
    return section.host or coap.host, coap.port if section.port is None else section.port


def _opener(lwm2m: Lwm2m | None, counting: Refused) -> Opener:
    @asynccontextmanager
    async def opened(site: Any, host: str, port: int) -> AsyncIterator[Any]:  # noqa: ANN401 - aiocoap ships no types
        async with AsyncExitStack() as stack:
            context = await stack.enter_async_context(open_context(site, host=host, port=port, on_refused=counting))
            if lwm2m is not None:
                lwm2m.endpoint.opened(context)
                await _secure(lwm2m, context, counting, stack)
            yield context

    return opened


async def _secure(lwm2m: Lwm2m, context: Any, counting: Refused, stack: AsyncExitStack) -> None:  # noqa: ANN401 - as above
    """Listen with DTLS, too, where there are keys. Raises: StartRefused."""
    if lwm2m.dtls is None:
        return
    try:
        secured = dtls_on(context, lwm2m.dtls, on_refused=counting)
        lwm2m.dtls_port = await stack.enter_async_context(secured)
    except ImportError:
        raise StartRefused(
            "lwm2m.credentials_file: DTLS needs the package python-mbedtls: pip install 'gatewayd[dtls]', or set it to null"
        ) from None
    except OSError as error:
        where = f"{lwm2m.dtls.port} on {lwm2m.dtls.host}"
        raise StartRefused(f"lwm2m.dtls_port: {where} cannot be had ({error.strerror}): set another one") from None
