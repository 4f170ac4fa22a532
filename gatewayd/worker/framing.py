"""Frames between a worker and who started it: bytes ↔ values, no sockets. Both sides use this file.

A frame is, little-endian and without padding::

    4 bytes   "GWW1"
    u32       length of the header in bytes, at most MAX_HEADER_BYTES
    u32       length of the body in bytes, at most MAX_BODY_BYTES
    header    a JSON object in UTF-8; its "sizes" are the lengths of the blobs in the body
    body      the blobs, one after the other: raw tensor content

Every header has an "id". The worker speaks first, with id 0: "engine", "engine_version", "python" of what it is, or an
error. Then each request has an "op" and is answered once, in order, under its own id; several may be on their way.

======================  ====================================================  ==========================================
op                      request                                               answer
======================  ====================================================  ==========================================
load                    "path", "arena_bytes" (null: none)                    "inputs", "outputs": lists of specs
invoke                  one blob per input                                    "compute_s", one blob per output
measure_arena           "path", "max_bytes", "probe_timeout_s"                "arena_bytes"
======================  ====================================================  ==========================================

A spec is {"name", "dtype" (Open Inference Protocol name), "shape", "scale" (0: not quantised), "zero_point"}. An error is
{"error": kind, "message": text}; kinds are engine_missing, model_refused, bad_input.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import NamedTuple

MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_BLOBS = 256
TAIL_BYTES = 2000
"""How much of what an engine said on stderr goes into a message, from the end."""

_MAGIC = b"GWW1"
_PREAMBLE = struct.Struct("<4sII")
_encode_header = json.JSONEncoder(
    separators=(",", ":"), check_circular=False
).encode  # made once: it costs as much as encoding


class FramingError(ValueError):
    """The bytes are no frame, or one over a limit. The connection is of no more use."""


class Frame(NamedTuple):
    """A message: small values in the header, tensors as blobs."""

    header: dict[str, object]
    blobs: tuple[bytes, ...] = ()


def encode(header: dict[str, object], blobs: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of one frame.

    Raises: FramingError when it is over a limit.
    """
    text = _encode_header({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    body_bytes = sum(len(blob) for blob in blobs)
    _check_lengths(len(text), body_bytes)
    return b"".join((_PREAMBLE.pack(_MAGIC, len(text), body_bytes), text, *blobs))


def printable(content: bytes) -> str:
    """Return what was said on stderr as text fit for a message: no control characters, no blank lines."""
    lines = content.decode("utf-8", "replace").splitlines()
    cleaned = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
    return "\n".join(line for line in cleaned if line)


class Decoder:
    """Cuts a stream of bytes into frames. Keeps at most one unfinished frame; lengths are checked before waiting for content."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted_bytes = _PREAMBLE.size

    def feed(self, chunk: bytes | memoryview) -> list[Frame]:
        """Return the frames that `chunk` completes, in order.

        Raises: FramingError, after which the decoder is of no more use.
        """
        self._buffer += chunk
        frames = []
        while len(self._buffer) >= self._wanted_bytes:
            frame = self._take()
            if frame is not None:
                frames.append(frame)
        return frames

    def _take(self) -> Frame | None:
        magic, header_bytes, body_bytes = _PREAMBLE.unpack_from(self._buffer)
        if magic != _MAGIC:
            raise FramingError(f"not a frame: it begins with {magic!r}")
        _check_lengths(header_bytes, body_bytes)
        start = _PREAMBLE.size + header_bytes
        self._wanted_bytes = start + body_bytes
        if len(self._buffer) < self._wanted_bytes:
            return None
        content = bytes(self._buffer[: self._wanted_bytes])
        del self._buffer[: self._wanted_bytes]
        self._wanted_bytes = _PREAMBLE.size
        return _parse(content, start)


def _check_lengths(header_bytes: int, body_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        message = f"frame of {header_bytes} + {body_bytes} bytes; the limits are {MAX_HEADER_BYTES} + {MAX_BODY_BYTES}"
        raise FramingError(message)


def _parse(content: bytes, start: int) -> Frame:
    try:
        header = json.loads(content[_PREAMBLE.size : start])
    except (ValueError, RecursionError) as error:
        raise FramingError(f"frame header is not JSON: {error}") from error
    sizes = header.pop("sizes", None) if isinstance(header, dict) else None
    if not isinstance(sizes, list) or len(sizes) > MAX_BLOBS or any(type(n) is not int or n < 0 for n in sizes):
        raise FramingError(f"frame header must be an object with at most {MAX_BLOBS} 'sizes'")
    if sum(sizes) != len(content) - start:
        raise FramingError(f"'sizes' add up to {sum(sizes)}, the body has {len(content) - start} bytes")
    blobs = []
    for size in sizes:
        blobs.append(content[start : start + size])
        start += size
    return Frame(header, tuple(blobs))
