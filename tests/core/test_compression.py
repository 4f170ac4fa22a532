import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.compression import deflated, inflated
from gatewayd.core.errors import BadRequest

CONTENT = bytes(range(256)) * 20 + b"weights" * 300


@given(st.binary(max_size=3000), st.integers(9, 15))
def test_round_trip(content: bytes, window_bits: int) -> None:
    assert inflated(deflated(content, window_bits), window_bits, len(content)) == content


def test_the_stream_is_raw_deflate_that_any_decoder_reads() -> None:
    assert zlib.decompress(deflated(CONTENT, 9), wbits=-15) == CONTENT


def decoded_by_a_small_device(stream: bytes, window_bits: int) -> bytes:
    """Decode a byte at a time, so that nothing but the window can be looked back into."""
    decoder, content = zlib.decompressobj(-window_bits), b""
    while not decoder.eof:
        content += decoder.decompress(stream, 1)
        stream = decoder.unconsumed_tail
    return content


def test_a_stream_never_reaches_back_further_than_the_window() -> None:
    far = bytes(range(256)) * 8 + bytes(2000) + bytes(range(256)) * 8
    assert decoded_by_a_small_device(deflated(far, 9), 9) == far
    with pytest.raises(zlib.error, match="too far back"):
        decoded_by_a_small_device(deflated(far, 15), 9)


@pytest.mark.parametrize("length", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(BadRequest):
        inflated(deflated(CONTENT, 12), 12, length)


def test_what_is_cut_or_goes_on_is_refused() -> None:
    stream = deflated(CONTENT, 12)
    for changed in (stream[:-1], stream + b"\0", b""):
        with pytest.raises(BadRequest):
            inflated(changed, 12, len(CONTENT))


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_within_bounds_or_refused(stream: bytes) -> None:
    with suppress(BadRequest):
        assert len(inflated(stream, 12, 100)) == 100
