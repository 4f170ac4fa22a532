"""The watched folder on disk: which manifests are complete, and the results written beside them.

A manifest is taken when it ends as it must, was the same at the look before, and every file it names is there with the digest it
names. What is still being written is left alone; `NAME.yaml` gets its result in `NAME.result.json`.
"""

import asyncio
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from gatewayd.core.errors import BadRequest, NodeError
from gatewayd.core.names import Digest
from gatewayd.core.record import record
from gatewayd.core.source import FolderModel, ManifestFile
from gatewayd.wire.model_manifest import is_whole, parse_manifest

MAX_MANIFEST_BYTES = 128 * 1024
"""Protects memory: a model card of 64 KB and 4,096 labels fit."""

MAX_MANIFESTS = 1_000
"""Protects the loop of looks: further ones wait until results were cleared away."""

MAX_AT_ONCE = 4
"""Protects memory: models read in one look; the others follow at the next."""

PATIENCE_LOOKS = 24
"""So many looks at the same manifest may find a file missing or different until that is told as its result (2 minutes)."""

_RESULT = ".result.json"


@record
class _Seen:
    """A manifest's digest, and how many looks in a row found it."""

    digest: Digest
    looks: int


class WatchedFolder:
    """The folder `root`; `max_bytes` bounds each file."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._seen: dict[str, _Seen] = {}

    async def scan(self) -> Sequence[FolderModel]:
        """Return what is complete and has no result yet, at most `MAX_AT_ONCE`. Raises: NodeError."""
        try:
            return await asyncio.to_thread(self._scan)
        except OSError as error:
            raise NodeError(
                f"{self._root}: {error.strerror}: check that the folder is there and may be read"
            ) from error

    async def finish(self, found: FolderModel, result: Mapping[str, object]) -> None:
        """Write the result beside the manifest, whole or not at all. Raises: NodeError."""
        document = {"manifest_sha256": found.digest if found.is_final else None, **result}
        try:
            await asyncio.to_thread(_write, self._result_path(found.manifest_name), document)
        except OSError as error:
            raise NodeError(f"{self._root}: {error.strerror}: results cannot be written; check its rights") from error

    def _scan(self) -> list[FolderModel]:
        found: list[FolderModel] = []
        seen, self._seen = self._seen, {}
        for path in sorted(self._names())[:MAX_MANIFESTS]:
            content = _read(path, MAX_MANIFEST_BYTES)
            if content is None or path.name.startswith("."):
                continue
            digest = Digest(sha256(content).hexdigest())
            before = seen.get(path.name, _Seen(digest, 0))
            looks = before.looks + 1 if before.digest == digest else 1
            self._seen[path.name] = _Seen(digest, looks)
            # Two looks: a program that writes in place may pause anywhere.
            if looks > 1 and len(found) < MAX_AT_ONCE and not self._is_done(path.name, digest):
                found.extend(self._complete(path.name, digest, content, is_late=looks == PATIENCE_LOOKS + 1))
        return found

    def _names(self) -> list[Path]:
        # Not glob: it takes a folder that is gone for an empty one.
        return [self._root / name for name in os.listdir(self._root) if name.endswith(".yaml")]  # noqa: PTH208 - as said

    def _complete(self, name: str, digest: Digest, content: bytes, *, is_late: bool) -> Iterator[FolderModel]:
        try:
            text = content.decode()
            if not is_whole(text):
                if is_late:
                    problem = "the manifest does not end with a line '...': it counts as half-written until it does"
                    yield FolderModel(name, digest, None, problem=problem, is_final=False)
                return
            manifest = parse_manifest(text)
        except (BadRequest, UnicodeDecodeError) as error:
            yield FolderModel(name, digest, None, problem=str(error))
            return
        wanted = [*manifest.files, *([manifest.samples] if manifest.samples else [])]
        read = {each.name: self._file(each) for each in wanted}
        files = {name: content for name, content in read.items() if content is not None}
        missing = [each.name for each in wanted if each.name not in files]
        if not missing:
            samples = files[manifest.samples.name] if manifest.samples else b""
            yield FolderModel(name, digest, manifest, tuple(files[each.name] for each in manifest.files), samples)
        elif is_late:
            problem = f"{', '.join(missing)}: not there, larger than {self._max_bytes} bytes, or with another sha256"
            yield FolderModel(name, digest, None, problem=problem, is_final=False)

    def _file(self, wanted: ManifestFile) -> bytes | None:
        """Return the bytes once they are the ones that the manifest names; until then the file is still being written."""
        content = _read(self._root / wanted.name, self._max_bytes)
        return content if content is not None and sha256(content).hexdigest() == wanted.digest else None

    def _is_done(self, name: str, digest: Digest) -> bool:
        content = _read(self._result_path(name), MAX_MANIFEST_BYTES)
        try:
            document = json.loads(content or b"null")
        except ValueError:
            return False
        return isinstance(document, dict) and document.get("manifest_sha256") == digest

    def _result_path(self, name: str) -> Path:
        return self._root / (name.removesuffix(".yaml") + _RESULT)


def _read(path: Path, most: int) -> bytes | None:
    """Return a plain file's bytes; None when it is none, too large or gone. Links, devices and pipes are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        content = file.read(most + 1)
    return content if len(content) <= most else None


def _write(path: Path, document: Mapping[str, object]) -> None:
    fresh = path.with_name(f".{path.name}.part")
    with fresh.open("w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
