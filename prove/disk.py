"""A disk as POSIX promises it: what was not synced may be gone after a power cut, or there, or there in part.

Reads what `recorder.c` wrote down. Data of a file is durable when the file was synced; a name (created, renamed, unlinked, made)
when its directory was. Nothing else is.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath

_HEAD = struct.Struct("<cQQII")
Pending = tuple[str, int | None]


class Loss(Enum):
    """What a power cut leaves of what was not synced."""

    NOTHING = "all of it is there"
    EVERYTHING = "none of it is there"
    DATA = "names are there, data is not"
    NAMES = "data is there, names are not"
    TORN = "all of it but half of the last write"
    SOME = "some of it, by chance"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that was done to a file below the root; `path` is relative to it."""

    kind: str
    inode: int
    number: int
    path: str
    data: bytes


@dataclass(slots=True)
class File:
    """A file's bytes: those that are durable, and what was done to them since."""

    durable: bytes = b""
    since: list[tuple[str, int, bytes]] = field(default_factory=list)

    def content(self, changes: "list[tuple[str, int, bytes]]") -> bytes:
        """Return the durable bytes with these changes."""
        found = bytearray(self.durable)
        for kind, number, data in changes:
            if kind == "T":
                del found[number:]
                found.extend(bytes(number - len(found)))
            else:
                found.extend(bytes(max(0, number - len(found))))
                found[number : number + len(data)] = data
        return bytes(found)


@dataclass(slots=True)
class Disk:
    """All files and names. A name leads to a file's key, or to None when it is a directory."""

    files: dict[int, File] = field(default_factory=dict)
    names: dict[str, int | None] = field(default_factory=dict)
    durable_names: dict[str, int | None] = field(default_factory=dict)
    keys: dict[int, int] = field(default_factory=dict)
    last: int | None = None

    def do(self, operation: Operation) -> None:
        """Let an operation happen."""
        path = operation.path
        match operation.kind:
            case "C":
                key = len(self.files)
                self.files[key], self.keys[operation.inode], self.names[path] = File(), key, key
            case "M":
                self.names[path] = None
            case "W" | "T":
                self.last = self.keys[operation.inode]
                self.files[self.last].since.append((operation.kind, operation.number, operation.data))
            case "R":
                self.names[operation.data.decode()] = self.names.pop(path)
            case "U":
                self.names.pop(path)
            case _:
                self._sync(operation)

    def after_a_cut(self, loss: Loss, generator: random.Random) -> dict[str, bytes | None]:
        """Return what is there when the power is back: path → bytes, None for a directory."""
        names = self.durable_names if loss in {Loss.EVERYTHING, Loss.NAMES} else self.names
        if loss is Loss.SOME:
            names = self._some_names(generator)
        whole = {path for path in names if all(str(parent) in names for parent in PurePosixPath(path).parents[:-1])}
        return {path: self._left(names[path], loss, generator) for path in whole}

    def _sync(self, operation: Operation) -> None:
        if operation.inode in self.keys:
            file = self.files[self.keys[operation.inode]]
            file.durable, file.since = file.content(file.since), []
            return
        here = operation.path
        for path in self.names.keys() | self.durable_names.keys():
            if str(PurePosixPath(path).parent) == here:
                if path in self.names:
                    self.durable_names[path] = self.names[path]
                else:
                    del self.durable_names[path]

    def _left(self, key: int | None, loss: Loss, generator: random.Random) -> bytes | None:
        if key is None:
            return None
        file = self.files[key]
        changes = list(file.since)
        if loss in {Loss.EVERYTHING, Loss.DATA}:
            changes = []
        elif loss is Loss.SOME:
            changes = [change for change in changes if generator.random() < 0.5]  # noqa: PLR2004 - half
        elif loss is Loss.TORN and key == self.last and changes:
            kind, number, data = changes[-1]
            changes[-1] = (kind, number, data[: len(data) // 2])
        return file.content(changes)

    def _some_names(self, generator: random.Random) -> dict[str, int | None]:
        """Each directory is as it was synced or as it is now."""
        folders = sorted({str(PurePosixPath(path).parent) for path in self.names.keys() | self.durable_names.keys()})
        newer = {folder for folder in folders if generator.random() < 0.5}  # noqa: PLR2004 - half
        found = {path: key for path, key in self.names.items() if str(PurePosixPath(path).parent) in newer}
        return found | {p: key for p, key in self.durable_names.items() if str(PurePosixPath(p).parent) not in newer}


def read_log(log: Path, root: Path) -> Iterator[Operation]:
    """Yield what was recorded; paths become relative to `root`, which is `.`."""
    content, at = log.read_bytes(), 0
    while at < len(content):
        kind, inode, number, path_length, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        path = _relative(content[at : at + path_length].decode(), root)
        data = content[at + path_length : at + path_length + length]
        at += path_length + length
        if kind == b"R":
            data = _relative(data.decode(), root).encode()
        yield Operation(kind.decode(), inode, number, path, data)


def _relative(path: str, root: Path) -> str:
    return str(PurePosixPath(path.removesuffix(" (deleted)")).relative_to(root))
