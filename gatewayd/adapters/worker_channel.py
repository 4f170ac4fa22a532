"""The daemon's end of a worker's control channel: frames over a Unix socket on the event loop."""

import asyncio
import socket
from collections.abc import Callable

from gatewayd.worker.framing import Decoder, Frame, FramingError, encode

_CHUNK_BYTES = 64 * 1024


class WorkerChannel:
    """Frames over a connected stream socket, which it owns.

    `on_frame` gets each frame; `on_end` is called once, with "" when the other side closed or else with what is wrong.
    What cannot be written at once is kept: who sends bounds it by the number of requests on their way.
    """

    def __init__(self, sock: socket.socket, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        self._socket = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._decoder = Decoder()
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        sock.settimeout(0)
        self._loop.add_reader(sock, self._read)

    def send(self, frame: Frame) -> None:
        """Write a frame, or as much as goes now and the rest later; after the end it goes nowhere.

        Raises: FramingError when it is over a limit.
        """
        content = encode(frame.header)
        if self._unsent:
            self._unsent += content
            return
        sent = self._write(content)
        if sent < len(content):
            self._unsent += memoryview(content)[sent:]
            self._loop.add_writer(self._socket, self._flush)

    def drain(self) -> None:
        """Hand out what has already arrived: the last words of a process that ended."""
        while self._socket.fileno() >= 0 and self._read():
            pass

    def close(self) -> None:
        """Stop and let the socket go. May be called again."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _read(self) -> bool:
        try:
            count = self._socket.recv_into(self._chunk)
            frames = self._decoder.feed(self._chunk[:count])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # a peer that dies with unread requests resets the connection
            self._end("")
            return False
        except FramingError as error:
            self._end(str(error))
            return False
        for frame in frames:
            self._on_frame(frame)
        if not count:
            self._end("")
        return bool(count)

    def _flush(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent and self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)

    def _write(self, content: bytes | bytearray) -> int:
        """Return how many bytes are off the sender's hands; a broken socket takes all, its end is told by the reader."""
        try:
            return self._socket.send(content)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return len(content)

    def _end(self, reason: str) -> None:
        self.close()
        self._on_end(reason)
