import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.cbor import TypedArray, decode_cbor, encode_cbor, typed_array
from gatewayd.wire.tensors import CBOR, decode_body

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP32"}


@given(PLAIN)
def test_what_another_encoder_writes_is_read(value: object) -> None:
    assert decode_cbor(cbor2.dumps(value)) == value


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_lists_of_floats_are_read_at_once(values: list[float]) -> None:
    single = bytes([0x98, len(values)]) + b"".join(b"\xfa" + struct.pack(">f", value) for value in values)
    assert decode_cbor(single) == values
    assert decode_cbor(cbor2.dumps(values)) == values


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_the_one_error(payload: bytes) -> None:
    try:
        decode_cbor(payload)
    except BadRequest as error:
        assert "CBOR" in str(error)  # noqa: PT017 - both ends are right


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "1 bytes are announced, 0 are left"),
        (b"\x81" * 5000, "nested deeper"),
        (b"\x9b" + b"\xff" * 8, "items are announced"),
        (b"\x5b\x00\x00\x7f\xff\xff\xff\xff\xff", "bytes are announced"),
        (b"\xbb" + b"\x7f" * 8, "items are announced"),
        (b"\x9f\x01\xff", "indefinite"),
        (b"\xa1\x01\x02", "a key is no text"),
        (b"\xa2\x61a\x01\x61a\x02", "stands twice"),
        (b"\x61\xff", "UTF-8"),
        (b"\xc2\x41\x01", "tag 2"),
        (b"\xd8\x55\x01", "byte string"),
        (b"\xf8\x20", "simple value"),
        (b"\x01\x02", "1 bytes follow"),
    ],
)
def test_a_mistake_is_named_with_its_place(payload: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        decode_cbor(payload)


@pytest.mark.parametrize(
    "data",
    [
        [1.0, 2.0, 3.0, 4.0],
        [[1.0, 2.0], [3.0, 4.0]],
        struct.pack("<4f", 1, 2, 3, 4),
        TypedArray(DType.FP32, struct.pack("<4f", 1, 2, 3, 4)),
    ],
)
def test_a_tensor_comes_as_numbers_or_as_bytes(data: object) -> None:
    body = decode_body(encode_cbor({"id": "q", "inputs": [{**TENSOR, "data": data}]}), CBOR)
    assert (body.id, body.is_cbor, list(body.inputs[0].values())) == ("q", True, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"123", r"inputs\[0\].data: 3 bytes for FP32"),
        (TypedArray(DType.INT32, bytes(16)), "typed array of INT32"),
        (["1", 2, 3, 4], "a text is no FP32"),
    ],
)
def test_wrong_tensors_are_refused_with_their_path(data: object, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        decode_body(encode_cbor({"inputs": [{**TENSOR, "data": data}]}), CBOR)


@pytest.mark.parametrize("dtype", list(DType))
def test_every_datatype_goes_out_and_comes_back(dtype: DType) -> None:
    tensor = Tensor("y", dtype, (1, 2), bytes(2 * dtype.item_bytes))
    document = decode_cbor(encode_cbor({"data": typed_array(tensor)}))
    assert isinstance(document, dict)
    found = document["data"]
    assert found == ([False, False] if dtype is DType.BOOL else TypedArray(dtype, tensor.content))
