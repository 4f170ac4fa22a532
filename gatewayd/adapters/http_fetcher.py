"""Files over HTTP(S): bounded in size, time and redirects, and by default never from an address inside the network.

Whoever may name an address must not make the gateway read what only the gateway can reach (the router's pages, a cloud's
metadata service): every address that a name leads to is checked at the moment of the connection, redirects included.
"""

import asyncio
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gatewayd.core.errors import BadRequest, DeadlineExceeded, NodeError, NotFound, TooLarge

MAX_REDIRECTS = 3
"""Protects from loops; a release page needs one or two."""

TIMEOUT_S = 120.0
"""For one file, redirects included."""

_CHUNK_BYTES = 65536
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({404, 410})


class LocalAddress(OSError):
    """A name leads to an address that is not allowed."""


class HttpFetcher:
    """Fetches files. `allow_local` lets it reach loopback, private and link-local addresses too."""

    def __init__(self, *, allow_local: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self._allow_local = allow_local
        self._timeout_s = timeout_s

    async def fetch(self, url: str, *, max_bytes: int) -> bytes:
        """Return the file's bytes.

        Raises: BadRequest (no http or https, an address that is not allowed, too many redirects), NotFound, TooLarge,
        DeadlineExceeded, NodeError.
        """
        # The authorities as they are now: the daemon keeps none, and who renews them need not restart it.
        trusting = await asyncio.to_thread(ssl.create_default_context)
        resolver = _Resolver(allow_local=self._allow_local)
        connector = aiohttp.TCPConnector(resolver=resolver, force_close=True, ssl=trusting)
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                # A compressed answer could unpack to gigabytes: none is asked for, and none is unpacked.
                aiohttp.ClientSession(
                    connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
                    headers={"Accept-Encoding": "identity"},
                ) as session,
            ):  # fmt: skip
                return await self._follow(session, url, max_bytes)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{_host(url)} did not deliver the file within {self._timeout_s:g} s") from error
        except LocalAddress as error:
            raise BadRequest(str(error)) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, LocalAddress):
                raise BadRequest(str(error.os_error)) from error
            raise NodeError(f"{_host(url)} cannot be reached: {error.os_error.strerror or error.os_error}") from error
        except aiohttp.ClientError as error:
            raise NodeError(f"{_host(url)}: {error or type(error).__name__}") from error

    async def _follow(self, session: aiohttp.ClientSession, url: str, max_bytes: int) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url)
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await _content(response, max_bytes)
                url = urljoin(url, response.headers.get("Location", ""))
        raise BadRequest(f"more than {MAX_REDIRECTS} redirects, the last to {_host(url)}: name the file's own address")

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise BadRequest(f"{url[:80]!r} is no address: {error}") from error
        if parts.scheme not in {"http", "https"} or not host:
            raise BadRequest(f"{url[:80]!r}: only http and https addresses are fetched")
        # A literal address never reaches the resolver.
        if not self._allow_local and (literal := _literal(host)) is not None:
            _check_public(literal, host)


class _Resolver(AbstractResolver):
    """Names to addresses; raises when one of them is not allowed, whichever would be tried."""

    def __init__(self, *, allow_local: bool) -> None:
        self._allow_local = allow_local
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Called by aiohttp for every connection to a name."""
        found = await self._resolver.resolve(host, port, family)
        if not self._allow_local:
            for each in found:
                _check_public(ip_address(each["host"].partition("%")[0]), host)
        return found

    async def close(self) -> None:
        """Called by aiohttp."""
        await self._resolver.close()


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _check_public(address: IPv4Address | IPv6Address, host: str) -> None:
    inner = getattr(address, "ipv4_mapped", None) or address
    if not inner.is_global or inner.is_multicast:
        raise LocalAddress(f"{host} is the local address {address}: allow it with sources.allow_local_addresses")


async def _content(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    host = response.url.host
    if response.status in _ABSENT:
        raise NotFound(f"{host} has no such file (status {response.status})")
    if response.status != _OK:
        raise NodeError(f"{host} answered with status {response.status}")
    if (response.content_length or 0) > max_bytes:
        raise TooLarge(
            f"the file has {response.content_length} bytes, the limit is {max_bytes} (limits.max_model_bytes)"
        )
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise TooLarge(f"the file has more than {max_bytes} bytes (limits.max_model_bytes)")
    return bytes(content)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the address"
    except ValueError:
        return "the address"
