import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.worker.framing import MAX_HEADER_BYTES, Decoder, Frame, FramingError, encode

_HEADERS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(), max_size=4)
_FRAMES = st.builds(Frame, _HEADERS)


@given(st.lists(_FRAMES, max_size=4), st.integers(1, 40))
def test_frames_survive_any_cutting_of_the_stream(frames: list[Frame], piece: int) -> None:
    stream = b"".join(encode(frame.header) for frame in frames)
    decoder = Decoder()
    found = [frame for at in range(0, len(stream), piece) for frame in decoder.feed(stream[at : at + piece])]
    assert found == frames


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_the_one_error(content: bytes) -> None:
    with suppress(FramingError):
        assert isinstance(Decoder().feed(content), list)


@given(st.binary(max_size=60))
def test_any_header_is_a_frame_or_the_one_error(header: bytes) -> None:
    try:
        frames = Decoder().feed(struct.pack("<4sI", b"GWW2", len(header)) + header)
    except FramingError:
        return
    assert len(frames) == 1


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**32 - 1])
def test_lengths_are_refused_before_the_content_comes(length: int) -> None:
    with pytest.raises(FramingError, match="the limit is"):
        Decoder().feed(struct.pack("<4sI", b"GWW2", length))


def test_a_header_over_the_limit_is_not_written() -> None:
    with pytest.raises(FramingError, match="the limit is"):
        encode({"path": "x" * MAX_HEADER_BYTES})


@pytest.mark.parametrize(
    ("header", "message"), [(b"{", "not JSON"), (b"[" * 5000, "not JSON"), (b"[]", "a JSON object")]
)
def test_a_bad_header_is_told(header: bytes, message: str) -> None:
    with pytest.raises(FramingError, match=message):
        Decoder().feed(struct.pack("<4sI", b"GWW2", len(header)) + header)


def test_what_is_no_frame_is_told() -> None:
    with pytest.raises(FramingError, match="begins with b'HTTP'"):
        Decoder().feed(b"HTTP/1.1 200 OK\r\n")
