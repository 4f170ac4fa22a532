"""A simulated board's way to its gateway: its CoAP socket, the radio before it, and its registration."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from aiocoap import Context  # type: ignore[import-untyped]  # aiocoap ships no types

from gatewayd.sim.coap_site import DeviceSite
from gatewayd.sim.conditions import Conditions
from gatewayd.sim.log import Log
from gatewayd.sim.lwm2m_options import Lwm2mOptions
from gatewayd.sim.registration import Registration
from gatewayd.sim.relay import Link, Relay
from gatewayd.sim.standard_objects import Hooks


class Uplink:
    """One board's. `port` is its own socket's, on 127.0.0.1, once `attached` is set; `gateway` is what it asks."""

    def __init__(
        self, options: Lwm2mOptions, radio: Link | None, log: Log, conditions: Conditions | None = None
    ) -> None:
        self._options, self._radio, self._log, self._conditions = options, radio, log, conditions
        self._registration: Registration | None = None
        self._relay: Relay | None = None
        self.context: Context | None = None
        self.gateway = ""
        self.port = 0
        self.attached = asyncio.Event()

    @property
    def registration(self) -> Registration:
        """How it stays registered. Raises: RuntimeError before `open`."""
        if self._registration is None:
            raise RuntimeError("the device is not attached yet")
        return self._registration

    def hooks(self, *, reboot: Callable[[], Awaitable[None]], battery_percent: Callable[[], int | None]) -> Hooks:
        """Return what the standard objects make of it."""
        return Hooks(
            lifetime_s=lambda: self.registration.lifetime_s,
            change_lifetime=self._change_lifetime,
            update=self.update,
            reboot=reboot,
            battery_percent=battery_percent,
        )

    def update(self) -> None:
        """Send an update now."""
        self.registration.trigger()

    def _change_lifetime(self, lifetime_s: int) -> None:
        self.registration.change_lifetime(lifetime_s)

    async def open(self, site: DeviceSite) -> None:
        """Open the radio and the socket behind it."""
        options = self._options
        self.gateway = f"coap://{options.host}:{options.port}"
        if self._radio is not None:
            self.gateway = f"coap://127.0.0.1:{await self._radioed(self._radio)}"
        with held_port() as self.port:
            self.context = await Context.create_server_context(site, bind=("127.0.0.1", self.port), transports=["udp6"])
        self._registration = Registration(
            self.context,
            self.gateway,
            options.terms,
            links=site.links,
            log=self._log,
            every_s=options.update_every_s,
        )
        self.attached.set()

    async def close(self) -> None:
        """Deregister, and close what is open."""
        if self._registration is not None:
            await self._registration.leave()
        if self.context is not None:
            await self.context.shutdown()
        if self._relay is not None:
            self._relay.close()

    def rebind(self) -> None:
        """Get another address, as behind a NAT that forgot this device."""
        if self._relay is not None:
            self._relay.rebind()

    def air_bytes(self) -> int:
        """Return the bytes that were on air so far, both ways."""
        return 0 if self._relay is None else self._relay.tally.bytes_up + self._relay.tally.bytes_down

    async def _radioed(self, radio: Link) -> int:
        """Put the radio between this device and its gateway; return the port of this end."""
        options = self._options
        host = (
            options.host if _is_address(options.host) else await asyncio.to_thread(socket.gethostbyname, options.host)
        )
        self._relay = Relay(
            radio,
            loss=options.loss,
            seed=options.seed,
            upstream=(host, options.port),
            sleep_after_s=options.sleep_after_s,
            conditions=self._conditions,
        )
        return await self._relay.open()


def _is_address(host: str) -> bool:
    with suppress(OSError):
        return bool(socket.inet_aton(host))
    return False


@contextmanager
def held_port() -> Iterator[int]:
    """Hold a free UDP port of 127.0.0.1 until aiocoap has bound it, too.

    aiocoap binds with SO_REUSEPORT, so it never fails on a taken port: two boards that were told the same free one would get
    each other's messages. The kernel gives a port that nobody has only to a socket without that option, and lets aiocoap in
    beside it once it has the option.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield int(held.getsockname()[1])
