"""What the worker inherited: the control socket, the shared memory and the two eventfds. Nothing is interpreted here."""

from __future__ import annotations

import mmap
import os
import select
import socket
from collections.abc import Sequence
from time import monotonic

from .awake import Awake
from .framing import Decoder, Frame, encode
from .ring import AWAKE_S, COUNT, SOON, Layout

_CHUNK_BYTES = 64 * 1024
_ONE = COUNT.pack(1)


class Channel:
    """Wake-ups, control frames, and the memory of inferences."""

    def __init__(self, descriptor: int, memory: int, doorbell: int, answered: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(None)
        self._memory = memory
        self._doorbell = doorbell
        self._answered = answered
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(doorbell, select.POLLIN)
        self._decoder = Decoder()
        self._awake = Awake()
        self._is_due = False
        self._is_hot = False

    def wait(self) -> tuple[int, list[Frame]]:
        """Wait until there is something; return how many inferences, and the control frames. There may be neither.

        The wait is awake where an inference was announced, and where this one was announced soon after the last answer: so
        will be the next. In a row of such, what comes soon after the last answer need not be announced.

        Raises: EOFError when the other side closed; FramingError, OSError.
        """
        began_s = monotonic()
        ready = self._awake.wait(self._poll.poll, began_s + AWAKE_S) if self._is_due or self._is_hot else ()
        inferences, is_soon, frames = self._take(ready or self._poll.poll())
        if not self._is_due:
            self._is_hot = (is_soon or self._is_hot) and monotonic() - began_s < AWAKE_S
        self._is_due = is_soon and not inferences
        return inferences, frames

    def _take(self, ready: Sequence[tuple[int, int]]) -> tuple[int, bool, list[Frame]]:
        count, frames = 0, []
        for descriptor, _ in ready:
            if descriptor == self._doorbell:
                (count,) = COUNT.unpack(os.read(self._doorbell, COUNT.size))
            else:
                frames = self._receive()
        return count % SOON, count >= SOON, frames

    def _receive(self) -> list[Frame]:
        chunk = self._socket.recv(_CHUNK_BYTES)
        if not chunk:
            raise EOFError
        return self._decoder.feed(chunk)

    def send(self, frame: Frame) -> None:
        """Write a whole frame. Raises: FramingError, OSError."""
        self._socket.sendall(encode(frame.header))

    def map(self, layout: Layout) -> memoryview:
        """Return the memory of all slots. Raises: OSError, ValueError when it cannot be mapped."""
        return memoryview(mmap.mmap(self._memory, layout.total_bytes))

    def answered(self) -> None:
        """Tell that one more inference is answered."""
        os.write(self._answered, _ONE)
