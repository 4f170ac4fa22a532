"""The HTTP edge: the verb table under /api, the Open Inference Protocol under /v2, metrics and health.

It decodes, calls the API and encodes; meaning is elsewhere. Source of /v2: Open Inference Protocol v2, "HTTP/REST".
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from aiohttp import web

from gatewayd import __version__
from gatewayd.api.table import Api
from gatewayd.api.verb import AnyVerb, Caller, Role
from gatewayd.core.errors import BadRequest, Forbidden, GatewayError, TooLarge
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.edges.http_answers import Handler, json_bytes, json_document, json_error, json_model, render_errors
from gatewayd.edges.http_openapi import openapi_document, path_of
from gatewayd.wire.tensors import InferenceBody, decode_body, encode_result

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

# What curl -d says when nobody said anything: no content type at all.
_UNSAID = "application/x-www-form-urlencoded"
_LONG_BYTES = 2**18  # reading this much JSON takes about 2 ms; beyond it the loop is not held up


@dataclass(frozen=True, slots=True)
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


DEFAULT_TIMEOUTS = HttpTimeouts()


def _ignore(event: GatewayEvent) -> None:
    """Nobody listens."""


def everyone_is_admin(request: web.Request) -> Caller:
    """Name the caller by address. For a loopback listener without tokens: who can reach it is the operator."""
    return Caller(f"http:{request.remote}", Role.ADMIN)


class HttpEdge:
    """All routes over one API.

    `ready` tells whether requests are served; `identify` who calls and what they may do; `max_body_bytes` bounds
    inference bodies (verbs bring their own limits).
    """

    def __init__(
        self,
        api: Api,
        *,
        max_body_bytes: int,
        metrics_text: Callable[[], bytes],
        ready: Callable[[], bool],
        identify: Callable[[web.Request], Caller] = everyone_is_admin,
        notify: Callable[[GatewayEvent], None] = _ignore,
        timeouts: HttpTimeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self._api = api
        self._max_body_bytes = max_body_bytes
        self._metrics_text = metrics_text
        self._ready = ready
        self._identify = identify
        self._notify = notify
        self._timeouts = timeouts

    def application(self) -> web.Application:
        """Return the aiohttp application with every route."""
        app = web.Application(middlewares=[render_errors, refuse_other_sites])
        for verb in self._api.verbs.values():
            self._add_verb(app.router, verb)
        self._add_protocol(app.router)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._live)
        app.router.add_get("/readyz", self._readiness)
        app.router.add_get("/api/openapi.json", self._openapi)
        return app

    def _add_verb(self, router: web.UrlDispatcher, verb: AnyVerb) -> None:
        expect = partial(_continue, limit_bytes=verb.max_bytes)
        router.add_post(path_of(verb), partial(self._post_verb, verb), expect_handler=expect)
        if verb.is_read:
            router.add_get(path_of(verb), partial(self._get_verb, verb))

    def _add_protocol(self, router: web.UrlDispatcher) -> None:
        expect = partial(_continue, limit_bytes=self._max_body_bytes)
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            router.add_post(f"{model}/infer", self._infer, expect_handler=expect)
            router.add_get(f"{model}/ready", self._model_ready)
            router.add_get(model, self._metadata)
        router.add_get("/v2", self._server)
        router.add_get("/v2/health/live", self._live)
        router.add_get("/v2/health/ready", self._readiness)

    async def _post_verb(self, verb: AnyVerb, request: web.Request) -> web.Response:
        with self._counted():
            arguments = await self._body(request, verb.max_bytes)
            return json_model(await self._api.call(verb.name, arguments, self._identify(request)))

    async def _get_verb(self, verb: AnyVerb, request: web.Request) -> web.Response:
        with self._counted():
            return json_model(await self._api.call(verb.name, _query(request), self._identify(request)))

    async def _infer(self, request: web.Request) -> web.Response:
        with self._counted():
            payload = await self._body(request, self._max_body_bytes)
            body = await self._decoded(payload, request.headers.get("Content-Type"))
        try:
            return json_bytes(encode_result(await self._api.infer(_model(request), body)))
        except GatewayError as error:
            return json_error(error, request_id=body.id)

    async def _decoded(self, payload: bytes, kind: str | None) -> InferenceBody:
        decode = partial(decode_body, payload, None if kind == _UNSAID else kind, max_json_bytes=self._max_body_bytes)
        return await asyncio.to_thread(decode) if len(payload) > _LONG_BYTES else decode()

    async def _metadata(self, request: web.Request) -> web.Response:
        return json_model(self._api.metadata(_model(request)))

    async def _model_ready(self, request: web.Request) -> web.Response:
        return json_document({"name": self._api.metadata(_model(request)).name, "ready": True})

    async def _server(self, _: web.Request) -> web.Response:
        return json_document({"name": "gatewayd", "version": __version__, "extensions": []})

    async def _live(self, _: web.Request) -> web.Response:
        return json_document({"live": True})

    async def _readiness(self, _: web.Request) -> web.Response:
        is_ready = self._ready()
        return json_document({"ready": is_ready}, status=200 if is_ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics_text(), headers={"Content-Type": PROMETHEUS})

    async def _openapi(self, _: web.Request) -> web.Response:
        return json_document(openapi_document(self._api.verbs, version=__version__))

    async def _body(self, request: web.Request, limit_bytes: int) -> bytes:
        _check_length(request, limit_bytes)
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeouts.body_s):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > limit_bytes:
                        raise TooLarge(f"the body is over the limit of {limit_bytes} bytes")
        except TimeoutError as error:
            raise web.HTTPRequestTimeout from error
        return bytes(body)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Announce malformed and oversized input."""
        try:
            yield
        except (BadRequest, TooLarge) as error:
            self._notify(InputRefused("http", error.code, str(error)))
            raise


