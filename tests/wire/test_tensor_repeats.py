import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.wire import tensor_repeats
from gatewayd.wire.tensor_repeats import Repeats
from gatewayd.wire.tensors import InferenceBody, decode_body

JSON = "application/json"
LIMIT = 2_000


def body(data: object = (1, 2, 3, 4), **more: object) -> bytes:
    tensor = {"name": "x", "shape": [2, 2], "datatype": "INT8", "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def outcome(decoded: object, payload: bytes, content_type: str | None) -> InferenceBody | str:
    try:
        return decoded(payload, content_type, max_json_bytes=LIMIT)  # type: ignore[operator, no-any-return]  # either decoder
    except (BadRequest, TooLarge) as error:
        return str(error)


def test_a_second_body_like_the_first_is_not_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats = Repeats()
    for _ in range(2):
        first = repeats.decode(body(parameters={"deadline_ms": 50}), JSON)

    def unneeded(*_: object, **__: object) -> InferenceBody:
        raise AssertionError

    monkeypatch.setattr(tensor_repeats, "decode_body", unneeded)
    second = repeats.decode(body([-1, 2, 3, 127], parameters={"deadline_ms": 50}), JSON)
    assert first.inputs[0].content == b"\x01\x02\x03\x04"
    assert second.inputs[0].content == b"\xff\x02\x03\x7f"
    assert (second.deadline_ms, second.inputs[0].shape) == (50, (2, 2))


# What stands around the numbers of one tensor, so that the place of the numbers could be mistaken for another, or the other way.
FRAMES = [
    ('{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":', "}]}"),
    ('{"inputs":[{"data":', ',"name":"x","shape":[2],"datatype":"INT8"}]}'),
    ('{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data": ', '}],"parameters":{"placement":"node"}}'),
    ('{"inputs":[{"name":"x","shape":[2],"datatype":"BOOL","data":', "}]}"),
    ('{"inputs":[{"name":"x","shape":[2,1],"datatype":"UINT8","data":', "}]}"),
    ('{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":[7,8],"data":', "}]}"),
    ('{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":', ',"data":[7,8]}]}'),
    ('{"inputs":[{"name":"\\"data\\"","shape":[2],"datatype":"INT8","data":', "}]}"),
    ('{"inputs":[{"name":"\\"data\\" ', ' x","shape":[2],"datatype":"INT8","data":[5,6]}]}'),
    ('{"inputs":[{"name":"x","shape":', ',"datatype":"INT8","data":[5,6]}]}'),
    ('{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":[', "]}]}"),
    ('{"id":"a","inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":', "}]}"),
    (
        '{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":',
        '},{"name":"y","shape":[1],"datatype":"INT8","data":[1]}]}',
    ),
    ('{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"data":', '},"data":[0.5]}]}'),
    ('{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":', ',"data":[0.5]}]}'),
    ('{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":', "}]}"),
    ('{"device":"cam-7","input":"\\"data\\"', '"}'),
    ('  {"inputs":[{"name":"x","shape":[2],"datatype":"INT8","data":', "}]}  "),
]
NUMBERS = [
    "[0.5]", "[0.25]", "[7]", "[2.5e-05]", "[1e39]", "[1,2]", "[3, -4]", "[ 3 ,4 ]", "[1.5,2]", "[1e2,2]", "[true,2]",
    "[true,false]", "[1,2,3]", "[[1],[2]]", "[[1,2]]", "[]", "[128,0]", "[1,2", "1,2]", "[1,,2]", "[null,1]", '["1",2]', "5",
    '[1,2],"name":"z"', '[1],"data":[1,2]', "[1,2]}]}", '"[1,2]"', "[1,2] ", "[NaN,1]", "[" + "1," * 1000 + "1]",
]  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from(FRAMES),
            st.sampled_from(NUMBERS),
            st.sampled_from([JSON, None, "application/octet-stream", "application/json; charset=utf-8"]),
        ),
        min_size=2,
        max_size=30,
    )
)
@settings(max_examples=400)
def test_whatever_came_before_a_body_says_the_same(bodies: list[tuple[tuple[str, str], str, str | None]]) -> None:
    repeats = Repeats()
    for (before, behind), numbers, content_type in bodies:
        payload = f"{before}{numbers}{behind}".encode()
        assert outcome(repeats.decode, payload, content_type) == outcome(decode_body, payload, content_type)


def test_numbers_with_exponents_are_not_read_as_a_whole_either(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats, before, behind = Repeats(), FRAMES[2][0], FRAMES[2][1]
    for _ in range(2):
        repeats.decode(f"{before}[1,2]{behind}".encode(), JSON)
    monkeypatch.delattr(tensor_repeats, "decode_body")
    assert list(repeats.decode(f"{before}[2.5e-05,1E3]{behind}".encode(), JSON).inputs[0].values())[1] == 1000.0


@pytest.mark.parametrize("data", [[[1, 2], [3, 4]], [1, 2, 3, 4]])
def test_a_frame_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, data: list[object]) -> None:
    """Nested lists are no frame for numbers: to find that out again and again would cost more than it saves."""
    looks = []

    def look(*asked: bytes) -> bool:
        looks.append(asked)
        return False

    monkeypatch.setattr(tensor_repeats, "_is_the_data", look)
    repeats = Repeats()
    for _ in range(9):
        repeats.decode(body(data), JSON)
    assert len(looks) == 1


def test_more_kinds_of_bodies_than_are_remembered_are_read() -> None:
    repeats = Repeats()
    for _ in range(3):
        for milliseconds in range(1, 200):
            payload = body(parameters={"deadline_ms": milliseconds})
            assert repeats.decode(payload, JSON) == decode_body(payload, JSON)
