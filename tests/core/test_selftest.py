import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.core.selftest import FLOAT_UNIT, matches, self_test_input
from gatewayd.core.tensor import DType


def test_the_stream_is_the_low_byte_of_xorshift32() -> None:
    known = [270369, 67634689, 2647435461, 307599695]  # the published sequence for (13, 17, 5) from seed 1
    assert self_test_input(1, 4) == bytes(value & 0xFF for value in known)


@pytest.mark.parametrize("dtype", [DType.INT8, DType.UINT8, DType.INT16])
def test_small_whole_numbers_take_the_stream_as_it_is(dtype: DType) -> None:
    assert self_test_input(7, 64, dtype) == self_test_input(7, 64)


def test_floats_are_signed_bytes_over_128() -> None:
    signed = struct.unpack("<8b", self_test_input(9, 8))
    floats = struct.unpack("<8f", self_test_input(9, 32, DType.FP32))
    assert floats == tuple(value / 128 for value in signed)


@pytest.mark.parametrize(("dtype", "code"), [(DType.INT32, "i"), (DType.INT64, "q"), (DType.BOOL, "B")])
def test_what_may_be_an_index_is_0_or_1(dtype: DType, code: str) -> None:
    count = 100
    values = struct.unpack(f"<{count}{code}", self_test_input(3, count * dtype.item_bytes, dtype))
    assert set(values) == {0, 1}


@given(st.integers(1, 2**32 - 1), st.integers(0, 300))
def test_floats_are_sane_for_every_seed(seed: int, count: int) -> None:
    content = self_test_input(seed, count * 4, DType.FP32)
    assert all(-1 <= value < 1 for value in struct.unpack(f"<{count}f", content))


@pytest.mark.parametrize("seed", [0, -1, 2**32])
def test_a_seed_the_generator_cannot_use_is_refused(seed: int) -> None:
    with pytest.raises(BadRequest, match="seed"):
        self_test_input(seed, 4)


@pytest.mark.parametrize(("byte_count", "dtype"), [(-1, DType.INT8), (3, DType.INT16), (6, DType.FP32)])
def test_a_part_of_an_element_is_refused(byte_count: int, dtype: DType) -> None:
    with pytest.raises(BadRequest, match="bytes per element"):
        self_test_input(1, byte_count, dtype)


@pytest.mark.parametrize(
    ("expected", "got", "is_match"),
    [
        (b"\x05\x80", b"\x07\x82", True),
        (b"\x05\x80", b"\x08\x80", False),
        (b"\x7f", b"\x80", False),  # 127 and -128 are far apart
        (b"\x05", b"\x05\x99", True),  # only the beginning of the output is expected
        (b"\x05\x05", b"\x05", False),
        (b"", b"", False),
    ],
)
def test_whole_numbers_may_differ_by_the_tolerance(expected: bytes, got: bytes, *, is_match: bool) -> None:
    assert matches(expected, got, 2, DType.INT8) is is_match


def test_unsigned_bytes_are_compared_unsigned() -> None:
    assert matches(b"\x7f", b"\x80", 1, DType.UINT8)


@pytest.mark.parametrize(
    ("expected", "got", "is_match"),
    [
        (0.5, 0.5 + 0.9 * FLOAT_UNIT, True),
        (0.5, 0.5 + 1.1 * FLOAT_UNIT, False),
        (1000.0, 1000.9, True),
        (1000.0, 1001.1, False),
        (math.nan, math.nan, False),
        (0.0, math.nan, False),
    ],
)
def test_floats_may_differ_absolutely_below_1_and_relatively_above(
    expected: float, got: float, *, is_match: bool
) -> None:
    assert matches(struct.pack("<f", expected), struct.pack("<f", got), 1, DType.FP32) is is_match


def test_a_broken_expectation_never_matches() -> None:
    assert not matches(b"\x00\x00\x00", bytes(4), 1, DType.FP32)
