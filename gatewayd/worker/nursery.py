"""A process that has imported an engine and forks a worker whenever it is asked: what was imported is in memory once for all.

It loads no model, opens no engine and runs one thread: a fork of it is what a worker is after its imports. Its only
descriptor beside the standard three is a Unix socket of kind SOCK_SEQPACKET, one frame (`framing`) to a packet. It speaks first,
with id 0 and "engine", or an error. Then each request

    "id", "argv" (of a worker, see `program`), "parent" (a process id)

comes with one descriptor (SCM_RIGHTS) for each name in DESCRIPTORS and is answered with "id" and "pid". The worker is not the
nursery's child but a grandchild whose parent has ended: it belongs to "parent", which has made itself the one that takes in
orphans (PR_SET_CHILD_SUBREAPER), learns how the worker ends, and takes it along when it dies itself. The nursery's death is no
worker's. It ends when the other side closes.
"""

from __future__ import annotations

import array
import gc
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import NoReturn

from .engines import EngineMissing, import_engine
from .framing import Decoder, Frame, FramingError, encode
from .limits import die_with_parent, limit_process, trim

DESCRIPTORS = ("channel", "memory", "doorbell", "answered", "stderr")
EXIT_ORPHAN = 5

_MAX_REQUEST_BYTES = 64 * 1024
_PID = struct.Struct("<q")
_ADOPTION_S = 5.0


def forked(descriptor: int, engine: str) -> list[str]:
    """Be a nursery. Returns in each worker that is forked: its arguments. In the nursery itself it ends the process."""
    die_with_parent()
    limit_process(None)
    control = socket.socket(fileno=descriptor)
    try:
        import_engine(engine)
    except EngineMissing as error:
        control.send(encode({"id": 0, "error": error.kind, "message": str(error)}))
        sys.exit(0)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:  # a fork has only the one that forked, and whatever the others held stays locked in it
        control.send(
            encode({"id": 0, "error": "unusable", "message": f"{engine} runs {threads} threads once imported"})
        )
        sys.exit(0)
    _settle()
    control.send(encode({"id": 0, "engine": engine}))
    while True:
        request, descriptors = _receive(control)
        worker = _fork()
        if not worker:
            control.close()
            return _begin(request, descriptors)
        for each in descriptors:
            os.close(each)
        control.send(encode({"id": request.header["id"], "pid": worker}))


def _settle() -> None:
    """Make what is here worth sharing: a collection in a worker must not write to all of it."""
    gc.collect()
    gc.freeze()
    trim()


def _receive(control: socket.socket) -> tuple[Frame, list[int]]:
    """Return a request and its descriptors; ends the process when there will be no more."""
    numbers = array.array("i")  # socket.recv_fds came with Python 3.9
    space = socket.CMSG_SPACE(len(DESCRIPTORS) * numbers.itemsize)
    content, ancillary, _, _ = control.recvmsg(_MAX_REQUEST_BYTES, space)
    if not content:
        sys.exit(0)
    for level, kind, passed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(passed[: len(passed) - len(passed) % numbers.itemsize])
    frames = Decoder().feed(content)
    if len(frames) != 1 or len(numbers) != len(DESCRIPTORS):
        raise FramingError(
            f"{len(frames)} frames with {len(numbers)} descriptors where one with {len(DESCRIPTORS)} was due"
        )
    return frames[0], list(numbers)


def _fork() -> int:
    """Return the process id of a grandchild that is an orphan by now; 0 in it."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        os.close(reader)
        middle = os.getpid()
        if os.fork() == 0:
            _wait_for_adoption(middle, writer)
            return 0
        os._exit(0)
    os.close(writer)
    pid: int = _PID.unpack(os.read(reader, _PID.size))[0]
    os.close(reader)
    os.waitpid(between, 0)
    return pid


def _wait_for_adoption(middle: int, writer: int) -> None:
    """Tell who we are and wait until the one between is gone: until then its death would count as the parent's."""
    os.write(writer, _PID.pack(os.getpid()))
    os.close(writer)
    until_s = time.monotonic() + _ADOPTION_S
    while os.getppid() == middle:
        if time.monotonic() > until_s:
            os._exit(EXIT_ORPHAN)
        os.sched_yield()  # it has nothing left to do but to end


def _begin(request: Frame, descriptors: list[int]) -> list[str]:
    """Become a worker: its own session, its own output, and its arguments as if it had been started with them."""
    if os.getppid() != request.header.get("parent"):
        _no_parent()
    os.setsid()
    inherited = dict(zip(DESCRIPTORS, descriptors))  # noqa: B905 # strict= came with Python 3.10, and _receive counted
    stderr = inherited.pop("stderr")
    for standard in (1, 2):
        os.dup2(stderr, standard)
    os.close(stderr)
    argv = request.header.get("argv")
    if not isinstance(argv, list):
        raise FramingError("'argv' must be a list")
    named = [text for name, number in inherited.items() for text in ("--" + name, str(number))]
    sys.argv[1:] = arguments = [*named, *map(str, argv)]
    return arguments


def _no_parent() -> NoReturn:
    """End at once: who asked died meanwhile, or cannot take orphans in."""
    os._exit(EXIT_ORPHAN)
