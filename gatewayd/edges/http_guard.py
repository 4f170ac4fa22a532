"""Who may come in over HTTP, and how often: bearer tokens with roles, the Host and Origin a browser sends, and rates.

Without tokens whoever reaches the listener is the operator: the daemon then listens on loopback only, or says so loudly.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from gatewayd.api.verb import Caller, Role
from gatewayd.core.errors import Forbidden, RateLimited, Unauthorized
from gatewayd.core.record import record
from gatewayd.edges.rates import Rates
from gatewayd.wire.access_tokens import AccessToken, matching_token

FAILURES_PER_S = 5.0  # guesses of tokens per peer; a token has 256 bits, so this protects the log and the loop
_SHOWN = 200
_BY_SOCKET = Caller("http:unix", Role.ADMIN)


@record
class Guard:
    """Names and admits callers. `tokens` empty: none are asked for.

    `hosts` are names under which this daemon is reached, beside addresses, `localhost` and the machine's own name: a page
    whose name an attacker points at us (DNS rebinding) does not know them. `max_per_s` 0: no limit.
    """

    clock: Callable[[], float]
    tokens: Sequence[AccessToken] = ()
    hosts: frozenset[str] = frozenset()
    max_per_s: float = 0.0
    _unasked: Callable[[str, str], Caller] = field(init=False)
    _requests: Rates = field(init=False)
    _failures: Rates = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_requests", Rates(self.max_per_s, self.clock))
        object.__setattr__(self, "_failures", Rates(FAILURES_PER_S, self.clock))
        object.__setattr__(self, "hosts", self.hosts | {"localhost", socket.gethostname().lower()})
        object.__setattr__(
            self, "_unasked", lru_cache(maxsize=256)(self._without_token)
        )  # the same few peers, over and over

    def replace_tokens(self, tokens: Sequence[AccessToken]) -> None:
        """Ask for these from the next request on."""
        object.__setattr__(self, "tokens", tuple(tokens))

    def admit(self, request: web.BaseRequest, role: Role | None) -> Caller:
        """Return who calls. `role` None: everybody may.

        Raises: Unauthorized, Forbidden, RateLimited.
        """
        _check_origin(request)
        caller = self._caller(request, is_open=role is None)
        if role is not None and caller.role < role:
            needed, has = role.name.lower(), caller.role.name.lower()
            raise Forbidden(f"this needs the role {needed}; {caller.name!r} is {has}")
        if self.max_per_s and not self._requests.take(caller.name):
            raise RateLimited(f"more than {self.max_per_s:g} requests a second from {caller.name}: slow down")
        return caller

    def _caller(self, request: web.BaseRequest, *, is_open: bool) -> Caller:
        peer = peer_of(request)
        if peer is None:  # who may open the socket is what its file says
            return _BY_SOCKET
        if not self.tokens:
            return self._unasked(peer, request.headers.get(hdrs.HOST, "localhost"))
        if is_open:
            return Caller(f"http:{peer}", Role.VIEWER)
        return self._by_token(request, peer)

    def _by_token(self, request: web.BaseRequest, peer: str) -> Caller:
        if self._failures.is_empty(peer):
            raise RateLimited(f"too many wrong tokens from {peer}: try again in a second")
        scheme, _, presented = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Unauthorized("send the header Authorization: Bearer TOKEN (gatewayd token makes one)")
        found = matching_token(self.tokens, presented.strip())
        if found is None:
            self._failures.take(peer)
            raise Unauthorized("this token is not known here")
        return Caller(found.name, Role[found.role.upper()])

    def _without_token(self, peer: str, host: str) -> Caller:
        name = host_name(host)
        if name not in self.hosts and not _is_address(name):
            raise Forbidden(f"the host {host[:_SHOWN]!r} is not ours: add it to http.hosts, or use the address")
        return Caller(f"http:{peer}", Role.ADMIN)


def peer_of(request: web.BaseRequest) -> str | None:
    """Return the caller's address; None for a Unix socket."""
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport is not None else ("gone",)
    return str(peer[0]) if isinstance(peer, tuple) and peer else None


def host_name(host: str) -> str:
    """Return the name or address in a Host header, without its port, lower case."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(request: web.BaseRequest) -> None:
    """Refuse what a page of another site makes a browser send: the operator's browser can reach a loopback listener."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Forbidden(f"requests from pages of {origin[:_SHOWN]!r} are not served")
