"""Nurseries: where several models run on one engine, its packages are imported once, in a process that forks the workers.

`Nurseries.launch` makes a worker's process from a fork where that is possible and starts it as a program of its own where it
is not: another kind of engine, a nursery that does not come up, a kernel without pidfd. A nursery that dies takes no worker
along and is made anew for the next one.
"""

import asyncio
import ctypes
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gatewayd.adapters.worker_channel import WorkerChannel
from gatewayd.adapters.worker_child import (
    AdoptedChild,
    Child,
    Inherited,
    StartedChild,
    open_capture,
    start_program,
    start_worker,
)
from gatewayd.core.engine import EngineSpec
from gatewayd.worker.framing import Frame, encode

_FORKABLE = ("litert", "tflite-runtime")  # others start threads or open devices once imported
_FORK_TIMEOUT_S = 5.0
_FAILURES = 3  # in a row, and its engine's workers are started as programs until the daemon starts again
_PR_SET_CHILD_SUBREAPER = 36  # Source: linux/prctl.h
_HELLO_ID = 0
_Key = tuple[str, str | None]

logger = logging.getLogger(__name__)


class NurseryFailed(Exception):
    """A nursery did not come up or did not fork."""


class Nursery:
    """One running nursery. Made by `start`; `close` must be awaited."""

    def __init__(self, child: StartedChild, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._socket = sock
        self._channel = WorkerChannel(sock, self._answered, lambda _: self._end())
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._last_id = _HELLO_ID
        child.ended.add_done_callback(lambda _: self._end())

    @classmethod
    async def start(cls, spec: EngineSpec, *, timeout_s: float) -> "Nursery":
        """Start one and wait until its engine is imported. Raises: NurseryFailed, OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stderr = open_capture()
        try:
            with theirs:
                argv = ["--nursery", str(theirs.fileno()), spec.name]
                child = await start_program(spec, argv, inherited=(theirs.fileno(),), stderr=stderr)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(stderr)
        nursery = cls(child, ours)
        try:
            await nursery._hear_hello(timeout_s)
        except BaseException:
            await nursery.close()
            raise
        return nursery

    async def _hear_hello(self, timeout_s: float) -> None:
        hello = await self._wait(_HELLO_ID, timeout_s)
        if "error" in hello.header:
            raise NurseryFailed(str(hello.header.get("message", ""))[:500])

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return not self._child.ended.done()

    async def fork(self, argv: Sequence[str], inherited: Inherited, *, timeout_s: float) -> Child:
        """Return a new worker, which is our child. Raises: NurseryFailed."""
        self._last_id += 1
        request = {"id": self._last_id, "argv": list(argv), "parent": os.getpid()}
        try:
            socket.send_fds(self._socket, [encode(request)], list(inherited))
            answer = await self._wait(self._last_id, timeout_s)
            return _adopted(answer)
        except OSError as error:
            raise NurseryFailed(f"it did not fork: {error}") from error

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()

    async def close(self) -> None:
        """End it and wait until it is gone. May be called again."""
        self._child.kill()
        await asyncio.shield(self._child.ended)

    async def _wait(self, request_id: int, timeout_s: float) -> Frame:
        answer: asyncio.Future[Frame] = self._loop.create_future()
        self._pending[request_id] = answer
        if not self.is_alive:
            self._end()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise NurseryFailed(f"no answer within {timeout_s:g} s") from error
        finally:
            self._pending.pop(request_id, None)

    def _answered(self, frame: Frame) -> None:
        request_id = frame.header.get("id")
        answer = self._pending.get(request_id) if isinstance(request_id, int) else None
        if answer is not None and not answer.done():
            answer.set_result(frame)
        elif "pid" in frame.header:  # who asked has given up: the worker is nobody's
            with suppress(OSError, NurseryFailed):
                _adopted(frame).kill()

    def _end(self) -> None:
        self._child.kill()
        self._channel.close()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(NurseryFailed("it ended"))


class Nurseries:
    """The nurseries of one daemon, one per interpreter and engine, started when they are first needed."""

    def __init__(self, *, start_timeout_s: float, fork_timeout_s: float = _FORK_TIMEOUT_S) -> None:
        self._start_timeout_s = start_timeout_s
        self._fork_timeout_s = fork_timeout_s
        self._running: dict[_Key, Nursery] = {}
        self._failures: dict[_Key, int] = {}
        self._turns: dict[_Key, asyncio.Lock] = {}
        self._births = 0
        self._leaving: list[Nursery] = []

    async def launch(self, spec: EngineSpec, argv: Sequence[str], inherited: Inherited) -> Child:
        """Make a worker's process, one of a nursery after the other. Raises: OSError, when no program can be started either."""
        key = _key(spec)
        if spec.name not in _FORKABLE or spec.delegate or self._failures.get(key, 0) >= _FAILURES:
            return await start_worker(spec, argv, inherited)
        async with self._turns.setdefault(key, asyncio.Lock()):
            try:
                nursery = await self._nursery(spec)
                with self._taking_in_orphans():
                    child = await nursery.fork(argv, inherited, timeout_s=self._fork_timeout_s)
            except (NurseryFailed, OSError) as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                logger.warning("no worker was forked for engine %s (%d in a row): %s", spec.label, failures, error)
                await self._drop(key)
            else:
                self._failures.pop(key, None)
                return child
        return await start_worker(spec, argv, inherited)

    def pids(self) -> tuple[int, ...]:
        """Return the nurseries that run."""
        return tuple(each.pid for each in (*self._leaving, *self._running.values()) if each.is_alive)

    def keep_only(self, specs: Iterable[EngineSpec]) -> None:
        """Let those go whose engine nobody uses any more; what they are asked for right now is started as a program."""
        self._leaving = [each for each in self._leaving if each.is_alive]
        for key in self._running.keys() - {_key(spec) for spec in specs}:
            nursery = self._running.pop(key)
            nursery.kill()
            self._leaving.append(nursery)

    async def close(self) -> None:
        """End them all; their workers live on."""
        for nursery in (*self._leaving, *self._running.values()):
            await nursery.close()
        self._running.clear()

    async def _nursery(self, spec: EngineSpec) -> Nursery:
        """Raises: NurseryFailed, OSError; that is for good: what cannot be imported or forked now cannot later."""
        key = _key(spec)
        running = self._running.get(key)
        if running is not None and running.is_alive:
            return running
        try:
            self._running[key] = await Nursery.start(spec, timeout_s=self._start_timeout_s)
        except (NurseryFailed, OSError):
            self._failures[key] = _FAILURES
            raise
        return self._running[key]

    async def _drop(self, key: _Key) -> None:
        nursery = self._running.pop(key, None)
        if nursery is not None:
            await nursery.close()

    @contextmanager
    def _taking_in_orphans(self) -> Iterator[None]:
        """Be the parent of what loses its own below us: while a worker is born only, or other programs' orphans came too."""
        self._births += 1
        try:
            _set_subreaper(1)
            yield
        finally:
            self._births -= 1
            _set_subreaper(int(self._births > 0))


def _key(spec: EngineSpec) -> _Key:
    return spec.name, spec.python


def _adopted(frame: Frame) -> AdoptedChild:
    """Raises: NurseryFailed when the answer makes no sense; OSError when that process is none of ours."""
    pid = frame.header.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31:
        raise NurseryFailed(f"it answered nonsense where a process id belongs: {pid!r:.80}")
    return AdoptedChild(pid)


def _set_subreaper(value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot take in orphans")