@asynccontextmanager
async def serve_http(
    api: Api,
    *,
    host: str,
    port: int,
    max_body_bytes: int,
    metrics_text: Callable[[], bytes],
    ready: Callable[[], bool],
    identify: Callable[[web.Request], Caller] = everyone_is_admin,
    notify: Callable[[GatewayEvent], None] = _ignore,
    timeouts: HttpTimeouts = DEFAULT_TIMEOUTS,
) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the bound port (for `port` 0 the one the system chose).

    Raises: OSError when the address cannot be bound.
    """
    edge = HttpEdge(
        api,
        max_body_bytes=max_body_bytes,
        metrics_text=metrics_text,
        ready=ready,
        identify=identify,
        notify=notify,
        timeouts=timeouts,
    )
    runner = web.AppRunner(
        edge.application(),
        access_log=None,
        handle_signals=False,
        keepalive_timeout=timeouts.head_s,
        lingering_time=timeouts.linger_s,
        shutdown_timeout=timeouts.shutdown_s,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@web.middleware
async def refuse_other_sites(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another site makes a browser send: the operator's browser can reach a loopback listener."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Forbidden(f"requests from pages of {origin[:200]!r} are not served")
    return await handler(request)


async def _continue(request: web.Request, *, limit_bytes: int) -> web.StreamResponse | None:
    """Answer `Expect: 100-continue`: a body over the limit is refused before it is sent."""
    try:
        _check_length(request, limit_bytes)
    except TooLarge as error:
        return json_error(error)
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def _check_length(request: web.Request, limit_bytes: int) -> None:
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(f"a body of {request.content_length} bytes is over the limit of {limit_bytes} bytes")


def _query(request: web.Request) -> Mapping[str, object]:
    names = set(request.query)
    return {name: values[0] if len(values := request.query.getall(name)) == 1 else values for name in names}


def _model(request: web.Request) -> str:
    version = request.match_info.get("version")
    return request.match_info["model"] + (f"@{version}" if version else "")
