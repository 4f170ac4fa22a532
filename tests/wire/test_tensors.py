import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.cost import Costs
from gatewayd.core.errors import BadRequest, CallerError, TooLarge, UnknownModel
from gatewayd.core.names import DeviceId, RequestId
from gatewayd.core.request import NODE, InferenceResult, Measured, Privacy, SensorRef, Target
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tensors import InferenceBody, decode_body, encode_error, encode_result, read_body, read_raw

RESULT = InferenceResult(
    id=RequestId("r-1"),
    model="kws",
    version=2,
    variant="tflite-int8",
    outputs=(Tensor("scores", DType.FP32, (1, 2), struct.pack("<2f", 0.1, 0.9)),),
    ran_on=Target(DeviceId("cam-7")),
    reason="cheapest",
    predicted=Costs(latency_s=0.004, energy_uj=12.5, link_bytes=40.0, failure=0.01),
    measured=Measured(total_s=0.0051, compute_s=0.003, energy_uj=11.0, link_bytes=44),
    label="yes",
    score=0.9,
    sample=3,
    attempts=("node: worker died",),
)


def tensor(**changes: object) -> dict[str, object]:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4], **changes}


def decode(document: object) -> InferenceBody:
    return decode_body(json.dumps(document).encode(), "application/json")


def test_inline_inputs_flat_and_nested_are_the_same() -> None:
    flat = decode({"inputs": [tensor()]})
    nested = decode({"inputs": [tensor(data=[[1, 2.5], [3, 4]])]})
    assert flat == nested
    assert flat.inputs == (Tensor("x", DType.FP32, (2, 2), struct.pack("<4f", 1, 2.5, 3, 4)),)
    assert (flat.raw, flat.source, flat.pin, flat.privacy) == (None, None, None, Privacy.ANY)


def test_by_reference_with_parameters() -> None:
    parameters = {"placement": "device:cam-7", "deadline_ms": 250, "privacy": "stay_on_device", "class": "fast"}
    body = decode({"id": "a-1", "device": "cam-7", "input": "frame", "parameters": parameters})
    assert body == InferenceBody(
        source=SensorRef(DeviceId("cam-7"), "frame"),
        pin=Target(DeviceId("cam-7")),
        privacy=Privacy.STAY_ON_DEVICE,
        deadline_ms=250.0,
        request_class="fast",
        id="a-1",
    )


@pytest.mark.parametrize(("text", "pin"), [("auto", None), ("node", NODE), ("device:a", Target(DeviceId("a")))])
def test_placements(text: str, pin: Target | None) -> None:
    assert decode({"inputs": [tensor()], "parameters": {"placement": text}}).pin == pin


def test_a_preferred_target_is_no_pin() -> None:
    body = decode({"inputs": [tensor()], "parameters": {"placement": "prefer:device:cam-7"}})
    assert (body.pin, body.prefer) == (None, Target(DeviceId("cam-7")))


@pytest.mark.parametrize(
    ("dtype", "data", "content"),
    [
        ("INT8", [-128, 127], b"\x80\x7f"),
        ("UINT8", [0, 255], b"\x00\xff"),
        ("INT16", [-2, 3], b"\xfe\xff\x03\x00"),
        ("INT64", [1, -1], struct.pack("<2q", 1, -1)),
        ("BOOL", [True, False], b"\x01\x00"),
    ],
)
def test_datatypes(dtype: str, data: list[object], content: bytes) -> None:
    assert decode({"inputs": [tensor(shape=[2], datatype=dtype, data=data)]}).inputs[0].content == content


@pytest.mark.parametrize(
    ("payload", "content_type", "raw"),
    [
        (b"\x01\x02", None, b"\x01\x02"),
        (b"{\x01", "application/octet-stream", b"{\x01"),
        (b"ab", "", b"ab"),
    ],
)
def test_raw_bytes(payload: bytes, content_type: str | None, raw: bytes) -> None:
    assert decode_body(payload, content_type).raw == raw


def test_without_a_content_type_a_brace_means_json() -> None:
    assert decode_body(b' \n{"device":"a","input":"b"}', None).source == SensorRef(DeviceId("a"), "b")
    assert decode_body(b'{"device":"a","input":"b"}', "Application/JSON; charset=utf-8").source is not None


def test_raw_with_parameters() -> None:
    body = read_raw(b"\x01", {"id": "q", "parameters": {"placement": "node"}})
    assert body == InferenceBody(raw=b"\x01", pin=NODE, id="q")


DTYPES = "FP32, INT8, UINT8, INT16, INT32, INT64, BOOL"
DEADLINE = "parameters.deadline_ms: must be a number of milliseconds over 0 and up to 3600000"


