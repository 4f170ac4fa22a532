"""Packages that devices fetch: `GET /pkg/<push>/<secret>`, block by block, from any block on (Block2 with ETag and Size2).

The address cannot be guessed, and only the device it was made for gets bytes: from the host, or with the credential, that it
registered with. Its port may be another one: some clients download over a socket of their own.
Source: RFC 7959, sections 2.4 and 4.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.errors import DeviceTimeout
from gatewayd.core.names import Digest, PushId
from gatewayd.links.lwm2m.coap import DEFAULT_SIZE_EXPONENT, Block, Code, Incoming, Method, Peer, Reply
from gatewayd.links.lwm2m.feed import Feed
from gatewayd.wire.lwm2m.formats import Format

_SECRET_BYTES = 6
_ETAG_BYTES = 8
_HAND_OUT_S = 8.0  # within the 10 s in which a device that waits 2 s first repeats its question twice
_COME_LATER_S = 2
_PARTS = 3


@dataclass(slots=True)
class Fetched:
    """One package under its address."""

    feed: Feed
    digest: Digest
    size_exponent: int
    is_peer: Callable[[Peer], bool]
    progressed: Callable[[int], None]
    finished: Callable[[], None]
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(_SECRET_BYTES))

    @property
    def etag(self) -> bytes:
        """What makes a resumed download notice that it would get another package."""
        return bytes.fromhex(self.digest[: 2 * _ETAG_BYTES])


class Packages:
    """What can be fetched now. One for each push that goes that way: `pushes.max_concurrent` bounds them."""

    def __init__(self) -> None:
        self._fetched: dict[PushId, Fetched] = {}

    def offer(self, push: PushId, fetched: Fetched) -> str:
        """Put a package under an address; return the address's path."""
        self._fetched[push] = fetched
        return f"/pkg/{push}/{fetched.secret}"

    def withdraw(self, push: PushId) -> None:
        """Serve it no more."""
        self._fetched.pop(push, None)

    async def serve(self, request: Incoming) -> Reply:
        """Answer a request below `/pkg`."""
        found = self._find(request)
        if found is None:
            return Reply(Code.NOT_FOUND)
        if request.method != Method.GET:
            return Reply(Code.METHOD_NOT_ALLOWED)
        if found.etag in request.etags:
            return Reply(Code.VALID, etag=found.etag)
        block = request.block2 or Block(0, more=False, size_exponent=found.size_exponent)
        exponent = min(block.size_exponent, DEFAULT_SIZE_EXPONENT)
        start = block.number << (exponent + 4)
        if start >= found.feed.total_bytes:
            return Reply(Code.BAD_OPTION)
        return await self._block(found, start, exponent)

    async def _block(self, found: Fetched, start: int, exponent: int) -> Reply:
        size = 1 << (exponent + 4)
        found.progressed(start)
        try:
            content = await found.feed.take(start, size, timeout_s=_HAND_OUT_S)
        except DeviceTimeout:
            return Reply(Code.UNAVAILABLE, max_age_s=_COME_LATER_S)
        more = start + len(content) < found.feed.total_bytes
        if not more:
            found.finished()
        return Reply(
            Code.CONTENT,
            content,
            content_format=int(Format.OPAQUE),
            block2=Block(start // size, more, exponent),
            size2=found.feed.total_bytes if start == 0 else None,
            etag=found.etag,
        )

    def _find(self, request: Incoming) -> Fetched | None:
        if len(request.path) != _PARTS or not (request.path[1].isascii() and request.path[1].isdigit()):
            return None
        found = self._fetched.get(PushId(int(request.path[1][:10])))
        if found is None or not secrets.compare_digest(found.secret.encode(), request.path[2].encode()):
            return None
        return found if found.is_peer(request.peer) else None
