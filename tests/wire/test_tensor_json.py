import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tensor_json import read_tensor
from gatewayd.wire.tensors import decode_body

NUMBERS = st.integers() | st.integers(-200, 300) | st.floats(allow_nan=False, allow_infinity=False)
DATA = st.lists(NUMBERS | st.none() | st.text(max_size=3) | st.lists(NUMBERS, max_size=2), max_size=4)


def outcome(value: object, *, has_flags: bool) -> Tensor | str:
    try:
        return read_tensor(value, "inputs[0]", has_flags=has_flags)
    except BadRequest as error:
        return str(error)


@given(data=DATA, count=st.integers(1, 4), dtype=st.sampled_from(DType))
def test_the_short_way_and_the_long_way_say_the_same(data: list[object], count: int, dtype: DType) -> None:
    value = {"name": "x", "datatype": dtype.value, "shape": [count], "data": data}
    assert outcome(value, has_flags=False) == outcome(value, has_flags=True)


@pytest.mark.parametrize("flag", ["true", "false"])
def test_flags_are_no_numbers(flag: str) -> None:
    body = f'{{"inputs": [{{"name": "x", "datatype": "INT8", "shape": [2], "data": [1, {flag}]}}]}}'
    with pytest.raises(BadRequest, match=r"inputs\[0\].data\[1\]: true or false is no INT8"):
        decode_body(body.encode(), "application/json")
