"""The HTTP edge: the verb table under /api, the Open Inference Protocol under /v2, events, metrics and health.

It admits, decodes, calls the API and encodes; meaning is elsewhere. One table of routes, one entry for every request.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from aiohttp import hdrs, web

from gatewayd import __version__
from gatewayd.api.table import Api
from gatewayd.api.verb import AnyVerb, Role
from gatewayd.core.errors import GatewayError
from gatewayd.core.events import GatewayEvent
from gatewayd.core.record import record
from gatewayd.edges.http_answers import (
    is_protocol_path,
    json_document,
    json_error,
    json_model,
    plain_error,
    unexpected_error,
)
from gatewayd.edges.http_bodies import Bodies, answer_expect
from gatewayd.edges.http_events import EventStreams
from gatewayd.edges.http_guard import Guard
from gatewayd.edges.http_inference import InferenceRoutes
from gatewayd.edges.http_openapi import openapi_document, path_of
from gatewayd.edges.http_routes import Call, Route, Routes

logger = logging.getLogger(__name__)

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
MAX_SMALL_BODY_BYTES = 2**16  # protects memory: requests about the repository are a line or two


@record
class HttpParts:
    """What the edge needs beside the API.

    `ready` tells whether requests are served; `max_body_bytes` bounds inference bodies (verbs bring their own limits);
    `body_s` is how long an unfinished body is waited for; `rouse` is called when an inference begins to be read.
    """

    guard: Guard
    events: EventStreams
    metrics_text: Callable[[], bytes]
    ready: Callable[[], bool]
    notify: Callable[[GatewayEvent], None]
    max_body_bytes: int
    body_s: float
    rouse: Callable[[], object]


class HttpEdge:
    """All routes over one API; `answer` is the entry of every request."""

    def __init__(self, api: Api, parts: HttpParts) -> None:
        self._api = api
        self._parts = parts
        self._bodies = Bodies(body_s=parts.body_s, notify=parts.notify)
        self.routes = Routes()
        for verb in api.verbs.values():
            self._add_verb(verb)
        self._add_protocol(InferenceRoutes(api, self._bodies, rouse=parts.rouse))
        self._add_own()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever happens. What nobody expected is logged with its traceback, and the daemon goes on."""
        try:
            route, names = self.routes.route(request)
            caller = self._parts.guard.admit(request, route.role)
            if hdrs.EXPECT in request.headers:
                refused = await answer_expect(request, route.limit_bytes, is_protocol=is_protocol_path(request.path))
                if refused is not None:
                    return refused
            return await route.handler(Call(request, names, caller, route.limit_bytes))
        except GatewayError as error:
            return json_error(error, is_protocol=is_protocol_path(request.path))
        except web.HTTPException as error:
            return plain_error(error, request)
        except ConnectionError:
            raise  # the peer is gone: aiohttp ends the connection
        except Exception:
            logger.exception("unexpected error in %s %s", request.method, request.path[:200])
            return unexpected_error(request)

    def _add_verb(self, verb: AnyVerb) -> None:
        self.routes.add("POST", path_of(verb), Route(partial(self._post_verb, verb), verb.role, verb.max_bytes))
        if verb.is_read:
            self.routes.add("GET", path_of(verb), Route(partial(self._get_verb, verb), verb.role))

    def _add_protocol(self, routes: InferenceRoutes) -> None:
        add = self.routes.add
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            add("POST", f"{model}/infer", Route(routes.infer, Role.OPERATOR, self._parts.max_body_bytes))
            add("GET", f"{model}/ready", Route(routes.model_ready, Role.VIEWER))
            add("GET", model, Route(routes.metadata, Role.VIEWER))
        repository = "/v2/repository"
        add("POST", f"{repository}/index", Route(routes.index, Role.VIEWER, MAX_SMALL_BODY_BYTES))
        for action, handler in (("load", routes.load), ("unload", routes.unload)):
            address = f"{repository}/models/{{model}}/{action}"
            add("POST", address, Route(handler, Role.OPERATOR, MAX_SMALL_BODY_BYTES))
        add("GET", "/v2", Route(routes.server, Role.VIEWER))
        add("GET", "/v2/health/live", Route(self._live, None))
        add("GET", "/v2/health/ready", Route(self._readiness, None))

    def _add_own(self) -> None:
        add = self.routes.add
        add("GET", "/metrics", Route(self._metrics, Role.VIEWER))
        add("GET", "/healthz", Route(self._live, None))
        add("GET", "/readyz", Route(self._readiness, None))
        add("GET", "/api/openapi.json", Route(self._description, Role.VIEWER))
        add("GET", "/api/events", Route(self._parts.events.serve, Role.VIEWER))

    async def _post_verb(self, verb: AnyVerb, call: Call) -> web.StreamResponse:
        with self._bodies.counted:
            arguments = await self._bodies.read(call)
            return json_model(await self._api.call(verb.name, arguments, call.caller))

    async def _get_verb(self, verb: AnyVerb, call: Call) -> web.StreamResponse:
        with self._bodies.counted:
            return json_model(await self._api.call(verb.name, _query(call.request), call.caller))

    async def _live(self, _: Call) -> web.StreamResponse:
        return json_document({"live": True})

    async def _readiness(self, _: Call) -> web.StreamResponse:
        is_ready = self._parts.ready()
        return json_document({"ready": is_ready}, status=200 if is_ready else 503)

    async def _metrics(self, _: Call) -> web.StreamResponse:
        return web.Response(body=self._parts.metrics_text(), headers={"Content-Type": PROMETHEUS})

    async def _description(self, _: Call) -> web.StreamResponse:
        return json_document(openapi_document(self._api.verbs, version=__version__))


def _query(request: web.BaseRequest) -> Mapping[str, object]:
    names = set(request.query)
    return {name: values[0] if len(values := request.query.getall(name)) == 1 else values for name in names}
