from array import array
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.core.tensor import DType, Quantization, Tensor, TensorSpec, converted, tensor_from_values

Q = Quantization(scale=0.5, zero_point=-3)
INT8 = TensorSpec("x", DType.INT8, (1, 4), Q)
FP32 = TensorSpec("x", DType.FP32, (1, 4))


def floats(*values: float) -> Tensor:
    return tensor_from_values(TensorSpec("x", DType.FP32, (len(values),)), values)


@pytest.mark.parametrize(
    ("dtype", "item_bytes", "is_integer"),
    [
        (DType.FP32, 4, False),
        (DType.INT8, 1, True),
        (DType.UINT8, 1, True),
        (DType.INT16, 2, True),
        (DType.INT32, 4, True),
        (DType.INT64, 8, True),
        (DType.BOOL, 1, False),
    ],
)
def test_dtypes(dtype: DType, item_bytes: int, is_integer: bool) -> None:  # noqa: FBT001 - a table column
    assert (dtype.item_bytes, dtype.is_integer) == (item_bytes, is_integer)
    assert TensorSpec("x", dtype, (2, 3)).byte_count == 6 * item_bytes


def test_a_scalar_has_one_element() -> None:
    assert TensorSpec("x", DType.FP32, ()).element_count == 1


@pytest.mark.parametrize("length", [0, 15, 17])
def test_content_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(BadRequest, match=rf"tensor 'x': FP32 of shape \[1, 4\] is 16 bytes, got {length}"):
        Tensor("x", DType.FP32, (1, 4), bytes(length))


def test_values_are_little_endian() -> None:
    assert list(Tensor("x", DType.INT16, (2,), b"\x01\x00\xff\xff").values()) == [1, -1]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(DType.INT8, 128), (DType.UINT8, -1), (DType.INT16, 1 << 15), (DType.INT8, 0.5), (DType.INT64, 1 << 63)],
)
def test_values_that_do_not_fit_are_refused(dtype: DType, value: float) -> None:
    with pytest.raises(BadRequest, match=f"input 'x': not all values are {dtype.value}"):
        tensor_from_values(TensorSpec("x", dtype, (1,)), [value])


def test_another_count_of_values_is_refused() -> None:
    with pytest.raises(BadRequest, match="is 16 bytes, got 12"):
        tensor_from_values(FP32, [1, 2, 3])


def test_quantising_rounds_and_saturates() -> None:
    stored = converted(floats(0.0, 1.0, 1e30, -1e30), source=None, target=INT8)
    assert list(stored.values()) == [-3, -1, 127, -128]
    assert stored.shape == INT8.shape


def test_dequantising_gives_real_values() -> None:
    stored = tensor_from_values(INT8, [-3, -1, 127, -128])
    assert list(converted(stored, source=Q, target=FP32).values()) == [0.0, 1.0, 65.0, -62.5]


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (DType.INT8, -(2**7), 2**7 - 1),
        (DType.UINT8, 0, 2**8 - 1),
        (DType.INT16, -(2**15), 2**15 - 1),
        (DType.INT32, -(2**31), 2**31 - 1),
        (DType.INT64, -(2**63), 2**63 - 1),
    ],
)
def test_infinities_saturate_in_every_integer_type(dtype: DType, low: int, high: int) -> None:
    target = TensorSpec("x", dtype, (2,))
    assert list(converted(floats(-inf, inf), source=None, target=target).values()) == [low, high]


def test_nan_has_no_stored_value() -> None:
    with pytest.raises(BadRequest, match="input 'x': NaN has no place in INT8"):
        converted(floats(0.0, 0.0, nan, 0.0), source=None, target=INT8)


def test_nan_passes_where_floats_stay_floats() -> None:
    assert converted(floats(nan), source=None, target=TensorSpec("y", DType.FP32, (1,))).name == "y"


def test_conversion_to_another_size_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"'x': \[3\] cannot become \[1, 4\]"):
        converted(floats(1, 2, 3), source=None, target=FP32)


def test_from_one_quantisation_to_another() -> None:
    target = TensorSpec("x", DType.UINT8, (1, 4), Quantization(0.25, 128))
    stored = tensor_from_values(INT8, [-3, -1, 0, 1])
    assert list(converted(stored, source=Q, target=target).values()) == [128, 132, 134, 136]


@given(st.lists(st.integers(-128, 127), min_size=4, max_size=4), st.floats(1e-6, 1e6), st.integers(-128, 127))
def test_stored_values_survive_the_way_through_real_ones(values: list[int], scale: float, zero_point: int) -> None:
    """FP32 keeps 24 bits: enough to tell 256 steps apart at any scale."""
    quantization = Quantization(scale, zero_point)
    spec = TensorSpec("x", DType.INT8, (1, 4), quantization)
    real = converted(tensor_from_values(spec, values), source=quantization, target=FP32)
    assert list(converted(real, source=None, target=spec).values()) == values


@given(st.binary(min_size=16, max_size=16), st.sampled_from(DType))
def test_any_floats_become_a_tensor_or_the_one_error(content: bytes, dtype: DType) -> None:
    try:
        result = converted(Tensor("x", DType.FP32, (4,), content), source=None, target=TensorSpec("x", dtype, (4,)))
    except BadRequest:
        assert dtype is DType.BOOL or any(value != value for value in array("f", content))  # noqa: PLR0124 - NaN
    else:
        assert len(result.content) == 4 * dtype.item_bytes


FINITE = st.floats(-100.0, 100.0, width=32)


@given(
    st.lists(FINITE, min_size=1, max_size=40),
    st.sampled_from([DType.INT8, DType.UINT8]),
    st.floats(0.01, 2.0),
    st.integers(-128, 127),
)
def test_a_value_is_quantised_the_same_to_the_nearest_whatever_stands_beside_it(
    values: list[float], dtype: DType, scale: float, zero_point: int
) -> None:
    """A neighbour that saturates makes all of them go the slow way."""
    quantization = Quantization(scale, zero_point + (128 if dtype is DType.UINT8 else 0))
    size = len(values)
    alone = converted(floats(*values), source=None, target=TensorSpec("x", dtype, (size,), quantization))
    beside = converted(floats(*values, 1e30), source=None, target=TensorSpec("x", dtype, (size + 1,), quantization))
    low, high = (-128, 127) if dtype is DType.INT8 else (0, 255)
    for value, fast, slow in zip(values, alone.values(), beside.values(), strict=False):
        exact = min(high, max(low, value / scale + quantization.zero_point))
        assert abs(exact - fast) <= 0.5001
        assert abs(exact - slow) <= 0.5001


@given(st.binary(min_size=8, max_size=8), st.sampled_from([DType.INT8, DType.UINT8]), st.sampled_from(DType))
def test_bytes_become_what_their_single_elements_become(content: bytes, source: DType, target: DType) -> None:
    if target is DType.BOOL:
        return
    quantization = Quantization(0.25, 3)
    whole = converted(Tensor("x", source, (8,), content), source=Q, target=TensorSpec("y", target, (8,), quantization))
    for index, value in enumerate(whole.values()):
        real = (Tensor("x", source, (1,), content[index : index + 1]).values()[0] + 3) * 0.5
        single = converted(floats(real), source=None, target=TensorSpec("y", target, (1,), quantization))
        assert single.values()[0] == value
