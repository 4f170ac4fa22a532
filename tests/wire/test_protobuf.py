import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import ModelRefused
from gatewayd.wire.protobuf import Message


def message(content: bytes) -> Message:
    return Message(content, 0, len(content), "it")


def test_fields_of_each_kind() -> None:
    content = b"\x08\x96\x01\x12\x03abc\x1d\x01\x00\x00\x00\x21" + bytes(7) + b"\x01" + b"\x2a\x03\x01\x96\x01"
    read = message(content)
    assert read.number(1) == 150
    assert read.text(2, limit_bytes=3) == "abc"
    assert read.number(3) == 1
    assert read.number(4) == 1 << 56
    assert read.numbers(5) == [1, 150]
    assert (read.number(9, 7), read.text(9, limit_bytes=1), read.message(9, "none")) == (7, "", None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x08", "ends inside a number"),
        (b"\x08" + b"\xff" * 12, "never ends"),
        (b"\x12\x05abc", "truncated"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "truncated"),
        (b"\x1d\x00", "truncated"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x00", "field 0"),
    ],
)
def test_what_is_broken_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason):
        list(message(content).fields())


def test_texts_are_bounded_and_printable() -> None:
    for content, reason in (
        (b"\x12\x03abc", "limit is 2"),
        (b"\x12\x02\xff\xfe", "not UTF-8"),
        (b"\x12\x02\x00\n", "unprintable"),
    ):
        with pytest.raises(ModelRefused, match=reason):
            message(content).text(2, limit_bytes=2)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        fields = list(message(content).fields())
    except ModelRefused:
        return
    assert all(0 <= field.start <= field.end <= len(content) for field in fields)
