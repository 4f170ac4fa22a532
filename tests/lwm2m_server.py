"""The LwM2M link on a real UDP port of loopback, without a daemon around it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gatewayd.adapters.coap_context import open_context
from gatewayd.adapters.coap_dtls import DtlsOptions, dtls_on
from gatewayd.adapters.coap_oscore import OscoreAddress, OscoreSite
from gatewayd.adapters.oscore_contexts import OscoreContexts
from gatewayd.core.device import Born, DeviceEvent
from gatewayd.core.names import DeviceId
from gatewayd.core.registration import StoredPackage, StoredRegistration
from gatewayd.edges.coap import serve_resources
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.link import Guard, LinkOptions, Lwm2mDeviceLink

PATIENCE_S = 10.0


@dataclass
class FakeRows:
    """Keeps the contract of `saving.Rows` in memory."""

    registrations: dict[DeviceId, StoredRegistration] = field(default_factory=dict)
    packages: dict[tuple[DeviceId, int], StoredPackage] = field(default_factory=dict)
    saves: int = 0

    async def load_registrations(self) -> Sequence[StoredRegistration]:
        return list(self.registrations.values())

    async def save_registrations(self, saved: Sequence[StoredRegistration], ended: Sequence[DeviceId]) -> None:
        self.saves += 1
        for device in ended:
            self.registrations.pop(device, None)
        self.registrations.update({each.device: each for each in saved})

    async def load_packages(self) -> Sequence[StoredPackage]:
        return list(self.packages.values())

    async def save_package(self, package: StoredPackage) -> None:
        self.packages[package.device, package.instance] = package


@dataclass
class Server:
    """What a test sees."""

    link: Lwm2mDeviceLink
    port: int
    rows: FakeRows
    endpoint: CoapEndpoint
    dtls_port: int = 0
    events: list[DeviceEvent] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    listeners: list[Callable[[DeviceEvent], None]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def secured_address(self) -> tuple[str, int]:
        return "127.0.0.1", self.dtls_port

    def told(self, event: DeviceEvent) -> None:
        self.events.append(event)
        for listener in self.listeners:
            listener(event)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until an event makes `condition` true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def born(self, count: int = 1) -> Born:
        """Wait for the n-th birth."""

        def births() -> list[Born]:
            return [each for each in self.events if isinstance(each, Born)]

        await self.until(lambda: len(births()) >= count)
        return births()[count - 1]

    def codes(self) -> list[str]:
        return [code for _, code, _ in self.refused]


async def unguarded(work: Coroutine[object, object, None], _: Callable[[Exception], None]) -> None:
    """Let a mistake in a device's task fail the test."""
    await work


@asynccontextmanager
async def running_server(
    options: LinkOptions | None = None,
    *,
    rows: FakeRows | None = None,
    keys: Mapping[str, bytes] | None = None,
    contexts: OscoreContexts | None = None,
    guard: Guard = unguarded,
    sessions: int = 100,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Server]:
    def secured(remote: Any, identity: str) -> Any:  # noqa: ANN401 - aiocoap ships no types
        if not identity:
            return remote
        return None if contexts is None else OscoreAddress(remote, identity, contexts)

    endpoint = CoapEndpoint(secured)
    kept = FakeRows() if rows is None else rows
    servers: list[Server] = []
    dtls_ports: list[int] = []
    link = Lwm2mDeviceLink(
        endpoint,
        kept,
        options=options or LinkOptions(),
        on_event=lambda event: servers[0].told(event),  # noqa: PLW0108 - it is made below
        on_refused=lambda *what: servers[0].refused.append(what),
        clock=clock,
        guard=guard,
    )

    @asynccontextmanager
    async def opener(site: object, host: str, port: int) -> AsyncIterator[object]:
        if contexts is not None:
            site = OscoreSite(site, contexts, on_refused=lambda *what: servers[0].refused.append(what))
        async with open_context(
            site, host=host, port=port, on_refused=lambda *what: servers[0].refused.append(what)
        ) as context:
            endpoint.opened(context)
            if keys is None:
                yield context
                return
            secured = DtlsOptions("127.0.0.1", 0, keys, sessions)
            async with dtls_on(context, secured, on_refused=lambda *what: servers[0].refused.append(what)) as secure:
                dtls_ports.append(secure)
                yield context

    resources = {segment: Served(serve) for segment, serve in link.resources().items()}
    async with serve_resources(resources, host="127.0.0.1", port=0, opener=opener) as port:
        servers.append(Server(link, port, kept, endpoint, dtls_ports[0] if dtls_ports else 0))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run(), name="link")
            await asyncio.sleep(0)
            try:
                yield servers[0]
            finally:
                running.cancel()
