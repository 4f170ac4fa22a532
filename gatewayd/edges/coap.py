"""The CoAP edge: POST /infer/<model> with JSON (content-format 50), CBOR (60) or raw tensor bytes (42), answered in JSON or CBOR.

It decodes, calls the API and encodes; meaning is elsewhere. For plain asyncio: on uvloop aiocoap's udp6 goes deaf.
Sources: RFC 7252 (CoAP), RFC 7959 (block-wise transfers), RFC 6690 (`/.well-known/core`).
"""

import asyncio
import json
import logging
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any

from aiocoap import Context, Message, error, resource  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.blockwise import ContinueException, IncompleteException  # type: ignore[import-untyped]  # as above
from aiocoap.numbers import codes  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.optionnumbers import OptionNumber  # type: ignore[import-untyped]  # as above
from aiocoap.util.linkformat import Link, LinkFormat  # type: ignore[import-untyped]  # as above

from gatewayd.api.table import Api
from gatewayd.core.errors import (
    BadRequest,
    CallerError,
    Conflict,
    DeadlineExceeded,
    DeviceError,
    DeviceTimeout,
    Forbidden,
    GatewayError,
    Internal,
    NodeError,
    NoPlacement,
    NotFound,
    Overloaded,
    TooLarge,
)
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.wire.tensor_answers import encode_reply
from gatewayd.wire.tensors import CBOR, JSON, OCTETS, InferenceBody, decode_body, encode_error

logger = logging.getLogger(__name__)

CONTENT_TYPES: Mapping[int, str] = {50: JSON, 60: CBOR, 42: OCTETS}  # Source: IANA, CoAP Content-Formats
MAX_PAYLOAD_BYTES = 2**18  # aiocoap has no limit of its own
MAX_ASSEMBLIES = 16  # protects memory: uploads in parts that are kept at one time
MAX_RUNNING = 64  # protects the loop: requests served at one time

STATUS: Mapping[type[GatewayError], Any] = {
    BadRequest: codes.BAD_REQUEST,
    TooLarge: codes.REQUEST_ENTITY_TOO_LARGE,
    NotFound: codes.NOT_FOUND,
    Conflict: codes.CONFLICT,
    NoPlacement: codes.CONFLICT,
    Forbidden: codes.FORBIDDEN,
    CallerError: codes.BAD_REQUEST,
    DeviceTimeout: codes.GATEWAY_TIMEOUT,
    DeviceError: codes.BAD_GATEWAY,
    DeadlineExceeded: codes.GATEWAY_TIMEOUT,
    NodeError: codes.SERVICE_UNAVAILABLE,
    Internal: codes.INTERNAL_SERVER_ERROR,
    GatewayError: codes.INTERNAL_SERVER_ERROR,
}
"""The nearest ancestor of an error's class that stands here gives its response code (an aiocoap `Code`)."""


def _ignore(event: GatewayEvent) -> None:
    """Nobody listens."""


class Assemblies:
    """Puts Block1 uploads together, each up to `max_bytes`, at most `MAX_ASSEMBLIES` at one time.

    When full the one that waited longest is dropped, and its sender told to start again (4.08).
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: OrderedDict[object, bytearray] = OrderedDict()

    def feed_and_take(self, request: Message) -> Message:
        """Return the whole request. The name and the exceptions are what aiocoap's resources expect.

        Raises: ContinueException while blocks are missing; IncompleteException on a gap; Refused (4.13).
        """
        block = request.opt.block1
        start = block.start if block else 0
        self._check(max(start + len(request.payload), request.opt.size1 or 0))
        if block is None:
            return request
        key = (request.remote.blockwise_key, request.get_cache_key([OptionNumber.BLOCK1, OptionNumber.BLOCK2]))
        self._append(key, start, request.payload)
        if block.more:
            raise ContinueException(block)
        return request.copy(payload=bytes(self._parts.pop(key)))

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise Refused(TooLarge(f"a payload of {size} bytes is over the limit of {self._max_bytes} bytes"))

    def _append(self, key: object, start: int, payload: bytes) -> None:
        part = self._parts.pop(key, bytearray()) if start else bytearray()
        if len(part) != start:
            raise IncompleteException
        if len(self._parts) >= MAX_ASSEMBLIES:
            self._parts.popitem(last=False)
        part += payload
        self._parts[key] = part


class Refused(error.RenderableError):  # type: ignore[misc]  # aiocoap ships no types
    """An error on its way to the sender."""

    def __init__(self, cause: GatewayError, *, request_id: str | None = None) -> None:
        super().__init__(str(cause))
        self._cause = cause
        self._request_id = request_id

    def to_message(self) -> Message:
        """Return the response: the code by the error's class, a diagnostic payload in JSON."""
        code = next(STATUS[each] for each in type(self._cause).__mro__ if each in STATUS)
        message = Message(code=code, payload=encode_error(self._cause, id=self._request_id), content_format=50)
        if isinstance(self._cause, Overloaded):
            message.opt.max_age = 1  # seconds until it is worth trying again (RFC 7252, 5.9.3.4)
        return message


