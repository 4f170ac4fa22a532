"""Content-addressed bytes on disk: `root/ab/abcdef…`, named by SHA-256, written once and never changed.

A file under its final name is whole and durable: bytes are written beside it, synced and renamed, then the directory is
synced. All disk work runs on threads of its own; a put that syncs does not hold up the chunk reads of a push.
"""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from gatewayd.core.errors import BadRequest, NodeError, NotFound, TooLarge
from gatewayd.core.names import Digest, parse_digest

T = TypeVar("T")

MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
"""Protects memory and disk: an artifact is held whole while it is stored."""

_LEFTOVER = ".part"
_NAME = re.compile(r"[0-9a-f]{64}")
_THREADS = 2  # one may wait for a sync while the other reads


class Artifacts:
    """The artifacts below `root`. Obtain it from `open_artifacts`."""

    def __init__(self, root: Path, *, max_bytes: int, executor: ThreadPoolExecutor) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._executor = executor

    async def put(self, content: bytes, *, expected: Digest | None = None) -> Digest:
        """Store durably before returning; the same bytes are stored once, and a damaged file of that name is replaced.

        Raises: TooLarge; BadRequest when the bytes' digest is not the `expected` one; NodeError when the disk refuses.
        """
        if len(content) > self._max_bytes:
            raise TooLarge(f"the artifact has {len(content)} bytes, the limit is {self._max_bytes}")
        return await self._off_loop(lambda: self._put(content, expected))

    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset`; fewer at the end, none past it.

        Raises: NotFound; BadRequest when offset or length is negative or the digest is none; NodeError.
        """
        if offset < 0 or length < 0:
            raise BadRequest(f"offset {offset} and length {length} must not be negative")
        path = self.path(digest)
        return await self._off_loop(lambda: _read(path, digest, offset, min(length, self._max_bytes)))

    async def size(self, digest: Digest) -> int:
        """Return the artifact's size in bytes. Raises: NotFound, BadRequest, NodeError."""
        path = self.path(digest)
        return await self._off_loop(lambda: _size(path, digest))

    async def has(self, digest: Digest) -> bool:
        """Tell whether the artifact is stored. Raises: BadRequest, NodeError."""
        path = self.path(digest)
        return await self._off_loop(path.is_file)

    async def digests(self) -> Mapping[Digest, int]:
        """Return every artifact with its size in bytes."""
        return await self._off_loop(lambda: _listed(self._root))

    async def remove(self, digest: Digest) -> None:
        """Remove the artifact; none is no error. After a power cut it may be there again. Raises: BadRequest, NodeError."""
        path = self.path(digest)
        await self._off_loop(lambda: _remove(path))

    def path(self, digest: Digest) -> Path:
        """Return where the artifact is, or would be; for those who hand a file to a process.

        Raises: BadRequest when `digest` is none.
        """
        name = parse_digest(digest)
        return self._root / name[:2] / name

    def _put(self, content: bytes, expected: Digest | None) -> Digest:
        digest = Digest(sha256(content).hexdigest())
        if expected is not None and digest != expected:
            raise BadRequest(f"the bytes' digest is {digest}, expected was {expected}: fetch them again")
        path = self.path(digest)
        if not _holds(path, content):
            path.parent.mkdir(exist_ok=True)
            _write(path, content)
        # Also for a file that was there: who renamed it may not have come to this yet.
        _sync_directory(path.parent)
        _sync_directory(self._root)
        return digest

    async def _off_loop(self, work: Callable[[], T]) -> T:
        with _disk_errors(self._root):
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)


@asynccontextmanager
async def open_artifacts(root: Path, *, max_bytes: int = MAX_ARTIFACT_BYTES) -> AsyncIterator[Artifacts]:
    """Create `root` where it is missing, remove what interrupted writes left, and yield the artifacts.

    Raises: NodeError when the directory cannot be used.
    """
    executor = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="artifacts")
    try:
        with _disk_errors(root):
            await asyncio.get_running_loop().run_in_executor(executor, _prepare, root)
        yield Artifacts(root, max_bytes=max_bytes, executor=executor)
    finally:
        executor.shutdown(wait=False)


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NodeError(f"artifact directory {root}: {error}: check its rights and the free space") from error


def _prepare(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    _sync_directory(root.parent)
    for leftover in root.glob(f"??/*{_LEFTOVER}"):
        leftover.unlink(missing_ok=True)


def _listed(root: Path) -> dict[Digest, int]:
    # Names that are no digests are not ours; a folder may hold what its owner put there.
    found = (
        path for path in root.glob("??/*") if _NAME.fullmatch(path.name) and path.name.startswith(path.parent.name)
    )
    return {Digest(path.name): path.stat().st_size for path in found if path.is_file()}


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        _sync_directory(path.parent)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(suffix=_LEFTOVER, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - a name, not a Path, is what mkstemp gives
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108 - as above
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, digest: Digest, offset: int, length: int) -> bytes:
    with _known(digest), path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _size(path: Path, digest: Digest) -> int:
    with _known(digest):
        return path.stat().st_size


@contextmanager
def _known(digest: Digest) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"no artifact {digest}") from error
