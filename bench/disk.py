"""A disk that is cut off: the file operations of a process, recorded by strace, and what a power cut after any of them leaves.

What was written and not synced may be there or not, in whole or in part, and so may names that were made, changed or removed
since their directory was synced. Memory-mapped files are not seen; of SQLite that is the -shm file, which is rebuilt anyway.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

CALLS = (
    "openat,open,creat,write,writev,pwrite64,pwritev,ftruncate,truncate,fsync,fdatasync,sync_file_range,rename,renameat,"
    "renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,fallocate,copy_file_range,sendfile"
)
HANDLED = frozenset({
    "openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "unlink", "mkdir"
})  # fmt: skip

_LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?P<after>.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that may change the disk: `path` and, for a rename, `target`; content with its offset (None: at the end)."""

    name: str
    path: str
    target: str = ""
    content: bytes = b""
    offset: int | None = None
    truncates: bool = False


def record(command: Sequence[str], log: Path, *, cwd: Path) -> None:
    """Run a program and record what it does. Raises: RuntimeError when strace is missing, or it or the program fails."""
    strace = shutil.which("strace")
    if strace is None:
        raise RuntimeError("strace is not installed (Debian: apt install strace)")
    line = [strace, "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-o", str(log), *command]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the recorded program failed: {done.stderr[-2000:]}")


def operations(log: Path, root: Path) -> list[Operation]:
    """Return the successful operations below `root`, in the order they ended.

    Raises: RuntimeError on a call that this model does not know: what it did would be missed.
    """
    return [each for line in _joined(log) if (each := _operation(line, str(root))) is not None]


def _joined(log: Path) -> Iterator[str]:
    """Yield whole calls: with several threads strace tells of begin and end apart."""
    begun: dict[str, str] = {}
    with log.open() as file:
        for line in file:
            found = _LINE.match(line.rstrip("\n"))
            if found is None:
                continue
            pid, rest = found["pid"], found["rest"]
            if rest.endswith("<unfinished ...>"):
                begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
                continue
            resumed = _RESUMED.match(rest)
            yield begun.pop(pid, "") + resumed["rest"] if resumed else rest


def _operation(line: str, root: str) -> Operation | None:  # noqa: PLR0911 - one for each call
    found = _CALL.match(line)
    if found is None or int(found["result"]) < 0:
        return None
    name, arguments = found["name"], found["arguments"]
    texts = [_plain(text) for text in _TEXT.findall(arguments)]
    file = _FILE.match(arguments)
    path = _plain(file[1]).decode() if file else (texts[0].decode(errors="replace") if texts else "")
    if not path.startswith(root) or path.endswith("-shm") or (file and file[2]):
        return None
    if name not in HANDLED:
        raise RuntimeError(f"{name} on {path} is not known to the model of the disk")
    match name:
        case "openat":
            if "O_CREAT" not in arguments:
                return None
            return Operation("create", path, truncates="O_TRUNC" in arguments)
        case "write" | "pwrite64":
            offset = int(arguments.rpartition(", ")[2]) if name == "pwrite64" else None
            return Operation("write", path, content=texts[0][: int(found["result"])], offset=offset)
        case "ftruncate":
            return Operation("truncate", path, offset=int(arguments.rpartition(", ")[2]))
        case "fsync" | "fdatasync":
            return Operation("sync", path)
        case "rename":
            return Operation("rename", path, target=texts[1].decode())
        case _:
            return Operation(name, path)


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class _Inode:
    """A file's bytes: as last synced, and what was done since."""

    synced: bytes = b""
    pending: list[Operation] = field(default_factory=list)
    now: bytes = b""

    def do(self, operation: Operation) -> None:
        self.pending.append(operation)
        self.now = _changed(self.now, operation)

    def sync(self) -> None:
        self.synced, self.pending = self.now, []


