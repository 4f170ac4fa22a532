"""Decoding what came compressed: raw DEFLATE (RFC 1951) in, pages of the artifact out, in memory that does not depend on either.

zlib's inflate does the work: with `window_bits` it keeps 2**`window_bits` bytes behind it and about 7 KB of tables
(`agent_memory.inflate_bytes`); beside it there is one page and one piece of input. A C port puts any inflate here that refuses
a reach back past its window. The stream's digest was checked before, so that this never reads a byte that the manifest's
signature does not vouch for; still it trusts none.
"""

import zlib
from collections.abc import Iterable, Iterator

from gatewayd.core.errors import BadRequest

READ_BYTES = 256
"""Encoded bytes read from flash at once."""


def inflated_pages(pieces: Iterable[bytes], *, window_bits: int, size_bytes: int, page_bytes: int) -> Iterator[bytes]:
    """Yield what the stream in `pieces` decodes to, page by page (the last one may be shorter), `size_bytes` at most.

    Raises: BadRequest when the stream is damaged, reaches back too far, ends early, goes on after its end, or holds anything
    but `size_bytes` bytes; what was yielded before is then worth nothing.
    """
    decoder, page, left = zlib.decompressobj(-window_bits), bytearray(), size_bytes
    for piece in pieces:
        rest, is_more = piece, True
        while is_more:
            # past the artifact's size one byte is asked for: that there is one is the bomb
            got = _decoded(decoder, rest, min(page_bytes - len(page), left) or 1)
            if len(got) > left:
                raise BadRequest(f"more than {size_bytes} bytes")
            left -= len(got)
            page += got
            if len(page) == page_bytes:
                yield bytes(page)
                page.clear()
            rest = decoder.unconsumed_tail
            is_more = bool(got or rest)
    if not decoder.eof or left:
        raise BadRequest(f"{size_bytes - left} bytes, {size_bytes} were due")
    if page:
        yield bytes(page)


def _decoded(decoder: "zlib._Decompress", piece: bytes, most_bytes: int) -> bytes:
    if decoder.eof and piece:
        raise BadRequest("bytes after the stream's end")
    try:
        got = decoder.decompress(piece, most_bytes)
    except zlib.error as error:
        raise BadRequest(str(error)) from error
    if decoder.unused_data:
        raise BadRequest("bytes after the stream's end")
    return got
