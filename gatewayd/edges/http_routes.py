"""Which handler answers which method and address: exact addresses in a dictionary, those with names in them by pattern.

aiohttp's own application (router, middlewares, signals) costs a tenth of a small request; this table costs a hundredth.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field

from aiohttp import web

from gatewayd.api.verb import Caller, Role
from gatewayd.core.record import record

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]

MAX_PATH_CHARS = 1024  # protects the patterns, the messages and what is remembered
_MOST_SEEN = 256


@record
class Route:
    """A handler; `role` is what its caller must have (None: everybody); `limit_bytes` bounds the body."""

    handler: Handler
    role: Role | None
    limit_bytes: int = 0


@record
class Call:
    """One request on its way to a handler: what was named in its address, and who calls."""

    request: web.BaseRequest
    names: Mapping[str, str]
    caller: Caller
    limit_bytes: int

    @property
    def model(self) -> str:
        """What the address names: `kws`, `kws:canary` or `kws@3`."""
        version = self.names.get("version")
        return f"{self.names['model']}@{version}" if version else self.names["model"]


@record
class Routes:
    """The table. `add` before serving, `route` for every request."""

    _exact: dict[str, dict[str, Route]] = field(default_factory=dict)
    _patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = field(default_factory=list)
    _seen: dict[tuple[str, str], tuple[Route, Mapping[str, str]]] = field(default_factory=dict)

    def add(self, method: str, address: str, route: Route) -> None:
        """Add a route; `{name}` in the address stands for any text without a slash. HEAD comes with GET."""
        methods = self._methods(address)
        methods[method] = route
        if method == "GET":
            methods["HEAD"] = route

    def route(self, request: web.BaseRequest) -> tuple[Route, Mapping[str, str]]:
        """Return what `find` does; what was asked before by the same words is remembered. Raises: as `find`."""
        asked = (request.method, request.raw_path)
        found = self._seen.get(asked)
        if found is None:
            found = self.find(request.method, request.path)
            if len(request.raw_path) <= MAX_PATH_CHARS:
                if len(self._seen) >= _MOST_SEEN:
                    self._seen.clear()
                self._seen[asked] = found
        return found

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """Return the route and what the address names.

        Raises: aiohttp's HTTPNotFound or HTTPMethodNotAllowed.
        """
        methods = self._exact.get(path)
        names: Mapping[str, str] = {}
        if methods is None:
            methods, names = self._matching(path)
        route = methods.get(method)
        if route is None:
            raise web.HTTPMethodNotAllowed(method, sorted(methods))
        return route, names

    def _matching(self, path: str) -> tuple[dict[str, Route], Mapping[str, str]]:
        if len(path) <= MAX_PATH_CHARS:
            for pattern, methods in self._patterns:
                found = pattern.fullmatch(path)
                if found is not None:
                    return methods, found.groupdict()
        raise web.HTTPNotFound

    def _methods(self, address: str) -> dict[str, Route]:
        if "{" not in address:
            return self._exact.setdefault(address, {})
        pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(address)))
        for known, methods in self._patterns:
            if known == pattern:
                return methods
        self._patterns.append((pattern, {}))
        return self._patterns[-1][1]
