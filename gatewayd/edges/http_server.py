"""Listeners for the HTTP edge: TCP with or without TLS, and a Unix socket; bounded in connections and in patience."""

import asyncio
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gatewayd.api.table import Api
from gatewayd.core.errors import BadRequest
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.core.record import record
from gatewayd.edges.http import HttpEdge, HttpParts
from gatewayd.edges.http_answers import json_error
from gatewayd.edges.http_events import EventStreams
from gatewayd.edges.http_guard import Guard

_BACKLOG = 1024
_SHOWN = 200
_FULL_BODY = b'{"error":{"code":"overloaded","message":"too many connections; try again in a second"}}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_FULL_BODY), _FULL_BODY)
)


@record
class HttpTimeouts:
    """How long a peer may hold what it holds, in seconds.

    `head_s` bounds an idle connection and an unfinished request head, `body_s` an unfinished body; `linger_s` is how
    long the rest of a refused body is dropped so that its sender reads the answer; `shutdown_s` how long requests in
    progress may take when the daemon stops.
    """

    head_s: float = 30.0
    body_s: float = 30.0
    linger_s: float = 1.0
    shutdown_s: float = 5.0


@record
class HttpListen:
    """Where to listen. `port` 0: any free one; `tls` None: plain; `unix_socket` None: no Unix socket beside TCP.

    `max_connections` protects file descriptors, of which workers, stores and links need theirs.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    unix_socket: Path | None = None
    max_connections: int = 1000


DEFAULT_TIMEOUTS = HttpTimeouts()
SOCKET_MODE = 0o660  # the daemon's user and group may command it


def _ignore(event: GatewayEvent) -> None:
    """Nobody listens."""


@asynccontextmanager
async def serve_http(
    api: Api,
    listen: HttpListen,
    *,
    max_body_bytes: int,
    metrics_text: Callable[[], bytes],
    ready: Callable[[], bool],
    guard: Guard | None = None,
    events: EventStreams | None = None,
    notify: Callable[[GatewayEvent], None] = _ignore,
    timeouts: HttpTimeouts = DEFAULT_TIMEOUTS,
    rouse: Callable[[], object] = bool,
) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the bound TCP port (for port 0 the one the system chose).

    Raises: OSError when an address cannot be bound.
    """
    streams = events or EventStreams()
    parts = HttpParts(
        guard=guard or Guard(time.monotonic),
        events=streams,
        metrics_text=metrics_text,
        ready=ready,
        notify=notify,
        max_body_bytes=max_body_bytes,
        body_s=timeouts.body_s,
        rouse=rouse,
    )
    server = _Server(HttpEdge(api, parts), listen.max_connections, timeouts, notify)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=timeouts.shutdown_s)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port, ssl_context=listen.tls, backlog=_BACKLOG).start()
        if listen.unix_socket is not None:
            await web.SockSite(runner, _unix_listener(listen.unix_socket), backlog=_BACKLOG).start()
        port: int = runner.addresses[0][1]
        yield port
    finally:
        streams.close()
        await runner.cleanup()
        if listen.unix_socket is not None:
            listen.unix_socket.unlink(missing_ok=True)


class _Server(web.Server):
    """aiohttp's server, refusing connections past a number at once instead of failing to accept them."""

    def __init__(
        self, edge: HttpEdge, max_connections: int, timeouts: HttpTimeouts, notify: Callable[[GatewayEvent], None]
    ) -> None:
        super().__init__(edge.answer)
        self._max_connections, self._timeouts, self._notify = max_connections, timeouts, notify

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # aiohttp names its own protocol; a server takes any
        if len(self.connections) >= self._max_connections:
            return _Refusal()
        return _Connection(self, self._timeouts, self._notify)


class _Connection(web.RequestHandler):
    """aiohttp's connection, which refuses what is no HTTP as all else is refused: as JSON, counted, without a traceback."""

    __slots__ = ("_notify",)

    def __init__(self, server: _Server, timeouts: HttpTimeouts, notify: Callable[[GatewayEvent], None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own server is told that nobody logs requests
            keepalive_timeout=timeouts.head_s,
            lingering_time=timeouts.linger_s,
        )
        self._notify = notify

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read as a request; anything else aiohttp answers, and logs."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        error = BadRequest(f"no HTTP/1.1 request: {' '.join((message or exc.message).split())[:_SHOWN]}")
        self._notify(InputRefused("http", error.code, str(error)))
        response = json_error(error)
        response.force_close()
        return response


class _Refusal(asyncio.Protocol):
    """Says that there is no room, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_FULL)
            transport.close()


def _unix_listener(path: Path) -> socket.socket:
    """Bind a socket file: one that a dead daemon left is replaced, one that is answered is not. Raises: OSError."""
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_dead(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            return  # binding fails and says why
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def tls_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a server's TLS of version 1.2 or later; with `client_ca` clients must show a certificate of that authority.

    Raises: OSError (ssl.SSLError is one) when the files cannot be read or do not fit.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
