"""The gateway's side of `bench/push.py`: the real LwM2M link on a real port, and the smallest engine that can drive a push.

The engine of the services does the same with a store, airtime and trials; here only the bytes' way counts.
"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from bench.memory_board import KEY, manifest_of
from gatewayd.adapters.coap_context import open_context
from gatewayd.core.device import Born, DeviceEvent, Profile, PushPhase, PushReport
from gatewayd.core.names import DeviceId, Digest, PushId
from gatewayd.core.push import Offer
from gatewayd.core.registration import StoredPackage, StoredRegistration
from gatewayd.edges.coap import serve_resources
from gatewayd.links.lwm2m.endpoint import CoapEndpoint, Served
from gatewayd.links.lwm2m.line import LineLimits
from gatewayd.links.lwm2m.link import LinkOptions, Lwm2mDeviceLink
from gatewayd.wire.manifest import sign_manifest

UNTUNED = LineLimits(ack_least_s=2.0, ack_first_s=2.0, ack_most_s=2.0)
"""RFC 7252's own timer, whatever is measured."""


class _NoRows:
    """Nothing survives."""

    async def load_registrations(self) -> Sequence[StoredRegistration]:
        """See `saving.Rows`."""
        return ()

    async def save_registrations(self, saved: Sequence[StoredRegistration], ended: Sequence[DeviceId]) -> None:
        """See `saving.Rows`."""

    async def load_packages(self) -> Sequence[StoredPackage]:
        """See `saving.Rows`."""
        return ()

    async def save_package(self, package: StoredPackage) -> None:
        """See `saving.Rows`."""


@dataclass(slots=True)
class _Push:
    """One push under way; `over` gets the phase it ended with."""

    content: bytes
    over: "asyncio.Future[str]"
    began_s: float = 0.0
    ended_s: float = 0.0


@dataclass
class PushGateway:
    """Pushes to devices that registered; `port` is where they do."""

    port: int = 0
    link: Lwm2mDeviceLink = field(init=False)
    _born: dict[DeviceId, asyncio.Event] = field(default_factory=dict)
    _pushes: dict[PushId, _Push] = field(default_factory=dict)
    _last: int = 0

    async def born(self, device: str) -> None:
        """Wait until the device registered and told what it is."""
        await self._born.setdefault(DeviceId(device), asyncio.Event()).wait()

    async def push(self, device: str, content: bytes) -> float:
        """Push; return the seconds from the accepted offer to the end of the last byte's way.

        Raises: RuntimeError when it ends otherwise than accepted.
        """
        loop, self._last = asyncio.get_running_loop(), self._last + 1
        push = PushId(self._last)
        manifest = manifest_of(Digest(hashlib.sha256(content).hexdigest()), len(content), version=self._last)
        going = self._pushes[push] = _Push(content, loop.create_future())
        self.link.send_offer(DeviceId(device), Offer(push, manifest, sign_manifest(manifest, KEY)))
        ended = await going.over
        if ended != PushPhase.ACCEPTED.value:
            raise RuntimeError(f"the push to {device} ended: {ended}")
        return going.ended_s - going.began_s

    def heard(self, event: DeviceEvent) -> None:
        """Take what the link tells."""
        match event:
            case Born(device=device):
                self._born.setdefault(device, asyncio.Event()).set()
            case PushReport() as report:
                self._report(report)

    def _report(self, report: PushReport) -> None:
        going = self._pushes[report.push]
        now_s = asyncio.get_running_loop().time()
        if report.phase is PushPhase.WANT:
            going.began_s = going.began_s or now_s
        else:
            going.ended_s = going.ended_s or now_s
        match report.phase:
            case PushPhase.WANT:
                content = going.content[report.offset : report.offset + report.length]
                self.link.send_chunk(report.device, report.push, offset=report.offset, content=content)
            case PushPhase.TESTED:
                self.link.send_activate(report.device, report.push)
            case PushPhase.TRIAL:
                self.link.send_accept(report.device, report.push)
            case PushPhase.ACCEPTED | PushPhase.REJECTED | PushPhase.FAILED if not going.over.done():
                is_good = report.phase is PushPhase.ACCEPTED
                going.over.set_result(report.phase.value if is_good else f"{report.phase.value}: {report.reason}")


@asynccontextmanager
async def push_gateway(
    line: LineLimits | None = None, *, profiles: tuple[Profile, ...] = ()
) -> AsyncIterator[PushGateway]:
    """Serve on a free port of 127.0.0.1."""
    gateway, endpoint = PushGateway(), CoapEndpoint()
    gateway.link = Lwm2mDeviceLink(
        endpoint,
        _NoRows(),
        options=LinkOptions(line=line or LineLimits(), profiles=profiles),
        on_event=gateway.heard,
        on_refused=_ignore,
        clock=asyncio.get_running_loop().time,
        guard=_as_it_is,
    )
    served = {segment: Served(serve) for segment, serve in gateway.link.resources().items()}

    @asynccontextmanager
    async def opener(site: object, host: str, port: int) -> AsyncIterator[object]:
        async with open_context(site, host=host, port=port) as context:
            endpoint.opened(context)
            yield context

    serving = serve_resources(served, host="127.0.0.1", port=0, opener=opener)
    async with asyncio.TaskGroup() as tasks, serving as gateway.port:
        running = tasks.create_task(gateway.link.run(), name="link")
        try:
            yield gateway
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def free_udp_port() -> int:
    """Return a UDP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ignore(where: str, code: str, message: str) -> None:
    """Nobody counts."""


def _as_it_is(work: Coroutine[object, object, None], _: Callable[[Exception], None]) -> Coroutine[object, object, None]:
    return work
