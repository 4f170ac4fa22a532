"""Tensors as bytes behind their JSON header, both ways."""

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.names import RequestId
from gatewayd.core.request import NODE, InferenceResult, Measured
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tensor_answers import encode_answer
from gatewayd.wire.tensors import InferenceBody, decode_parts, read_body

SCORES = Tensor("scores", DType.FP32, (1, 2), struct.pack("<2f", 0.1, 0.9))
BOXES = Tensor("boxes", DType.INT8, (3,), b"\x01\xff\x00")
RESULT = InferenceResult(
    RequestId("r-1"), "kws", 2, "tflite-int8", (SCORES, BOXES), NODE, "cheapest", None, Measured(total_s=0.001)
)


def parts(*inputs: dict[str, object], tail: bytes = b"", **body: object) -> InferenceBody:
    head = json.dumps({"inputs": list(inputs), **body}).encode()
    return decode_parts(head + tail, len(head))


def announced(size: int, **changes: object) -> dict[str, object]:
    return {
        "name": "x", "shape": [2, 2], "datatype": "INT8", "parameters": {"binary_data_size": size}, **changes
    }  # fmt: skip


def test_bytes_go_to_the_tensors_in_order() -> None:
    body = parts(
        announced(4), {"name": "y", "shape": [2], "datatype": "INT8", "data": [7, 8]}, announced(4, name="z"),
        tail=b"abcdefgh",
    )  # fmt: skip
    assert [(each.name, each.content) for each in body.inputs] == [("x", b"abcd"), ("y", b"\x07\x08"), ("z", b"efgh")]


def test_a_header_of_no_bytes_means_the_only_input() -> None:
    assert decode_parts(b"abc", 0) == InferenceBody(raw=b"abc", binary=True)


@pytest.mark.parametrize(
    ("tensor", "tail", "message"),
    [
        (announced(4), b"abc", r"inputs\[0\]\.parameters\.binary_data_size: 4 bytes are announced, 3 are left"),
        (announced(4), b"abcde", "inputs: 1 bytes of the body belong to no tensor"),
        (announced(3), b"abc", r"3 bytes for INT8 of shape \[2,2\], which takes 4"),
        (announced(2**40, shape=[2**40]), b"abc", "1099511627776 bytes are announced, 3 are left in the body"),
        (announced(-1), b"", "must be a whole number of bytes"),
        (announced(True), b"", "must be a whole number of bytes"),  # noqa: FBT003 - the mistake
        (announced(4, data=[1, 2, 3, 4]), b"abcd", "goes without binary_data_size"),
        (announced(4, datatype="BOOL"), b"\x00\x01\x02\x00", "a BOOL is a byte of 0 or 1"),
        (announced(4, parameters={"shared_memory_region": "r"}), b"", "shared memory is not served here"),
        (announced(4, parameters=3), b"", r"inputs\[0\]\.parameters: must be a JSON object"),
    ],
)
def test_sizes_that_lie_are_refused(tensor: dict[str, object], tail: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parts(tensor, tail=tail)


def test_bytes_announced_without_a_place_are_refused() -> None:
    with pytest.raises(BadRequest, match="the header Inference-Header-Content-Length tells where"):
        read_body({"inputs": [announced(4)]})


@pytest.mark.parametrize("length", [-1, 4, 10**12])
def test_a_header_beyond_the_body_is_refused(length: int) -> None:
    with pytest.raises(BadRequest, match="is not within the body of 3 bytes"):
        decode_parts(b"{}x", length)


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLarge, match="binary tensor data of 8 bytes is over the limit of 4"):
        decode_parts(b"{}" + bytes(8), 2, max_raw_bytes=4)
    with pytest.raises(TooLarge, match="a JSON body of 9 bytes is over the limit of 4"):
        decode_parts(b"{       }", 9, max_json_bytes=4)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (InferenceBody(), []),
        (InferenceBody(binary=True), ["scores", "boxes"]),
        (InferenceBody(binary=True, binary_named=(("boxes", False),)), ["scores"]),
        (InferenceBody(binary_named=(("boxes", True),)), ["boxes"]),
    ],
)
def test_outputs_are_bytes_where_asked(body: InferenceBody, names: list[str]) -> None:
    content, length = encode_answer(RESULT, body)
    document = json.loads(content[:length])
    kept = {"scores": SCORES.content, "boxes": BOXES.content}
    assert [each["name"] for each in document["outputs"]] == ["scores", "boxes"]
    assert [each["name"] for each in document["outputs"] if "data" not in each] == names
    assert (length is None) == (not names)
    assert content[length or len(content) :] == b"".join(kept[name] for name in names)


def test_wishes_for_outputs_are_read() -> None:
    wanted = [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]
    body = parts(announced(4), tail=b"abcd", outputs=wanted, parameters={"binary_data_output": False, "timeout": 2500})
    assert (body.outputs, body.is_binary("a"), body.is_binary("b"), body.deadline_ms) == (("b", "a"), False, True, 2.5)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"name": "a"}, {"name": "a"}], "outputs: name each output once"),
        ([{"name": "a", "parameters": {"classification": 3}}], "classification is not served here"),
        ([{"name": "a", "parameters": {"binary_data": 1}}], "must be true or false"),
        ([{}], r"outputs\[0\]\.name: is missing"),
        ({}, "outputs: must be a list of at most 32"),
    ],
)
def test_wishes_that_cannot_be_are_refused(outputs: object, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parts(announced(4), tail=b"abcd", outputs=outputs)


KINDS = st.sampled_from([DType.FP32, DType.INT8, DType.UINT8, DType.INT16, DType.INT32, DType.INT64])


@given(st.lists(st.tuples(KINDS, st.binary(max_size=40)), min_size=1, max_size=5))
def test_what_is_answered_as_bytes_can_be_sent_as_bytes(kinds: list[tuple[DType, bytes]]) -> None:
    tensors = []
    for index, (dtype, noise) in enumerate(kinds):
        count = 1 + len(noise) // dtype.item_bytes
        content = (noise + bytes(8))[: count * dtype.item_bytes]
        tensors.append(Tensor(f"t{index}", dtype, (count,), content))
    result = replace(RESULT, outputs=tuple(tensors))
    content, length = encode_answer(result, InferenceBody(binary=True))
    assert length is not None
    head = json.dumps({"inputs": json.loads(content[:length])["outputs"]}).encode()
    assert decode_parts(head + content[length:], len(head)).inputs == tuple(tensors)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_are_a_body_or_the_one_error(payload: bytes, length: int) -> None:
    try:
        body = decode_parts(payload, length)
    except BadRequest:
        return
    assert body.raw == payload or body.inputs or body.source
