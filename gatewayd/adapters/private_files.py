"""Writing files that hold secrets: whole or not at all, and never readable by others, not even for a moment."""

import os
from pathlib import Path

PRIVATE_FILE, PRIVATE_FOLDER, PUBLIC_FILE = 0o600, 0o700, 0o644


def replace_file(path: Path, content: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Write beside, sync, rename, sync the folder; who reads meanwhile sees the old file or the new one. Raises: OSError."""
    draft = path.with_name(path.name + ".new")
    owner = _owner(path)
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the umask may have taken bits that a public file needs
        if owner is not None:
            os.fchown(descriptor, *owner)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
    sync_folder(path.parent)


def replace_if_changed(path: Path, content: bytes, *, mode: int = PRIVATE_FILE) -> bool:
    """As `replace_file`, unless that is what the file holds, with that mode: it spares the disk. Tells whether it wrote."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o777 == mode and file.read() == content:
                return False
    except FileNotFoundError:
        pass
    replace_file(path, content, mode=mode)
    return True


def _owner(path: Path) -> tuple[int, int] | None:
    """Return who a file of another owner belongs to, where root replaces it for them; None: it is ours, or not there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return (status.st_uid, status.st_gid) if os.geteuid() == 0 and status.st_uid != 0 else None


def made_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter. One that is there keeps its mode. Raises: OSError."""
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
