"""The daemon's end of the memory shared with one worker: inferences into slots, answers out of them. Format: `worker/ring.py`.

Nothing the worker writes is trusted: an answer is copied once and checked, its number must be the one due, and the counters
that decide which slot is whose are kept here.
"""

import asyncio
import fcntl
import mmap
import os
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import isfinite

from gatewayd.adapters.worker_answers import Invocation, LoadedModel
from gatewayd.core.errors import BadRequest, DeadlineExceeded, GatewayError, ModelRefused
from gatewayd.core.record import record
from gatewayd.worker.ring import (
    ANSWER,
    ANSWER_OFFSET,
    AWAKE_OFFSET,
    COUNT,
    DONE,
    EXPIRED,
    MAX_SLOTS,
    MEMORY_BYTES,
    PIECE,
    REFUSED,
    REQUEST,
    RESET,
    SOON,
    Piece,
    layout,
    pieces,
)

_ONE = COUNT.pack(1)
_PIECE = COUNT.pack(PIECE)
_SOON = COUNT.pack(SOON)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

Sink = Callable[[Invocation | GatewayError], None]
"""Who is told how an inference ended; called on the event loop, must return at once."""


@record
class Shared:
    """The descriptors that both sides hold; the daemon's own copies."""

    memory: int
    doorbell: int
    answered: int

    def close(self) -> None:
        """Let them go."""
        for descriptor in (self.memory, self.doorbell, self.answered):
            os.close(descriptor)


