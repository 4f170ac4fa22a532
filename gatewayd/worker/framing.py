"""Control frames between a worker and who started it: bytes ↔ values, no sockets. Both sides use this file.

A frame is, little-endian and without padding::

    4 bytes   "GWW2"
    u32       length of the header in bytes, at most MAX_HEADER_BYTES
    header    a JSON object in UTF-8

Every header has an "id". The worker speaks first, with id 0: "engine", "engine_version", "python" of what it is and
"devices" (what its engine could run on), or an error. Then each request has an "op" and is answered once, in order, under its
own id. Inferences do not come this way but through shared memory (`ring`); only what an engine says when it refuses
one is told here, as an error whose id is "i" and the inference's number ("i17").

======================  ====================================================  ==========================================
op                      request                                               answer
======================  ====================================================  ==========================================
load                    "path", "arena_bytes" (null: none)                    "inputs", "outputs": lists of specs
measure_arena           "path", "max_bytes", "probe_timeout_s"                "arena_bytes"
======================  ====================================================  ==========================================

A spec is {"name", "dtype" (Open Inference Protocol name), "shape", "scale" (0: not quantised), "zero_point"}. An error is
{"error": kind, "message": text}; kinds are engine_missing, model_refused, bad_input.
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

MAX_HEADER_BYTES = 64 * 1024
TAIL_BYTES = 2000
"""How much of what an engine said on stderr goes into a message, from the end."""

_MAGIC = b"GWW2"
_PREAMBLE = struct.Struct("<4sI")
_encode_header = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class FramingError(ValueError):
    """The bytes are no frame, or one over a limit. The connection is of no more use."""


class Frame(NamedTuple):
    """A message."""

    header: dict[str, object]


def encode(header: dict[str, object]) -> bytes:
    """Return the bytes of one frame.

    Raises: FramingError when it is over the limit.
    """
    text = _encode_header(header).encode()
    _check_length(len(text))
    return _PREAMBLE.pack(_MAGIC, len(text)) + text


def printable(content: bytes) -> str:
    """Return what was said on stderr as text fit for a message: no control characters, no blank lines."""
    lines = content.decode("utf-8", "replace").splitlines()
    cleaned = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
    return "\n".join(line for line in cleaned if line)


class Decoder:
    """Cuts a stream of bytes into frames. Keeps at most one unfinished frame; lengths are checked before waiting for content."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes | memoryview) -> list[Frame]:
        """Return the frames that `chunk` completes, in order.

        Raises: FramingError, after which the decoder is of no more use.
        """
        self._buffer += chunk
        frames = []
        while len(self._buffer) >= _PREAMBLE.size:
            magic, header_bytes = _PREAMBLE.unpack_from(self._buffer)
            if magic != _MAGIC:
                raise FramingError(f"not a frame: it begins with {magic!r}")
            _check_length(header_bytes)
            end = _PREAMBLE.size + header_bytes
            if len(self._buffer) < end:
                break
            frames.append(_parse(bytes(self._buffer[_PREAMBLE.size : end])))
            del self._buffer[:end]
        return frames


def _check_length(header_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES:
        raise FramingError(f"frame of {header_bytes} bytes; the limit is {MAX_HEADER_BYTES}")


def _parse(content: bytes) -> Frame:
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FramingError(f"frame header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FramingError("frame header must be a JSON object")
    return Frame(header)
