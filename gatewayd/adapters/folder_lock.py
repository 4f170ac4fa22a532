"""One process per folder: a lock that the kernel takes back however the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatewayd.core.errors import NodeError

_NAME = "lock"


@contextmanager
def only_user_of(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process while the context lasts; it must exist.

    Raises: NodeError naming the process that holds it; OSError when the folder cannot be written.
    """
    descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise NodeError(
                f"{folder} is in use by another gatewayd (process {holder}): stop it, or give each its own folder"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
