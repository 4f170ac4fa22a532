"""DEFLATE as devices take it: raw (RFC 1951), within a window of so many bits.

Pure, but slow for megabytes: call it off the loop.
"""

import zlib

from gatewayd.core.device import Capabilities
from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record

_BEST, _MOST_MEMORY = 9, 9


@record
class Decoder:
    """What a device decodes: streams within a window of 2**`window_bits` bytes.

    `page_bytes`: a slot must hold the stream beside the artifact, each in whole pages (None: the device decodes as it receives).
    """

    window_bits: int
    slot_bytes: int
    page_bytes: int | None = None

    def has_room(self, encoded_bytes: int, size_bytes: int) -> bool:
        """Return whether a slot takes a stream of that size and what it decodes to."""
        if self.page_bytes is None:
            return True
        pages = -(-encoded_bytes // self.page_bytes) - (-size_bytes // self.page_bytes)
        return pages <= self.slot_bytes // self.page_bytes


def decoder_of(has: Capabilities) -> Decoder | None:
    """Return what the device decodes; None: nothing."""
    return None if has.deflate_bits is None else Decoder(has.deflate_bits, has.slot_bytes, has.page_bytes)


def deflated(content: bytes, window_bits: int) -> bytes:
    """Return a stream that never reaches back further than 2**`window_bits` bytes (9..15)."""
    encoder = zlib.compressobj(_BEST, zlib.DEFLATED, -window_bits, _MOST_MEMORY)
    return encoder.compress(content) + encoder.flush()


def inflated(stream: bytes, window_bits: int, size_bytes: int) -> bytes:
    """Return what `stream` holds. That it stays within the window is the encoder's word: zlib decodes into one buffer.

    Raises: BadRequest when it is damaged, or holds anything but `size_bytes` bytes.
    """
    decoder = zlib.decompressobj(-window_bits)
    try:
        content = decoder.decompress(stream, size_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"DEFLATE stream: {error}") from error
    if len(content) != size_bytes or not decoder.eof or decoder.unused_data:
        raise BadRequest(f"DEFLATE stream: {len(content)} bytes, {size_bytes} were due, and nothing after them")
    return content