class InferResource(resource.Resource, resource.PathCapable):  # type: ignore[misc]  # aiocoap ships no types
    """Everything below /infer: the rest of the path names the model."""

    def __init__(
        self, api: Api, *, max_payload_bytes: int, max_running: int, notify: Callable[[GatewayEvent], None]
    ) -> None:
        super().__init__()
        # aiocoap's own assembly has neither a size limit nor one on their number.
        self._block1 = Assemblies(max_payload_bytes)
        self._max_payload_bytes = max_payload_bytes
        self._api = api
        self._notify = notify
        self._max_running = max_running
        self._running = 0

    def get_resources_as_linkheader(self) -> LinkFormat:
        """Return one link per model, for /.well-known/core."""
        return LinkFormat([Link(f"/{name}", rt="gatewayd.infer", ct="50 60 42") for name in self._api.model_names()])

    async def render_post(self, request: Message) -> Message:
        """Serve one inference. Raises: Refused; what nobody expected is logged and answered with 5.00."""
        try:
            return await self._bounded(request)
        except Refused:
            raise
        except Exception as failure:
            logger.exception("unexpected error in POST /infer/%s", "/".join(request.opt.uri_path))
            raise Refused(Internal()) from failure

    async def _bounded(self, request: Message) -> Message:
        if self._running >= self._max_running:
            raise Refused(Overloaded(f"{self._max_running} requests are being served; try again later"))
        self._running += 1
        try:
            return await self._served(request)
        finally:
            self._running -= 1

    async def _served(self, request: Message) -> Message:
        body = self._decoded(request)
        try:
            result = await self._api.infer("/".join(request.opt.uri_path), body)
        except GatewayError as failure:
            raise Refused(failure, request_id=body.id) from failure
        payload, kind = encode_reply(result, body)
        return Message(code=codes.CONTENT, payload=payload, content_format=60 if kind == CBOR else 50)

    def _decoded(self, request: Message) -> InferenceBody:
        try:
            kind = _content_type(request.opt.content_format)
            return decode_body(request.payload, kind, max_json_bytes=self._max_payload_bytes)
        except CallerError as failure:
            self._notify(InputRefused("coap", failure.code, str(failure)))
            raise Refused(failure) from failure


class _Site(resource.Site):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's site, which knows no resource for a path *and* what is below it; `whole` has those."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        super().__init__()
        self._whole = whole

    async def render_to_pipe(self, request: Any) -> None:  # noqa: ANN401 - aiocoap ships no types
        """Have the right resource answer."""
        path: tuple[str, ...] = request.request.opt.uri_path
        found = self._whole.get(path[0]) if path else None
        if found is None:
            await super().render_to_pipe(request)
        else:
            await found.render_to_pipe(request)


Opener = Callable[[Any, str, int], AbstractAsyncContextManager[Any]]
"""Opens an aiocoap server context for a site, on a host and a port."""


@asynccontextmanager
async def _open_context(site: resource.Site, host: str, port: int) -> AsyncIterator[Context]:
    context = await Context.create_server_context(site, bind=(host, port), transports=["udp6"])
    try:
        yield context
    finally:
        await asyncio.shield(context.shutdown())


@asynccontextmanager
async def serve_coap(
    api: Api,
    *,
    host: str = "127.0.0.1",
    port: int = 5683,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    max_running: int = MAX_RUNNING,
    notify: Callable[[GatewayEvent], None] = _ignore,
    beside: Mapping[str, Any] = MappingProxyType({}),
    opener: Opener = _open_context,
) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the bound UDP port (for `port` 0 a free one).

    `max_payload_bytes` bounds a whole upload, `max_running` the requests served at one time (5.03 beyond). `beside` are resources
    of others on the same port, by their first path segment; `opener` opens the context.

    Raises: OSError when the address cannot be bound.
    """
    infer = InferResource(api, max_payload_bytes=max_payload_bytes, max_running=max_running, notify=notify)
    async with serve_resources(beside, host=host, port=port, opener=opener, infer=infer) as bound:
        yield bound


@asynccontextmanager
async def serve_resources(
    whole: Mapping[str, Any],
    *,
    host: str,
    port: int,
    opener: Opener = _open_context,
    infer: InferResource | None = None,
) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the bound UDP port. `whole`: by first path segment, who serves all that begins so.

    Raises: OSError when the address cannot be bound.
    """
    site = resource_site(whole)
    if infer is not None:
        site.add_resource(["infer"], infer)
    async with AsyncExitStack() as stack:
        with _held_port(host, port) as bound:
            await stack.enter_async_context(opener(site, host, bound))
        yield bound


def resource_site(whole: Mapping[str, Any]) -> resource.Site:
    """Return a site without a port: `whole` as in `serve_resources`."""
    site = _Site(whole)
    site.add_resource([".well-known", "core"], resource.WKCResource(site.get_resources_as_linkheader, impl_info=None))
    return site


@contextmanager
def _held_port(host: str, port: int) -> Iterator[int]:
    """Hold `port`, or a free one for 0, until aiocoap has bound it, too. Raises: OSError when somebody has it.

    aiocoap cannot tell which port it was given, and shares a taken one with its owner (SO_REUSEPORT) instead of failing: half of
    the datagrams would go to each. So it is taken first without that option, which is set when nobody else can come between.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as held:
        held.bind(address)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield int(held.getsockname()[1])


def _content_type(content_format: int | None) -> str | None:
    if content_format is None:
        return None
    found = CONTENT_TYPES.get(int(content_format))
    if found is None:
        known = json.dumps(CONTENT_TYPES)
        raise BadRequest(f"content-format {int(content_format)} is not understood; known: {known}")
    return found
