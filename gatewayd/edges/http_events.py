"""Server-sent events: what the services announce, to everyone who listens at /api/events.

A listener that does not keep up is let go rather than waited for: it comes back, and reads the state anew.
Source: HTML Living Standard, "Server-sent events".
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from gatewayd.core.errors import BadRequest, Overloaded
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.edges.http_routes import Call
from gatewayd.edges.mqtt_announcements import event_document
from gatewayd.wire.json_text import render_json

KINDS = ("push", "device", "joining", "model", "node", "request", "stream")
MAX_LISTENERS = 32  # protects memory and the loop: every event is written to each
MAX_WAITING = 256  # protects memory: events that a listener is behind before it is let go
MAX_UNSENT_BYTES = 2**18  # protects memory: what the transport may hold for a listener that does not read
KEEPALIVE_S = 15.0  # shorter than the idle time-outs of common proxies
_RETRY_MS = 2000


@dataclass(slots=True)
class _Listener:
    """`abort` ends the connection at once, also under a write that waits for the listener to read."""

    kinds: frozenset[str]
    abort: Callable[[], None]
    waiting: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    is_behind: bool = False

    def offer(self, content: bytes | None) -> None:
        """Queue an event, or None for the end; a listener whose queue is full is let go."""
        if self.waiting.full():
            self.is_behind = True
            self.abort()
        else:
            self.waiting.put_nowait(content)


class EventStreams:
    """Everyone who listens. `publish` returns at once whatever they do."""

    def __init__(self, *, keepalive_s: float = KEEPALIVE_S) -> None:
        self._keepalive_s = keepalive_s
        self._listeners: list[_Listener] = []
        self._number = 0
        self.dropped = 0

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, event: GatewayEvent) -> None:
        """Hand an event to everyone who asked for its kind; refused input is not told: it would let strangers talk."""
        if not self._listeners or isinstance(event, InputRefused):
            return
        kind, document = event_document(event)
        self._number += 1
        content = _event(kind, render_json(document), number=self._number)
        for listener in self._listeners:
            if kind in listener.kinds:
                listener.offer(content)

    def close(self) -> None:
        """End every stream."""
        for listener in self._listeners:
            listener.offer(None)

    async def serve(self, call: Call) -> web.StreamResponse:
        """Answer with events until the listener goes, or does not keep up. `kind=push,device` chooses.

        Raises: BadRequest (an unknown kind), Overloaded.
        """
        kinds, transport = _kinds(call.request), call.request.transport
        if len(self._listeners) >= MAX_LISTENERS or transport is None:
            raise Overloaded(f"{MAX_LISTENERS} listen to events already")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.force_close()
        listener = _Listener(kinds, transport.abort)
        self._listeners.append(listener)
        try:
            await response.prepare(call.request)
            await response.write(f"retry: {_RETRY_MS}\n\n".encode())
            while content := await self._next(listener):
                await response.write(content)
        finally:
            self._listeners.remove(listener)
            self.dropped += listener.is_behind
        return response

    async def _next(self, listener: _Listener) -> bytes | None:
        try:
            async with asyncio.timeout(self._keepalive_s):
                return None if listener.is_behind else await listener.waiting.get()
        except TimeoutError:
            return b": still here\n\n"


def _kinds(request: web.BaseRequest) -> frozenset[str]:
    wanted = frozenset(request.query.get("kind", ",".join(KINDS)).split(","))
    if not wanted <= frozenset(KINDS):
        raise BadRequest(f"kind: one or more of {', '.join(KINDS)}, separated by commas")
    return wanted


def _event(kind: str, document: bytes, *, number: int) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), document)
