"""One inference worker as the daemon sees it: a child process that loads a model, runs it, and may die of it.

Everything a worker says is checked here: a model that took it over can still only answer wrongly. Processes are started from the
thread of the event loop, which must be the main thread: when it ends the kernel ends them.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from gatewayd.adapters.worker_answers import Invocation, LoadedModel, read_arena, read_error, read_model
from gatewayd.adapters.worker_channel import WorkerChannel
from gatewayd.adapters.worker_child import Child, Inherited, Launch, open_capture, start_worker
from gatewayd.adapters.worker_ring import Shared, WorkerRing, open_shared
from gatewayd.core.engine import EngineSpec
from gatewayd.core.errors import DeadlineExceeded, EngineMissing, GatewayError, WorkerDied
from gatewayd.worker.framing import TAIL_BYTES, Frame, printable

__all__ = ["MEMORY_LIMIT_BYTES", "EngineSpec", "Invocation", "LoadedModel", "WorkerProcess"]

MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
"""A sane limit of a worker's address space: Python, numpy and LiteRT map 120 MB before any model, which leaves about 390 MB.

An engine that maps a GPU needs None: it reserves tens of GB of addresses that it never fills.
"""
T = TypeVar("T")

_PROBE_TIMEOUT_S = 5
_LINGER_S = 1.0
_HELLO_ID = 0


class WorkerProcess:
    """A running worker. Requests are answered in the order they were made; any number may be on their way.

    When it dies, every call that waits and every later one raises WorkerDied. Made by `start`; `close` must be awaited.
    """

    def __init__(self, spec: EngineSpec, child: Child, sock: socket.socket, stderr: int, shared: Shared) -> None:
        self.spec = spec
        self.engine_version = ""
        self.devices: tuple[str, ...] = ()
        self.on_room: Callable[[], None] = _nothing
        self.pid = child.pid
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._stderr = stderr
        self._channel = WorkerChannel(sock, self._answered, self._channel_ended)
        self.ring = WorkerRing(
            shared, on_room=self._has_room, on_nonsense=self._channel_ended, read_frames=self._channel.drain
        )
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._last_id = _HELLO_ID
        self._why_killed = ""
        self._linger: asyncio.TimerHandle | None = None
        self._death: asyncio.Future[str] = self._loop.create_future()

    @classmethod
    async def start(
        cls,
        spec: EngineSpec,
        *,
        memory_limit_bytes: int | None,
        start_timeout_s: float,
        launch: Launch = start_worker,
    ) -> Self:
        """Start a worker and wait until its engine is there. `memory_limit_bytes` limits address space (None: no limit).

        `launch` makes the process: `start_worker`, or a nursery's way.

        Raises: EngineMissing with what to install; WorkerDied; DeadlineExceeded.
        """
        worker = await cls._spawn(spec, memory_limit_bytes, launch)
        await worker.wait_ready(start_timeout_s)
        return worker

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait for the worker's first words; called once, by `start`. Raises: what `start` raises, and closes the worker then."""
        try:
            hello = await self._wait(_HELLO_ID, timeout_s, "start")
        except BaseException:
            await self.close()
            raise
        self.engine_version = str(hello.header.get("engine_version", ""))[:100]
        devices = hello.header.get("devices")
        self.devices = tuple(str(each)[:100] for each in devices[:32]) if isinstance(devices, list) else ()

    @property
    def died(self) -> bool:
        """Whether the process has ended."""
        return self._death.done()

    async def wait_died(self) -> str:
        """Wait for the end of the process and return what it died of."""
        return await asyncio.shield(self._death)

    async def load(self, path: Path, *, arena_bytes: int | None = None, timeout_s: float) -> LoadedModel:
        """Load a model file in place of the one before. `arena_bytes` is for tflm (None: 4 MiB).

        Raises: ModelRefused with the engine's words; WorkerDied; DeadlineExceeded, and then the worker is killed.
        """
        await self._idle()
        self.ring.forget()
        header: dict[str, object] = {"op": "load", "path": str(path), "arena_bytes": arena_bytes}
        loaded = read_model(await self._call(header, timeout_s=timeout_s))
        self.ring.prepare(loaded)
        return loaded

    async def invoke(self, inputs: Sequence[bytes], *, timeout_s: float) -> Invocation:
        """Run the loaded model on raw inputs, one per input in the model's order; `timeout_s` counts from now.

        Raises: BadRequest naming the input of the wrong size; ModelRefused; WorkerDied; DeadlineExceeded, and then
        the worker is killed.
        """
        self._check_alive()
        self.ring.check(inputs)
        answer: asyncio.Future[Invocation] = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._expire, answer, "invoke", timeout_s)
        try:
            while not self.ring.room:
                await self._room()
            self.ring.submit(inputs, lambda outcome: _settle(answer, outcome))
            return await answer
        finally:
            timer.cancel()

    async def measure_arena(self, path: Path, *, max_bytes: int, timeout_s: float) -> int:
        """Return the smallest arena (a multiple of 16 bytes) in which tflm loads and invokes the model.

        Raises: ModelRefused when `max_bytes` are not enough; WorkerDied; DeadlineExceeded, and then the worker is killed.
        """
        header: dict[str, object] = {"op": "measure_arena", "path": str(path), "max_bytes": max_bytes}
        return read_arena(await self._call({**header, "probe_timeout_s": _PROBE_TIMEOUT_S}, timeout_s=timeout_s))

    async def close(self) -> None:
        """End the process and wait until it is gone. May be called again.

        A cancellation is passed on only when it is gone: it was killed, so that is soon, and leaving would leave it unreaped.
        """
        self.kill("closed")
        interruption: asyncio.CancelledError | None = None
        while not self._death.done():
            try:
                await self.wait_died()
            except asyncio.CancelledError as error:
                interruption = error
        if interruption is not None:
            raise interruption

    @classmethod
    async def _spawn(cls, spec: EngineSpec, memory_limit_bytes: int | None, launch: Launch) -> Self:
        with ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair()
                undo.callback(ours.close)
                shared = open_shared()
                undo.callback(shared.close)
                with theirs:
                    stderr = open_capture()
                    undo.callback(os.close, stderr)
                    inherited = Inherited(theirs.fileno(), shared.memory, shared.doorbell, shared.answered, stderr)
                    child = await launch(spec, _arguments(spec, memory_limit_bytes), inherited)
            except OSError as error:
                python = spec.python or sys.executable
                raise EngineMissing(f"engine {spec.label}: cannot start {python}: {error.strerror}") from error
            undo.pop_all()
        worker = cls(spec, child, ours, stderr, shared)
        child.ended.add_done_callback(worker._exited)
        return worker

    async def _call(self, header: dict[str, object], *, timeout_s: float) -> Frame:
        await self._idle()
        self._last_id += 1
        request_id = self._last_id
        self._channel.send(Frame({"id": request_id, **header}))
        return await self._wait(request_id, timeout_s, str(header["op"]))

    async def _wait(self, request_id: int, timeout_s: float, what: str) -> Frame:
        answer: asyncio.Future[Frame] = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._expire, answer, what, timeout_s)
        self._pending[request_id] = answer
        if self._death.done():
            self._fail_pending()
        try:
            return await answer
        finally:
            timer.cancel()
            self._pending.pop(request_id, None)

    async def _idle(self) -> None:
        """Wait for answers whose callers have left: frames and inferences are never on their way together."""
        self._check_alive()
        while self.ring.in_flight:
            await self._room()

    async def _room(self) -> None:
        """Wait for the next answers. Raises: WorkerDied."""
        room: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(room)
        await room
        self._check_alive()

    def _check_alive(self) -> None:
        if self._death.done():
            raise WorkerDied(self._death.result())

    def _has_room(self) -> None:
        while self._waiting:
            room = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
        self.on_room()

    def _answered(self, frame: Frame) -> None:
        request_id = frame.header.get("id")
        error = read_error(frame, self.spec.label)
        if isinstance(request_id, str):
            if error is None or not self.ring.refused(request_id, error):
                self._channel_ended(f"a frame with id {request_id[:40]!r}")
            return
        answer = self._pending.get(request_id) if isinstance(request_id, int) else None
        if answer is not None:  # else who asked has given up
            _settle(answer, error or frame)

    def _expire(self, answer: asyncio.Future[Any], what: str, timeout_s: float) -> None:
        message = f"worker of engine {self.spec.label} did not {what} within {timeout_s:g} s and was killed"
        _settle(answer, DeadlineExceeded(message))
        self.kill(message)

    def _channel_ended(self, reason: str) -> None:
        """Kill what broke the protocol at once, and what closed the channel unless it ends by itself (and then tells how)."""
        if reason:
            self.kill(f"broke its channel ({reason}) and was killed")
        else:
            self._linger = self._loop.call_later(_LINGER_S, self.kill, "closed its channel, lived on and was killed")

    def kill(self, why: str) -> None:
        """End the process at once; `why` is what it died of, if nothing said so before."""
        if self._child.ended.done():
            return
        self._why_killed = self._why_killed or why
        self._child.kill()

    def _exited(self, _: asyncio.Future[int]) -> None:
        self._channel.drain()
        self._channel.close()
        self.ring.drain()
        if self._linger is not None:
            self._linger.cancel()
        self._death.set_result(self._last_words())
        os.close(self._stderr)
        self._fail_pending()
        self.ring.close()

    def _fail_pending(self) -> None:
        died = self._death.result()
        for answer in self._pending.values():
            _settle(answer, WorkerDied(died))
        for sink in self.ring.take_lost():
            sink(WorkerDied(died))
        self._has_room()

    def _last_words(self) -> str:
        ending = self._why_killed or _ending(self._child.ended.result())
        said_bytes = os.fstat(self._stderr).st_size
        tail = printable(os.pread(self._stderr, TAIL_BYTES, max(0, said_bytes - TAIL_BYTES)))
        return f"worker of engine {self.spec.label} (pid {self.pid}): {ending}" + (
            f"; last words:\n{tail}" if tail else ""
        )


def _settle(answer: asyncio.Future[T], outcome: T | GatewayError) -> None:
    if answer.done():
        return  # who asked has given up
    if isinstance(outcome, GatewayError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _nothing() -> None:
    """Do nothing."""


def _arguments(spec: EngineSpec, memory_limit_bytes: int | None) -> list[str]:
    memory = [] if memory_limit_bytes is None else ["--memory-bytes", str(memory_limit_bytes)]
    return ["--engine", spec.name, "--options", json.dumps(spec.options()), *memory]


def _ending(return_code: int) -> str:
    if return_code >= 0:
        return f"exited with code {return_code}"
    try:
        name = signal.Signals(-return_code).name
    except ValueError:
        name = f"signal {-return_code}"
    hint = " (the kernel does that when memory runs out)" if name == "SIGKILL" else ""
    return f"died of {name}{hint}"
