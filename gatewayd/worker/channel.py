"""How frames reach the worker: blocking, over a socket it inherited. Another transport only has to do these two things."""

from __future__ import annotations

import socket
from collections import deque

from .framing import Decoder, Frame, encode

_CHUNK_BYTES = 256 * 1024


class SocketChannel:
    """Frames over a connected Unix stream socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(None)
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._decoder = Decoder()
        self._received: deque[Frame] = deque()

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the other side closed.

        Raises: FramingError, OSError.
        """
        while not self._received:
            count = self._socket.recv_into(self._chunk)
            if not count:
                return None
            self._received.extend(self._decoder.feed(self._chunk[:count]))
        return self._received.popleft()

    def send(self, frame: Frame) -> None:
        """Write a whole frame. Raises: FramingError, OSError."""
        self._socket.sendall(encode(frame.header, frame.blobs))

    def close(self) -> None:
        """Let the descriptor go."""
        self._socket.close()
