"""Hand-laid bytes, so that each check is met alone."""

from struct import pack

import pytest

from gatewayd.core.errors import ModelRefused
from gatewayd.wire.flatbuffer import I32, U8, Table, root_table

# 0: root offset; 4: vtable (10 bytes: fields at 4, 8 and absent) and 2 of padding; 16: table; 28: vector of three int32.
GOOD = pack("<I", 16) + pack("<HHHHHH", 10, 12, 4, 8, 0, 0) + pack("<iiI", 12, -5, 4) + pack("<Iiii", 3, 7, 8, 9)


def good() -> Table:
    return root_table(GOOD, "it")


def with_bytes(at: int, content: bytes) -> bytes:
    return GOOD[:at] + content + GOOD[at + len(content) :]


def test_fields() -> None:
    assert good().scalar(0, I32, 0, what="number") == -5
    assert good().scalar(2, I32, 42, what="absent") == 42
    assert good().scalar(9, I32, 42, what="past the vtable") == 42
    assert (good().has(0), good().has(2), good().has(9)) == (True, False, False)


def test_vectors() -> None:
    assert good().integers(1, I32, what="list", limit=3) == (7, 8, 9)
    assert good().integers(2, I32, what="absent", limit=3) == ()
    assert good().tables(2, what="child", limit=3) == []
    assert good().table(2, what="child") is None
    assert good().string(2, what="text", limit_bytes=3) == ""


def test_limit_stands_before_the_bytes_are_touched() -> None:
    huge = root_table(with_bytes(28, pack("<I", 2**32 - 1)), "it")
    with pytest.raises(ModelRefused, match=r"it's list has 4294967295 items, the limit is 3 \(offset 28\)"):
        huge.integers(1, I32, what="list", limit=3)
    with pytest.raises(ModelRefused, match=r"truncated: it's list lies outside the file \(offset 32, file 44 bytes\)"):
        huge.integers(1, I32, what="list", limit=2**32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated: it lies outside the file (offset 0, file 0 bytes)"),
        (with_bytes(0, pack("<I", 2**31)), "truncated: it lies outside the file (offset 2147483648, file 44 bytes)"),
        (with_bytes(0, pack("<I", 18)), "corrupted: it is not aligned to 4 bytes (offset 18)"),
        (with_bytes(16, pack("<i", 20)), "truncated: it's vtable lies outside the file (offset -4, file 44 bytes)"),
        (with_bytes(16, pack("<i", 11)), "corrupted: it's vtable is not aligned to 2 bytes (offset 5)"),
        (with_bytes(4, pack("<H", 2)), "corrupted: it's vtable claims 2 bytes (offset 4)"),
        (with_bytes(4, pack("<H", 7)), "corrupted: it's vtable claims 7 bytes (offset 4)"),
        (with_bytes(4, pack("<H", 400)), "truncated: it's vtable lies outside the file (offset 4, file 44 bytes)"),
        (with_bytes(6, pack("<H", 400)), "truncated: it lies outside the file (offset 16, file 44 bytes)"),
    ],
)
def test_bad_table(content: bytes, message: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        root_table(content, "it")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_bytes(10, pack("<H", 10)), "corrupted: it's list lies outside its table (offset 26)"),
        (with_bytes(10, pack("<H", 6)), "corrupted: it's list is not aligned to 4 bytes (offset 22)"),
        (with_bytes(24, pack("<I", 2**32 - 1)), "truncated: it's list lies outside the file (offset 4294967319"),
        (with_bytes(28, pack("<I", 4)), "truncated: it's list lies outside the file (offset 32, file 44 bytes)"),
    ],
)
def test_bad_vector(content: bytes, message: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        root_table(content, "it").vector(1, item_bytes=4, what="list", limit=4)
    assert str(caught.value).startswith(message)


def test_items_must_be_aligned_for_those_who_read_in_place() -> None:
    with pytest.raises(ModelRefused, match=r"corrupted: it's list is not aligned to 64 bytes \(offset 32\)"):
        root_table(GOOD + bytes(200), "it").vector(1, item_bytes=64, what="list", limit=3)
    assert good().vector(1, item_bytes=U8.size, what="list", limit=3).count == 3
