import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.wire.oscore.header import Header, decode_header, encode_header, partial_iv

HEADERS = st.builds(
    Header,
    st.binary(max_size=5),
    st.none() | st.binary(max_size=7),
    st.none() | st.binary(max_size=32),
)


@given(HEADERS.filter(lambda each: each.kid is not None or each.kid_context is None))
def test_what_is_written_is_read(header: Header) -> None:
    assert decode_header(encode_header(header)) == header


@given(st.binary(max_size=60))
def test_any_bytes_are_a_header_or_the_one_error(value: bytes) -> None:
    try:
        header = decode_header(value)
    except BadRequest:
        return
    assert encode_header(header) == value


@pytest.mark.parametrize(
    "value",
    ["00", "20", "40", "80", "06", "07", "0a14", "01", "10", "1005", "1001", "11", "0800010203040506070809"],
)
def test_what_is_none(value: str) -> None:
    with pytest.raises(BadRequest):
        decode_header(bytes.fromhex(value))


def test_numbers_are_as_short_as_they_can_be() -> None:
    assert [partial_iv(each).hex() for each in (0, 1, 255, 256, 2**40 - 1)] == ["00", "01", "ff", "0100", "ffffffffff"]