def by_reference(**parameters: object) -> dict[str, object]:
    return {"device": "a", "input": "b", "parameters": parameters}


MISTAKES: list[tuple[object, str]] = [
    ([], "body: must be a JSON object, got a list"),
    ({}, 'body: give "inputs", or "device" and "input"'),
    ({"inputz": []}, "body: 'inputz' is not known here; known: id, inputs, outputs, parameters, device, input"),
    ({"inputs": []}, "inputs: must be a list of 1 to 32 tensors"),
    ({"inputs": [3]}, "inputs[0]: must be a JSON object, got a number"),
    ({"inputs": [{"name": "x"}]}, "inputs[0].shape: is missing"),
    ({"inputs": [tensor(), tensor(name="")]}, "inputs[1].name: must be a text of 1 to 128 printable characters"),
    ({"inputs": [tensor(datatype="FP64")]}, f"inputs[0].datatype: 'FP64' is not one of {DTYPES}"),
    ({"inputs": [tensor(datatype=["FP32"])]}, f"inputs[0].datatype: \"['FP32']\" is not one of {DTYPES}"),
    (
        {"inputs": [tensor(shape=[0])]},
        "inputs[0].shape: every dimension must be a whole number from 1, of at most 64 bits",
    ),
    (
        {"inputs": [tensor(shape=[True, 4])]},
        "inputs[0].shape: every dimension must be a whole number from 1, of at most 64 bits",
    ),
    ({"inputs": [tensor(shape=[1] * 9)]}, "inputs[0].shape: must be a list of at most 8 dimensions"),
    (
        {"inputs": [tensor(shape=[1, 29, 1, 12], data=[0] * 347)]},
        "inputs[0].data: 347 values for shape [1,29,1,12], which holds 348",
    ),
    ({"inputs": [tensor(data=[[1, 2, 3], [4]])]}, "inputs[0].data[0]: has 3 elements where the shape says 2 elements"),
    (
        {"inputs": [tensor(data=[[1, [2]], [3, 4]])]},
        "inputs[0].data[0][1]: is nested deeper than the shape has dimensions",
    ),
    ({"inputs": [tensor(data=[[1, 2, 3], 4])]}, "inputs[0].data[0]: has 3 elements where the shape says 2 elements"),
    ({"inputs": [tensor(data="AAAA")]}, "inputs[0].data: must be a list, got a text"),
    ({"inputs": [tensor(data=[1, "2", 3, 4])]}, "inputs[0].data[1]: a text is no FP32"),
    ({"inputs": [tensor(data=[1, True, 3, 4])]}, "inputs[0].data[1]: true or false is no FP32"),
    ({"inputs": [tensor(data=[1, 2, 3e39, 4])]}, "inputs[0].data[2]: 3e+39 does not fit FP32"),
    (
        {"inputs": [tensor(data=[1, 2, 10**40, 4])]},
        "inputs[0].data[2]: 1e+40 does not fit FP32",
    ),
    ({"inputs": [tensor(datatype="INT8", data=[1, 2, 3, 128])]}, "inputs[0].data[3]: 128 does not fit INT8"),
    ({"inputs": [tensor(datatype="INT8", data=[1, 2.0, 3, 4])]}, "inputs[0].data[1]: a fraction is no INT8"),
    ({"inputs": [tensor(datatype="BOOL", data=[1, 0, 1, 0])]}, "inputs[0].data[0]: a number is no BOOL"),
    ({"device": "a"}, 'input: is missing: data at a sensor is named as {"device": "cam-7", "input": "frame"}'),
    ({"device": "a", "input": 1}, "input: must be a text of 1 to 128 printable characters"),
    ({"device": "a", "input": "b", "inputs": []}, "inputs: give either inputs or device and input, not both"),
    ({"device": "a", "input": "b", "id": "x\n"}, "id: must be a text of 1 to 128 printable characters"),
    ({"device": "a", "input": "b", "parameters": []}, "parameters: must be a JSON object, got a list"),
    (
        by_reference(deadline=1),
        (
            "parameters: 'deadline' is not known here; known: placement, deadline_ms, privacy, class, "
            "stream, reset, binary_data_output, timeout"
        ),
    ),
    (by_reference(deadline_ms=0), DEADLINE),
    (by_reference(deadline_ms=True), DEADLINE),
    (
        by_reference(placement="moon"),
        "parameters.placement: 'moon' is not auto, node, device:<id> or prefer:device:<id>",
    ),
    (by_reference(privacy="no"), "parameters.privacy: 'no' is not one of any, stay_on_device"),
]


