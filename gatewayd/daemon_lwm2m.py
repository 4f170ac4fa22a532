"""The composition root's part for devices over CoAP: the LwM2M link, and its resources beside the CoAP edge's on one port."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gatewayd.adapters.coap_context import Refused, open_context, open_without_port
from gatewayd.adapters.coap_dtls import DtlsOptions, dtls_on
from gatewayd.adapters.coap_oscore import OscoreAddress, OscoreSite
from gatewayd.adapters.credentials import CredentialFiles
from gatewayd.adapters.oscore_contexts import OscoreContexts, open_contexts
from gatewayd.adapters.store import Store
from gatewayd.api.doors import Doors
from gatewayd.api.table import Api
from gatewayd.assembly import Core
from gatewayd.config import Config
from gatewayd.core.device import LinkKind
from gatewayd.core.errors import NotStored
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.names import DeviceId
from gatewayd.daemon_keyring import Keyring
from gatewayd.edges.coap import Opener, resource_site, serve_coap, serve_resources
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.interface import Bucket
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import Guard, LinkOptions, Lwm2mDeviceLink
from gatewayd.links.lwm2m.registrations import Access
from gatewayd.links.lwm2m.slot_terms import Way
from gatewayd.listeners import udp_address, wants_dtls
from gatewayd.parts import load_profiles
from gatewayd.services.ports import DeviceLink
from gatewayd.startup import StartRefused, listening
from gatewayd.wire.lwm2m.credentials import Credential, parse_credentials

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Lwm2m:
    """The link and what carries it. `dtls` None: no DTLS; `dtls_port` is the one it got.

    `needs_dtls`: rather do not start than do without it.
    """

    link: Lwm2mDeviceLink
    endpoint: CoapEndpoint
    oscore: "Oscore"
    dtls: DtlsOptions | None = None
    needs_dtls: bool = False
    dtls_port: int | None = None
    doors: Doors = field(default_factory=Doors)

    async def load(self, stack: AsyncExitStack) -> None:
        """Read what OSCORE has to know before the first message, and write it at the end, after the last one."""
        self.oscore.contexts = await open_contexts(self.oscore.keys, self.oscore.rows)
        stack.push_async_callback(self.oscore.save)

    def protected(self, site: Any, counting: Refused) -> Any:  # noqa: ANN401 - aiocoap ships no types
        """Return a site that opens what OSCORE protects, too."""
        contexts = self.oscore.contexts
        return site if contexts is None else OscoreSite(site, contexts, on_refused=counting)

    def gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        """Return what is shown to Prometheus, with its text."""
        quarantine = self.link.quarantine
        return {
            "gatewayd_lwm2m_registrations": ("Registered devices.", self.link.registered_count),
            "gatewayd_lwm2m_task_failures": ("Tasks of devices that failed by mistake.", lambda: quarantine.failures),
            "gatewayd_lwm2m_quarantined_devices": ("Devices kept out for that.", lambda: len(quarantine)),
        }

    def resources(self) -> dict[str, Any]:
        """Return what is served to devices, as aiocoap resources by their first path segment."""
        return {segment: Served(serve) for segment, serve in self.link.resources().items()}


@dataclass(slots=True)
class Oscore:
    """The contexts of OSCORE, once they are read."""

    keys: CredentialFiles
    rows: Store
    contexts: OscoreContexts | None = None

    def secured(self, remote: Any, identity: str) -> Any:  # noqa: ANN401 - aiocoap ships no types
        """See `endpoint.Resolve`: after a restart a device with OSCORE is spoken to where it was heard last."""
        if not identity:
            return remote
        if self.contexts is None or self.contexts.of_identity(identity) is None:
            return None
        return OscoreAddress(remote, identity, self.contexts)

    async def save(self) -> None:
        """Write the numbers at the end; what the disk refuses costs each device one proof that its messages are new."""
        if self.contexts is None:
            return
        try:
            await self.contexts.save()
        except NotStored as error:
            logger.warning("oscore numbers not stored", extra={"fields": {"reason": str(error)}})


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
    section, address = config.lwm2m, udp_address(config)
    keys = Keyring(_credentials(section.credentials_file), core.credentials)
    options = LinkOptions(
        most=section.max_registrations,
        newcomers_per_s=section.newcomers_per_s,
        newcomers_burst=float(section.max_registrations),
        line=replace(LineLimits(), awake_s=section.awake_s, ack_first_s=section.ack_timeout_s),
        profiles=tuple(load_profiles(config.devices.profiles_dir).values()),
        ways=(Way.PUSH, Way.PULL) if section.transfer == "push" else (Way.PULL, Way.PUSH),
        access=Access(keys.owners(), plain=address is not None and section.allows_plain(address[0])),
    )
    oscore = Oscore(core.credentials, store)
    endpoint = CoapEndpoint(oscore.secured)
    link = Lwm2mDeviceLink(
        endpoint,
        store,
        options=options,
        on_event=core.device_event,
        on_refused=telling.refused,
        clock=time.monotonic,
        guard=guard,
    )
    made = Lwm2m(link, endpoint, oscore, doors=core.services.doors)
    if wants_dtls(config, has_keys=bool(keys)):
        host = section.host or config.coap.host
        made.dtls = DtlsOptions(host, section.dtls_port, keys, section.max_registrations)
        made.needs_dtls = section.dtls == "always"
    return made


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
    address = udp_address(config)
    is_shared = coap.enabled and address == (coap.host, coap.port)
    if lwm2m is not None:
        await lwm2m.load(stack)
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
        ports |= await _open_own(lwm2m, address, telling, stack)
    if lwm2m is not None and lwm2m.dtls_port is not None:
        ports["coaps_port"] = lwm2m.dtls_port
    return ports


async def _open_own(
    lwm2m: Lwm2m, address: tuple[str, int] | None, telling: Telling, stack: AsyncExitStack
) -> dict[str, int]:
    """Listen for devices alone. Raises: StartRefused."""
    if address is not None:
        host, port = address
        own = serve_resources(lwm2m.resources(), host=host, port=port, opener=_opener(lwm2m, telling.refused))
        return {"lwm2m_port": await listening(stack, own, section="lwm2m", host=host, port=port)}
    if lwm2m.dtls is None:
        logger.warning(
            "lwm2m listens nowhere: coap is off, lwm2m.port is null and there is no key for DTLS: set lwm2m.port"
        )
    site = lwm2m.protected(resource_site(lwm2m.resources()), telling.refused)
    context = await stack.enter_async_context(open_without_port(site))
    lwm2m.endpoint.opened(context)
    await _secure(lwm2m, context, telling.refused, stack)
    return {}


def _opener(lwm2m: Lwm2m | None, counting: Refused) -> Opener:
    @asynccontextmanager
    async def opened(site: Any, host: str, port: int) -> AsyncIterator[Any]:  # noqa: ANN401 - aiocoap ships no types
        async with AsyncExitStack() as stack:
            served = site if lwm2m is None else lwm2m.protected(site, counting)
            context = await stack.enter_async_context(open_context(served, host=host, port=port, on_refused=counting))
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
        lwm2m.doors.psk = ""
    except ImportError:
        # Keys are made for devices that never use them: a gateway must not stay down over the first one.
        missing = "lwm2m.dtls: DTLS needs the package python-mbedtls: pip install 'gatewayd[dtls]', or set lwm2m.dtls to never"
        if lwm2m.needs_dtls:
            raise StartRefused(missing) from None
        lwm2m.doors.psk = missing
        logger.warning("no DTLS: devices with a key stay out; %s", missing)
    except OSError as error:
        where = f"{lwm2m.dtls.port} on {lwm2m.dtls.host}"
        raise StartRefused(f"lwm2m.dtls_port: {where} cannot be had ({error.strerror}): set another one") from None
