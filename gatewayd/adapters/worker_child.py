"""The process of a worker: started as a program, or taken over from a nursery that forked it. How it ended is told once.

Processes are started from the thread of the event loop, which must be the main thread: when it ends the kernel ends them.
"""

import asyncio
import fcntl
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from gatewayd.core.engine import EngineSpec
from gatewayd.worker import framing

_PROGRAM = Path(framing.__file__).parent / "__main__.py"
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


class Inherited(NamedTuple):
    """The descriptors that a worker gets, in the order of `worker/nursery.py`. Who starts it closes its own copies."""

    channel: int
    memory: int
    doorbell: int
    answered: int
    stderr: int


class Child(Protocol):
    """A child process. `ended` is settled once it is reaped, with its exit code or the negative number of its signal."""

    pid: int
    ended: asyncio.Future[int]

    def kill(self) -> None:
        """End it at once; nothing happens when it has ended."""


Launch = Callable[[EngineSpec, Sequence[str], Inherited], Awaitable[Child]]
"""Makes a worker's process from its arguments and descriptors. Raises: OSError."""


class StartedChild(asyncio.SubprocessProtocol):
    """A program that was started."""

    def __init__(self) -> None:
        self.pid = 0
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        if isinstance(transport, asyncio.SubprocessTransport):  # it is
            self._transport, self.pid = transport, transport.get_pid()

    def process_exited(self) -> None:
        """Called by the event loop."""
        if self._transport is not None:
            self.ended.set_result(self._transport.get_returncode() or 0)
            self._transport.close()

    def kill(self) -> None:
        """End it at once."""
        if not self.ended.done():
            # Not transport.kill(): its poll() races the event loop's own wait for the child.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class AdoptedChild:
    """A process that somebody else forked and whose parent we are now. It is awaited here; until then its number is its own."""

    def __init__(self, pid: int) -> None:
        """Raises: OSError when there is no such process, ChildProcessError when it is not ours."""
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(pid)
        try:
            os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError:
            os.close(self._descriptor)
            raise
        self._loop.add_reader(self._descriptor, self._reap)

    def kill(self) -> None:
        """End it at once."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.ended.set_result(os.waitstatus_to_exitcode(status))


async def start_program(
    spec: EngineSpec, argv: Sequence[str], *, inherited: Sequence[int], stderr: int
) -> StartedChild:
    """Start the worker program under the engine's interpreter. Raises: OSError."""
    _, child = await asyncio.get_running_loop().subprocess_exec(
        StartedChild, spec.python or sys.executable, str(_PROGRAM), *argv,
        stdin=DEVNULL, stdout=stderr, stderr=stderr,
        pass_fds=inherited, env=_environment(), start_new_session=True,
    )  # fmt: skip
    return child


async def start_worker(spec: EngineSpec, argv: Sequence[str], inherited: Inherited) -> Child:
    """Start a worker as a program of its own. Raises: OSError."""
    named = inherited._asdict()
    stderr = named.pop("stderr")
    descriptors = [text for name, number in named.items() for text in (f"--{name}", str(number))]
    return await start_program(spec, [*descriptors, *argv], inherited=tuple(named.values()), stderr=stderr)


def open_capture() -> int:
    """Return a file in memory for what a worker prints: appended by it, read here when it died."""
    descriptor = os.memfd_create("gatewayd-worker-stderr")
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def _environment() -> dict[str, str]:
    """Return what a worker gets to see: no secrets of the daemon, no packages of its environment, no thread pools."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