def open_shared() -> Shared:
    """Make the memory, sealed so that its size stays, and the eventfds. Raises: OSError."""
    memory = os.memfd_create("gatewayd-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, MEMORY_BYTES)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    doorbell = os.eventfd(0, os.EFD_CLOEXEC)  # the worker blocks on this one
    return Shared(memory, doorbell, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


class WorkerRing:
    """Inferences on their way to one worker and back, in order.

    `on_room` is called after answers were handed out; `on_nonsense` with what is wrong, when the worker broke the format.
    `read_frames` takes in what has arrived beside the ring: the words of a refusal are there before its answer is.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        on_room: Callable[[], None],
        on_nonsense: Callable[[str], None],
        read_frames: Callable[[], None],
    ) -> None:
        self._shared = shared
        self._on_room = on_room
        self._read_frames = read_frames
        self._on_nonsense = on_nonsense
        self._loop = asyncio.get_running_loop()
        self._plan = layout((), ())
        self._memory = memoryview(b"")
        self._loaded: LoadedModel | None = None
        self._input_bytes: list[int] = []
        self._pieces: list[Piece] = []
        self._last = 0
        self._sinks: deque[tuple[Sink, int]] = deque()
        self._free: list[int] = []
        self._refusals: dict[int, GatewayError] = {}
        self._loop.add_reader(shared.answered, self._take)

    @property
    def room(self) -> int:
        """How many more inferences fit now; 0 without a model."""
        return len(self._free) if self._loaded else 0

    @property
    def in_flight(self) -> int:
        """How many are on their way."""
        return len(self._sinks)

    def forget(self) -> None:
        """Drop the model: a load is about to take its place."""
        self._loaded, self._memory = None, memoryview(b"")

    def prepare(self, loaded: LoadedModel) -> None:
        """Lay out the memory for a model that was just loaded. Raises: ModelRefused when it is too large."""
        self._input_bytes = [spec.byte_count for spec in loaded.inputs]
        try:
            self._plan = layout(self._input_bytes, [spec.byte_count for spec in loaded.outputs])
        except ValueError as error:
            raise ModelRefused(str(error)) from error
        self._memory = memoryview(mmap.mmap(self._shared.memory, self._plan.total_bytes))
        self._pieces = pieces(self._input_bytes)
        self._loaded, self._last, self._free = loaded, 0, list(range(self._plan.slots))

    def check(self, inputs: Sequence[bytes]) -> None:
        """Raises: BadRequest naming the first input that is not as long as the model wants it; ModelRefused without a model."""
        if self._loaded is None:
            raise ModelRefused("no model is loaded")
        if len(inputs) != len(self._input_bytes):
            raise BadRequest(f"the model takes {len(self._input_bytes)} inputs, got {len(inputs)}")
        for index, wanted in enumerate(self._input_bytes):
            if len(inputs[index]) != wanted:
                spec = self._loaded.inputs[index]
                kind = f"{spec.dtype.value} of shape {list(spec.shape)} is {wanted} bytes"
                raise BadRequest(f"input {index} ({spec.name!r}): {kind}, got {len(inputs[index])}")

    def submit(
        self,
        inputs: Sequence[bytes],
        sink: Sink,
        *,
        stream: int = 0,
        is_reset: bool = False,
        deadline_s: float = 0.0,
        is_early: bool = False,
    ) -> None:
        """Send checked inputs to the worker; there must be room. `deadline_s` is on CLOCK_MONOTONIC (0: none).

        What is not begun by then is answered with DeadlineExceeded and costs no computing. `is_early`: the worker has a
        processor of its own to take large inputs in while they are written.
        """
        slot = heappop(self._free)
        start = self._plan.start(slot)
        self._last += 1
        memory = self._memory
        memory[self._last % MAX_SLOTS] = slot
        REQUEST.pack_into(memory, start, self._last, stream, RESET if is_reset else 0, deadline_s)
        ANSWER.pack_into(memory, start + ANSWER_OFFSET, 0, 0, 0, 0.0)
        if is_early and self._pieces and not self._sinks:
            self._write_pieces(start, inputs)
        else:
            for (low, high), content in zip(self._plan.inputs, inputs, strict=True):
                memory[start + low : start + high] = content
        self._sinks.append((sink, slot))
        os.write(self._shared.doorbell, _ONE)

    def _write_pieces(self, start: int, inputs: Sequence[bytes]) -> None:
        """Write one piece after the other and tell of each but the last, as long as the worker is awake."""
        memory, doorbell = self._memory, self._shared.doorbell
        views, last = [memoryview(each) for each in inputs], len(self._pieces) - 1
        for number, (tensor, low, high) in enumerate(self._pieces):
            at = start + self._plan.inputs[tensor][0]
            memory[at + low : at + high] = views[tensor][low:high]
            if number != last and memory[AWAKE_OFFSET]:
                os.write(doorbell, _PIECE)

    @property
    def awaited(self) -> tuple[int, Callable[[], None]]:
        """What becomes readable with the next answer, and what is to be called then."""
        return self._shared.answered, self._take

    def rouse(self) -> None:
        """Wake the worker ahead of an inference that is being read, unless it has work or says that it is awake."""
        if self._sinks or self._loaded is None:
            return
        if not self._memory[AWAKE_OFFSET]:
            os.write(self._shared.doorbell, _SOON)

    def refused(self, request_id: str, error: GatewayError) -> bool:
        """Take note of the words of a refusal; False when no inference on its way has that id."""
        number = int(request_id[1:]) if request_id[:1] == "i" and request_id[1:].isdecimal() else 0
        if not self._last - len(self._sinks) < number <= self._last:
            return False
        self._refusals[number] = error
        return True

    def drain(self) -> None:
        """Hand out what is already answered: the process ended."""
        self._take()

    def take_lost(self) -> list[Sink]:
        """Return whoever still waits, in order: the first was being computed when the worker died."""
        lost = [sink for sink, _ in self._sinks]
        self._sinks.clear()
        return lost

    def close(self) -> None:
        """Let everything go."""
        self._loop.remove_reader(self._shared.answered)
        self.forget()
        self._shared.close()

    def _take(self) -> None:
        try:
            (count,) = COUNT.unpack(os.read(self._shared.answered, COUNT.size))
        except BlockingIOError:
            return
        if count > len(self._sinks):
            self._on_nonsense(f"{count} answers to {len(self._sinks)} inferences")
            return
        for _ in range(count):
            number = self._last - len(self._sinks) + 1
            sink, slot = self._sinks[0]
            answer = self._answer(number, slot)
            if isinstance(answer, str):
                self._on_nonsense(answer)
                return
            self._sinks.popleft()
            heappush(self._free, slot)
            sink(answer)
        self._on_room()

    def _answer(self, number: int, slot: int) -> Invocation | GatewayError | str:
        """Return what the slot holds; a text says what is wrong with it."""
        start = self._plan.start(slot)
        found, status, _, compute_s = ANSWER.unpack_from(self._memory, start + ANSWER_OFFSET)
        if found != number or not isfinite(compute_s):
            return f"answer {found} ({compute_s} s) where {number} was due"
        if status == DONE:
            outputs = tuple(bytes(self._memory[start + low : start + high]) for low, high in self._plan.outputs)
            return Invocation(outputs, max(0.0, compute_s))
        if status == EXPIRED:
            return DeadlineExceeded("the request's time ran out before it was computed")
        if status == REFUSED and number not in self._refusals:
            self._read_frames()
        error = self._refusals.pop(number, None) if status == REFUSED else None
        return error or f"answer {number} with status {status} and no reason"
