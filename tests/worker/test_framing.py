import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.worker.framing import MAX_BODY_BYTES, MAX_HEADER_BYTES, Decoder, Frame, FramingError, encode

_HEADERS = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key != "sizes"), st.integers() | st.text(), max_size=4
)
_FRAMES = st.builds(Frame, _HEADERS, st.lists(st.binary(max_size=50), max_size=4).map(tuple))


@given(st.lists(_FRAMES, max_size=4), st.integers(1, 40))
def test_frames_survive_any_cutting_of_the_stream(frames: list[Frame], piece: int) -> None:
    stream = b"".join(encode(frame.header, frame.blobs) for frame in frames)
    decoder = Decoder()
    found = [frame for at in range(0, len(stream), piece) for frame in decoder.feed(stream[at : at + piece])]
    assert found == frames


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_the_one_error(content: bytes) -> None:
    with suppress(FramingError):
        assert isinstance(Decoder().feed(content), list)


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_any_header_is_a_frame_or_the_one_error(header: bytes, body: bytes) -> None:
    try:
        frames = Decoder().feed(struct.pack("<4sII", b"GWW1", len(header), len(body)) + header + body)
    except FramingError:
        return
    assert len(frames) == 1


@pytest.mark.parametrize("lengths", [(MAX_HEADER_BYTES + 1, 0), (10, MAX_BODY_BYTES + 1), (2**32 - 1, 2**32 - 1)])
def test_lengths_are_refused_before_the_content_comes(lengths: tuple[int, int]) -> None:
    with pytest.raises(FramingError, match="the limits are"):
        Decoder().feed(struct.pack("<4sII", b"GWW1", *lengths))


def test_a_header_over_the_limit_is_not_written() -> None:
    with pytest.raises(FramingError, match="the limits are"):
        encode({"path": "x" * MAX_HEADER_BYTES})


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b"{", b"", "not JSON"),
        (b"[" * 5000, b"", "not JSON"),
        (b"[]", b"", "'sizes'"),
        (b"{}", b"", "'sizes'"),
        (b'{"sizes":[true]}', b"x", "'sizes'"),
        (b'{"sizes":[-1,2]}', b"x", "'sizes'"),
        (b'{"sizes":[2]}', b"x", "add up to 2"),
    ],
)
def test_a_bad_header_is_told(header: bytes, body: bytes, message: str) -> None:
    with pytest.raises(FramingError, match=message):
        Decoder().feed(struct.pack("<4sII", b"GWW1", len(header), len(body)) + header + body)


def test_what_is_no_frame_is_told() -> None:
    with pytest.raises(FramingError, match="begins with b'HTTP'"):
        Decoder().feed(b"HTTP/1.1 200 OK\r\n")
