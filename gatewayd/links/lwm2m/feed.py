"""The bytes of one package on their way from the update engine to a device: asked for with WANT, kept until they were sent.

The engine hands out chunks as a device asks for them, so that airtime and progress are its business; here they are asked for a
little ahead of the last block, so that a device never waits for the gateway's disk. What a chunk holds is measured to the link:
about two seconds of it, so that a slow one shows progress before the engine takes it for dead.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.errors import DeviceTimeout

MOST_CHUNK_BYTES = 16_384
"""What the engine sends at most for one request (`core.push.Limits`)."""
_KEPT_CHUNKS = 3  # protects memory: 48 KB for each push; a device goes back by a block, not by a chunk
_LEAST_CHUNK_BYTES = 1024
_CHUNK_S = 2.0
_AHEAD_BLOCKS = 3
_AGAIN_S = 2.0  # the engine may have dropped a request while its budget of airtime was used up

Want = Callable[[int, int], None]
"""Asks the engine for `length` bytes of the stream from `offset`."""


@dataclass(slots=True)
class Feed:
    """A package: `prefix`, then `size_bytes` from the engine. Offsets are the package's; `want` and `put` have the engine's."""

    prefix: bytes
    size_bytes: int
    want: Want
    clock: Callable[[], float]
    furthest: int = 0
    _chunks: dict[int, bytes] = field(default_factory=dict)
    _wanted: tuple[int, float] = (-1, 0.0)
    _length: int = 4 * _LEAST_CHUNK_BYTES
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def total_bytes(self) -> int:
        """How long the package is."""
        return len(self.prefix) + self.size_bytes

    def begin(self, offset: int) -> None:
        """A transfer starts at `offset`. One that starts over asks for all again, so that the engine sees it come forward."""
        if offset == 0:
            self._chunks.clear()
            self._wanted = (-1, 0.0)

    def ahead(self, offset: int) -> None:
        """Ask for what a device will fetch first, and so tell the engine that the transfer has begun."""
        at = max(0, offset - len(self.prefix))
        if at < self.size_bytes and not self._held(at, at + 1):
            self._ask(at)

    def put(self, offset: int, content: bytes) -> None:
        """Take a chunk from the engine; one that nobody asked for is dropped."""
        if offset != self._wanted[0]:
            return
        while len(self._chunks) >= _KEPT_CHUNKS:
            del self._chunks[min(self._chunks)]
        self._chunks[offset] = content
        self._came.set()

    def again(self) -> None:
        """Ask the engine again for what is missing: it may have forgotten that it was asked."""
        offset, _ = self._wanted
        if offset >= 0 and offset not in self._chunks:
            self.want(offset, self._bounded(offset))

    async def take(self, offset: int, length: int, *, timeout_s: float) -> bytes:
        """Return `length` bytes from `offset`, fewer at the end only. Raises: DeviceTimeout when the engine is late."""
        end = min(offset + length, self.total_bytes)
        head = self.prefix[offset:end]
        at, stop = max(0, offset - len(self.prefix)), end - len(self.prefix)
        body = await self._body(at, stop, timeout_s) if stop > at else b""
        self.furthest = max(self.furthest, end)
        self._look_ahead(stop, length)
        return head + body

    async def _body(self, at: int, stop: int, timeout_s: float) -> bytes:
        found = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while at < stop:
                    part = self._held(at, stop)
                    if part:
                        found += part
                        at += len(part)
                        continue
                    self._came.clear()
                    self._ask(at)
                    await self._arrival()
        except TimeoutError:
            raise DeviceTimeout("the gateway did not hand out the package's next bytes") from None
        return bytes(found)

    async def _arrival(self) -> None:
        """Wait for a chunk, but not so long that a lost request is not repeated."""
        try:
            async with asyncio.timeout(_AGAIN_S):
                await self._came.wait()
        except TimeoutError:
            return

    def _held(self, at: int, stop: int) -> bytes:
        for start, content in self._chunks.items():
            if start <= at < start + len(content):
                return content[at - start : stop - start]
        return b""

    def _look_ahead(self, stop: int, block_bytes: int) -> None:
        """Ask for the next chunk while the last blocks of this one leave."""
        held = max((start + len(content) for start, content in self._chunks.items()), default=0)
        if 0 < held < self.size_bytes and held - stop <= _AHEAD_BLOCKS * block_bytes and self._held(stop - 1, stop):
            self._ask(held)

    def _ask(self, offset: int) -> None:
        before, asked_s = self._wanted
        now_s = self.clock()
        if before == offset and now_s - asked_s < _AGAIN_S:
            return
        if 0 <= before < offset and now_s > asked_s:
            rate = (offset - before) / (now_s - asked_s)
            self._length = int(min(MOST_CHUNK_BYTES, max(_LEAST_CHUNK_BYTES, rate * _CHUNK_S)))
        self._wanted = (offset, now_s)
        self.want(offset, self._bounded(offset))

    def _bounded(self, offset: int) -> int:
        return min(self._length, self.size_bytes - offset)
