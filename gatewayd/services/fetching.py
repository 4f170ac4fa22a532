"""Models from addresses: each file is fetched, checked against its digest, and admitted like an uploaded one."""

import asyncio
import hashlib
from collections.abc import Sequence
from urllib.parse import urlsplit

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import Digest
from gatewayd.services.ports import Fetcher


class Fetching:
    """Fetches files by address and digest."""

    def __init__(self, fetcher: Fetcher, *, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    async def files(self, urls: Sequence[str], digests: Sequence[Digest]) -> list[bytes]:
        """Return the files' bytes, one after the other so that only one is on its way.

        Raises: BadRequest (not a digest for each address, other bytes than expected), and what the fetcher raises.
        """
        if len(urls) != len(digests):
            raise BadRequest(f"digests: {len(digests)} for {len(urls)} addresses; each needs its own")
        return [await self._file(url, digest) for url, digest in zip(urls, digests, strict=True)]

    async def _file(self, url: str, digest: Digest) -> bytes:
        content = await self._fetcher.fetch(url, max_bytes=self._max_bytes)
        got = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        if got != digest:
            raise BadRequest(f"{shown(url)}: its digest is {got}, expected was {digest}")
        return content


def shown(url: str) -> str:
    """Return the address without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"[:300]
