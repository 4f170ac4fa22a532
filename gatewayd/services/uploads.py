"""Files that arrive in parts, for protocols whose messages are smaller than a model: begin, parts in order, end.

Kept in memory until a `models.add` takes them or they expire; nothing of a half-sent file is ever admitted.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.errors import BadRequest, Conflict, NotFound, TooLarge
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.services.ports import Clock

MAX_UPLOADS = 8
"""Protects memory together with the size of a model: uploads at once, ended but not yet used ones included."""

EXPIRES_S = 300.0
"""Protects memory from who went away; counted from the last part."""

_TICK_S = 10.0


@dataclass(slots=True)
class _Upload:
    size_bytes: int
    digest: Digest
    expires_s: float
    content: bytearray = field(default_factory=bytearray)
    is_whole: bool = False


@record
class UploadState:
    """An upload as its sender sees it: `received` of `size_bytes` are here; `whole` says that the digest was right."""

    upload: str
    received: int
    size_bytes: int
    digest: Digest
    whole: bool


class Uploads:
    """The uploads on their way. Memory grows with the bytes that came, never with what was announced."""

    def __init__(self, *, clock: Clock, new_id: Callable[[], str], max_bytes: int) -> None:
        self._clock = clock
        self._new_id = new_id
        self._max_bytes = max_bytes
        self._uploads: dict[str, _Upload] = {}

    def begin(self, *, size_bytes: int, digest: Digest) -> UploadState:
        """Announce a file. Raises: TooLarge; Conflict when too many are on their way: one has to end first."""
        self._expire()
        if size_bytes > self._max_bytes:
            raise TooLarge(f"size: {size_bytes} bytes are over the limit of {self._max_bytes} (limits.max_model_bytes)")
        if len(self._uploads) >= MAX_UPLOADS:
            raise Conflict(
                f"{MAX_UPLOADS} uploads are on their way: end one, or wait until one expires ({EXPIRES_S:g} s)"
            )
        upload = self._new_id()
        self._uploads[upload] = _Upload(size_bytes, digest, self._clock() + EXPIRES_S)
        return self._state(upload)

    def part(self, upload: str, *, offset: int, content: bytes) -> UploadState:
        """Take the next bytes; a part that came already (a redelivered message) changes nothing.

        Raises: NotFound; Conflict naming the offset that is due; TooLarge past the announced size.
        """
        found = self._of(upload)
        received = len(found.content)
        if offset + len(content) > found.size_bytes:
            raise TooLarge(f"offset {offset} and {len(content)} bytes are past the announced {found.size_bytes}")
        if offset + len(content) <= received and found.content[offset : offset + len(content)] == content:
            return self._state(upload)
        if offset != received:
            raise Conflict(f"upload {upload}: the part at {received} is due, not the one at {offset}")
        found.content += content
        found.expires_s = self._clock() + EXPIRES_S
        return self._state(upload)

    async def end(self, upload: str) -> UploadState:
        """Check size and digest. Raises: NotFound; Conflict when bytes are missing; BadRequest on another digest."""
        found = self._of(upload)
        if len(found.content) != found.size_bytes:
            missing = found.size_bytes - len(found.content)
            raise Conflict(f"upload {upload}: {missing} bytes are missing; the part at {len(found.content)} is due")
        got = await asyncio.to_thread(lambda: hashlib.sha256(found.content).hexdigest())
        if got != found.digest:
            self._uploads.pop(upload, None)
            raise BadRequest(f"upload {upload}: the digest is {got}, announced was {found.digest}: send it again")
        found.is_whole = True
        found.expires_s = self._clock() + EXPIRES_S
        return self._state(upload)

    def cancel(self, upload: str) -> None:
        """Forget it; an unknown one is no error."""
        self._uploads.pop(upload, None)

    def content(self, upload: str) -> bytes:
        """Return the bytes of an ended upload. Raises: NotFound; Conflict when it was not ended."""
        found = self._of(upload)
        if not found.is_whole:
            raise Conflict(f"upload {upload} has not ended: send the rest, then upload.end")
        return bytes(found.content)

    async def run(self) -> None:
        """Drop what expired, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._expire()

    def _of(self, upload: str) -> _Upload:
        self._expire()
        found = self._uploads.get(upload)
        if found is None:
            raise NotFound(f"no upload {upload!r}: it expired after {EXPIRES_S:g} s without a part, or never began")
        return found

    def _expire(self) -> None:
        now_s = self._clock()
        for upload in [name for name, each in self._uploads.items() if each.expires_s <= now_s]:
            del self._uploads[upload]

    def _state(self, upload: str) -> UploadState:
        found = self._uploads[upload]
        return UploadState(upload, len(found.content), found.size_bytes, found.digest, found.is_whole)
