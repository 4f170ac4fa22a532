"""What the descriptions say of a request is what the wire reads, and what the wire writes is what they say of an answer."""

import json
import struct
from pathlib import Path
from typing import Any

import cbor2
import pytest

from gatewayd import __version__
from gatewayd.api.table import VERBS
from gatewayd.core.errors import BadRequest
from gatewayd.edges.http_openapi import openapi_document
from gatewayd.edges.inference_schema import CBOR_REQUEST, HTTP_REQUEST, MQTT_REQUEST, Json
from gatewayd.edges.mqtt_asyncapi import asyncapi_document
from gatewayd.wire.tensor_answers import encode_reply
from gatewayd.wire.tensors import CBOR, JSON, decode_body
from tests.services.world import world

jsonschema = pytest.importorskip("jsonschema")
ASYNCAPI: Any = asyncapi_document(VERBS, version=__version__)
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
OPTIONS = {
    "placement": "node", "deadline_ms": 5, "privacy": "any", "class": "default", "stream": "s", "reset": True, "timeout": 5,
}  # fmt: skip


@pytest.mark.parametrize("schema", [HTTP_REQUEST, MQTT_REQUEST, CBOR_REQUEST], ids=["http", "mqtt", "cbor"])
def test_a_schema_names_what_is_read_and_nothing_else(schema: Json) -> None:
    properties: Any = schema["properties"]
    options = set(properties["parameters"]["properties"]) | {"binary_data_output"}
    for document, place, named in (
        ({"?": 1}, "body", set(properties)),
        ({"parameters": {"?": 1}}, "parameters", options),
    ):
        request = {"device": "cam-7", "input": "mic", **document}
        with pytest.raises(BadRequest) as refused:
            decode_body(json.dumps(request).encode(), JSON)
        known = set(str(refused.value).partition("known: ")[2].split(", "))
        assert str(refused.value).startswith(place)
        assert named - {"reply_to"} == known


@pytest.mark.parametrize("more", [{"inputs": [TENSOR]}, {"device": "cam-7", "input": "mic"}])
def test_requests_that_are_read_fit_their_schemas(more: Json) -> None:
    request = {"id": "r", "parameters": {key: value for key, value in OPTIONS.items() if key != "timeout"}, **more}
    decode_body(json.dumps(request).encode(), JSON)
    decode_body(cbor2.dumps(request), CBOR)
    for schema in (HTTP_REQUEST, MQTT_REQUEST, CBOR_REQUEST):
        jsonschema.validate(request, schema)
        mistakes: list[Json] = [{"reply_too": "x"}, {"inputs": []}, {"parameters": {"deadline_ms": 0}}]
        for wrong in mistakes:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({**request, **wrong}, schema)
    packed = {**TENSOR, "data": cbor2.CBORTag(85, struct.pack("<4f", 1, 2, 3, 4))}
    jsonschema.validate({"inputs": [packed]}, CBOR_REQUEST)
    assert decode_body(cbor2.dumps({"inputs": [packed]}), CBOR).inputs[0].content == struct.pack("<4f", 1, 2, 3, 4)


@pytest.mark.parametrize(("request_type", "message"), [(CBOR, "inference.answer.cbor"), (JSON, "inference.answer")])
async def test_answers_are_what_is_described(tmp_path: Path, request_type: str, message: str) -> None:
    async with world(tmp_path) as w:
        await w.add(labels=("a", "b", "c"))
        result = await w.inference.infer(w.request())
    body = decode_body(
        cbor2.dumps({"inputs": [TENSOR]}) if request_type == CBOR else json.dumps({"inputs": [TENSOR]}).encode(),
        request_type,
    )
    answer, content_type = encode_reply(result, body)
    described = ASYNCAPI["components"]["messages"][message]
    assert content_type == described["contentType"]
    document = cbor2.loads(answer) if content_type == CBOR else json.loads(answer)
    jsonschema.validate(document, {**described["payload"], "components": ASYNCAPI["components"]})
    del document["parameters"]["ran_on"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, {**described["payload"], "components": ASYNCAPI["components"]})


def test_each_encoding_is_a_message_of_the_channel_and_of_the_http_body() -> None:
    sent = [ASYNCAPI["components"]["messages"][name] for name in ASYNCAPI["channels"]["infer"]["messages"]]
    assert [each["contentType"] for each in sent] == [
        "application/json",
        "application/cbor",
        "application/octet-stream",
    ]
    paths: Any = openapi_document(VERBS, version=__version__)["paths"]
    body = paths["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]
    assert set(body) == {each["contentType"] for each in sent}