@pytest.mark.parametrize(("document", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_name_their_path(document: object, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(document)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("payload", "content_type", "error", "message"),
    [
        (b'{"a":', None, BadRequest, "the body is not valid JSON: unexpected end of data: line 1 column 6 (char 5)"),
        (b"[" * 100_000, "application/json", BadRequest, "the body is nested too deeply"),
        (b'{"inputs":' + b"[" * 100_000, None, BadRequest, "the body is nested too deeply"),
        (b'{"a":NaN}', None, BadRequest, "the body is not valid JSON: unexpected character"),
        (b'{"a":-Infinity}', None, BadRequest, "the body is not valid JSON: no digit after sign"),
        (b"\xff{", "application/json", BadRequest, "the body is not valid JSON: str is not valid UTF-8"),
        (b"", None, BadRequest, "the body is empty"),
        (b"", "application/json", BadRequest, "the body is empty"),
        (b"a=b", "text/plain", BadRequest, "content type 'text/plain' is not understood: send application/json or"),
        (b" " * 101, "application/json", TooLarge, "a JSON body of 101 bytes is over the limit of 100 bytes"),
        (b"x" * 201, None, TooLarge, "a raw tensor of 201 bytes is over the limit of 200 bytes"),
    ],
)
def test_what_is_no_body(payload: bytes, content_type: str | None, error: type[CallerError], message: str) -> None:
    limit = 100 if error is TooLarge else 2**20
    with pytest.raises(error) as caught:
        decode_body(payload, content_type, max_json_bytes=limit, max_raw_bytes=200)
    assert str(caught.value).startswith(message)


def test_a_number_of_five_thousand_digits_is_refused() -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        decode_body(b'{"inputs":[' + b"9" * 5000 + b"]}", None)


def test_result() -> None:
    document = json.loads(encode_result(RESULT))
    assert document == {
        "id": "r-1",
        "model_name": "kws",
        "model_version": "2",
        "outputs": [{"name": "scores", "shape": [1, 2], "datatype": "FP32", "data": [0.100000001, 0.899999976]}],
        "parameters": {
            "ran_on": "device:cam-7",
            "reason": "cheapest",
            "version": 2,
            "variant": "tflite-int8",
            "label": "yes",
            "score": 0.9,
            "sample": 3,
            "predicted": {"latency_ms": 4.0, "energy_uj": 12.5, "link_bytes": 40.0, "failure": 0.01},
            "measured": {
                "total_ms": 5.1,
                "queue_ms": 0.0,
                "transfer_ms": 0.0,
                "compute_ms": 3.0,
                "energy_uj": 11.0,
                "link_bytes": 44,
            },
            "attempts": ["node: worker died"],
        },
    }


def test_result_without_prediction_and_with_nan() -> None:
    outputs = (Tensor("y", DType.FP32, (1,), struct.pack("<f", float("nan"))),)
    document = json.loads(encode_result(replace(RESULT, predicted=None, outputs=outputs, score=float("inf"))))
    assert document["outputs"][0]["data"] == [None]
    assert document["parameters"]["predicted"] is None
    assert document["parameters"]["score"] is None


def test_error() -> None:
    assert json.loads(encode_error(UnknownModel("no kws"), id="7")) == {
        "error": {"code": "unknown_model", "message": "no kws"},
        "id": "7",
    }
    assert json.loads(encode_error(UnknownModel("no"), id=None)) == {
        "error": {"code": "unknown_model", "message": "no"}
    }


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    ["id", "inputs", "outputs", "parameters", "device", "input", "name", "shape", "datatype", "data", "x"]
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)


@given(DOCUMENTS)
def test_any_document_is_a_body_or_a_bad_request(document: object) -> None:
    try:
        body = read_body(document)
    except BadRequest:
        return
    assert bool(body.inputs) != (body.source is not None)


@given(st.binary(max_size=60), st.sampled_from([None, "application/json", "application/octet-stream", "x/y"]))
def test_any_bytes_are_a_body_or_a_bad_request(payload: bytes, content_type: str | None) -> None:
    try:
        body = decode_body(payload, content_type)
    except BadRequest:
        return
    assert [bool(body.inputs), body.raw is not None, body.source is not None].count(True) == 1


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
@settings(max_examples=50)
def test_floats_survive_the_way_out_and_in(values: list[float]) -> None:
    original = Tensor("y", DType.FP32, (len(values),), struct.pack(f"<{len(values)}f", *values))
    outputs = json.loads(encode_result(replace(RESULT, outputs=(original,))))["outputs"]
    assert decode({"inputs": outputs}).inputs == (original,)