@dataclass(slots=True)
class Disk:
    """The files below one directory. Names lead to inodes; a directory's name leads to None."""

    names: dict[str, _Inode | None] = field(default_factory=dict)
    synced_names: dict[str, _Inode | None] = field(default_factory=dict)
    pending_names: list[tuple[str, str, _Inode | None]] = field(default_factory=list)

    def do(self, operation: Operation) -> None:  # noqa: C901 - one case for each operation
        """Carry out one operation."""
        path, inode = operation.path, self.names.get(operation.path)
        match operation.name:
            case "mkdir":
                self._name("make", path, None)
            case "create":
                if inode is None:
                    inode = _Inode()
                    self._name("make", path, inode)
                elif operation.truncates:
                    inode.do(Operation("truncate", path, offset=0))
            case "write" | "truncate":
                if inode is not None:
                    inode.do(operation)
            case "rename":
                self._name("make", operation.target, inode)
                self._name("drop", path, None)
            case "unlink":
                self._name("drop", path, None)
            case "sync" if inode is not None:
                inode.sync()
            case "sync":
                self._sync_directory(path)

    def after_cut(self, kind: str, random: Random) -> dict[str, bytes | None]:
        """Return what is there after a power cut.

        `kind` is kept (all), dropped (only what was synced), names (names, but not their content) or torn (some of it).
        """
        names, content = self._survivors(kind, random)
        found: dict[str, bytes | None] = {}
        for path, inode in sorted(names.items()):
            parent = path.rpartition("/")[0]
            is_there = parent in found or not any(parent.startswith(each) for each in self.names)
            if is_there:
                found[path] = None if inode is None else content(inode)
        return found

    def _survivors(self, kind: str, random: Random) -> tuple[dict[str, _Inode | None], Callable[[_Inode], bytes]]:
        match kind:
            case "kept":
                return self.names, lambda inode: inode.now
            case "dropped":
                return self.synced_names, lambda inode: inode.synced
            case "names":
                return self.names, lambda inode: inode.synced
            case _:
                return self._some_names(random), lambda inode: _torn(inode, random)

    def _some_names(self, random: Random) -> dict[str, _Inode | None]:
        """Each directory keeps a beginning of what was done to it: file systems write names in order."""
        parents = {path.rpartition("/")[0] for _, path, _ in self.pending_names}
        counts = {parent: random.randint(0, len(self.pending_names)) for parent in sorted(parents)}
        names = dict(self.synced_names)
        for what, path, inode in self.pending_names:
            parent = path.rpartition("/")[0]
            counts[parent] -= 1
            if counts[parent] >= 0:
                _name(names, what, path, inode)
        return names

    def _name(self, what: str, path: str, inode: _Inode | None) -> None:
        _name(self.names, what, path, inode)
        self.pending_names.append((what, path, inode))

    def _sync_directory(self, directory: str) -> None:
        inside = [each for each in self.pending_names if each[1].rpartition("/")[0] == directory]
        for what, path, inode in inside:
            _name(self.synced_names, what, path, inode)
        self.pending_names = [each for each in self.pending_names if each not in inside]


def _name(names: dict[str, _Inode | None], what: str, path: str, inode: _Inode | None) -> None:
    if what == "make":
        names[path] = inode
    else:
        names.pop(path, None)


def _changed(content: bytes, operation: Operation) -> bytes:
    if operation.name == "truncate":
        size = operation.offset or 0
        return content[:size].ljust(size, b"\0")
    start = len(content) if operation.offset is None else operation.offset
    end = start + len(operation.content)
    return content[:start].ljust(start, b"\0") + operation.content + content[end:]


def _torn(inode: _Inode, random: Random) -> bytes:
    """Some of the pending operations, in any selection, and one of the writes only in part."""
    content = inode.synced
    chosen = [each for each in inode.pending if random.random() < 0.5]
    for index, operation in enumerate(chosen):
        is_last = index == len(chosen) - 1
        cut = random.randint(0, len(operation.content)) if is_last and operation.name == "write" else None
        part = (
            operation
            if cut is None
            else Operation("write", operation.path, content=operation.content[:cut], offset=operation.offset)
        )
        content = _changed(content, part)
    return content
