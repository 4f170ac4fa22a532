"""The AsyncAPI description of everything that is said over MQTT: commands from the verb table, inference, events, devices.

Source: AsyncAPI Specification 3.0.0. `docs/asyncapi.yaml` is what `asyncapi_yaml` makes of the table; a test compares them.
"""

from collections.abc import Mapping

import yaml
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gatewayd.api.verb import AnyVerb
from gatewayd.edges.inference_schema import CBOR_ANSWER, CBOR_REQUEST, MQTT_REQUEST, RAW
from gatewayd.edges.mqtt_device_channels import DEVICE_DOWN, DEVICE_UP, Said
from gatewayd.wire.tensors import CBOR, JSON, OCTETS

Json = dict[str, object]

_BASE = "{prefix}/{node}"
_EVENTS: Mapping[str, str] = {
    "push": "Every state and progress of a push",
    "drop": "What became of a model that a device was told to let go",
    "device": "A device came, went, was approved or changed",
    "joining": "Newcomers are let in by themselves for a while, or no longer",
    "model": "A version was admitted, retired or brought back; an alias moved; artifacts were collected",
    "node": "A worker died, a variant was quarantined, an accelerator came or went",
}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
        "id": {"type": "string"},
    },
}
_REQUESTS = ("inference.json", "inference.cbor", "inference.raw")
_ANSWERS = ("inference.answer", "inference.answer.cbor")
_ABOUT = (
    "Actions are the gateway's: it receives commands and sends answers. docs/mqtt.md and docs/device-protocol-mqtt.md tell the "
    "same in words. An answer goes, over MQTT 5, to its request's response topic, with its correlation data; over MQTT 3.1.1 "
    "to `reply_to` in the JSON object, where `id` may stand, too; otherwise below {prefix}/{node}/reply. Over MQTT 5 the "
    "arguments of a command may come as the same map in CBOR (content type application/cbor), in which files are byte strings, "
    "not base64; its answer is JSON."
)


def asyncapi_document(verbs: Mapping[str, AnyVerb], *, version: str) -> Json:
    """Return the whole description."""
    pairs: list[tuple[type, JsonSchemaMode]] = [(verb.arguments, "validation") for verb in verbs.values()]
    pairs += [(verb.result, "serialization") for verb in verbs.values()]
    references, definitions = models_json_schema(pairs, ref_template="#/components/schemas/{model}")
    channels, operations, messages = _clients(verbs, references)
    for part, more in zip((channels, operations, messages), _devices(), strict=True):
        part.update(more)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "gatewayd over MQTT",
            "version": version,
            "description": _ABOUT,
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}:{port}",
                "protocol": "mqtt",
                "protocolVersion": "5.0",
                "description": "Any broker; MQTT 3.1.1 is served alike.",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "1883"}},
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR},
            "messages": messages,
            "parameters": _PARAMETERS,
        },
    }


def asyncapi_yaml(verbs: Mapping[str, AnyVerb], *, version: str) -> str:
    """Return the description as the file that is kept beside the documentation."""
    text: str = yaml.dump(
        asyncapi_document(verbs, version=version), Dumper=_Dumper, sort_keys=False, width=130, allow_unicode=True
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Writes what stands in two places twice: generators of clients stumble over YAML's anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True


_PARAMETERS: Json = {
    "prefix": {"description": "mqtt.prefix of the config", "default": "gatewayd"},
    "node": {"description": "node.name of the config; by default the host's name"},
    "model": {"description": "kws (its stable version), kws:canary (an alias) or kws@3 (a version)"},
    "order": {"description": "The id of a standing order"},
    "device": {"description": "The id of a device"},
}


def _clients(
    verbs: Mapping[str, AnyVerb], references: Mapping[tuple[type, JsonSchemaMode], Json]
) -> tuple[Json, Json, Json]:
    channels: Json = {"reply": {"address": None, "messages": {"error": _message("error")}}}
    operations: Json = {}
    messages: Json = {"error": {"summary": "Why it was not done", "payload": _schema("Error")}}
    replies: Json = {"error": _message("error")}
    for verb in verbs.values():
        name = verb.name
        messages[f"{name}.arguments"] = {
            "summary": verb.summary,
            "payload": references[verb.arguments, "validation"],
        }
        messages[f"{name}.result"] = {
            "summary": f"What {name} answers",
            "payload": references[verb.result, "serialization"],
        }
        replies[f"{name}.result"] = _message(f"{name}.result")
        channels[f"cmd.{name}"] = _channel(f"{_BASE}/cmd/{name}", f"{name}.arguments")
        operations[name] = _receive(
            f"cmd.{name}", f"{verb.summary}. Needs the role {verb.role.name.lower()}.", f"{name}.result"
        )
    channels["reply"] = {
        "address": None,
        "description": f"The response topic or `reply_to` of the request, else {_BASE}/reply/…",
        "messages": replies,
    }
    _add_inference(channels, operations, messages, references[verbs["infer"].result, "serialization"])
    _add_told(channels, operations, messages, references[verbs["infer"].result, "serialization"])
    return channels, operations, messages


def _add_inference(channels: Json, operations: Json, messages: Json, answer: Json) -> None:
    """Add a request in each of its encodings, and its answers."""
    messages["inference.json"] = {
        "summary": "An inference request in the Open Inference Protocol's JSON",
        "description": "Also without a content type, when the first character is `{`.",
        "contentType": JSON,
        "payload": MQTT_REQUEST,
    }
    messages["inference.cbor"] = {
        "summary": "The same in CBOR; the answer is CBOR too",
        "description": "MQTT 5 only: 3.1.1 has no content types. Maps have text keys; indefinite lengths are refused.",
        "contentType": CBOR,
        "payload": CBOR_REQUEST,
    }
    messages["inference.raw"] = {
        "summary": "The content of the only input: little-endian, row-major, without a header",
        "description": "Real values as the signature says, or those that a variant stores, told apart by their number of bytes. "
        "Also without a content type, when the first byte is no `{`. The answer is JSON.",
        "contentType": OCTETS,
        "payload": RAW,
    }
    messages["inference.answer"] = {
        "summary": "Outputs, where it ran, why, and what it cost",
        "contentType": JSON,
        "payload": answer,
    }
    messages["inference.answer.cbor"] = {
        "summary": "The answer to a request in CBOR",
        "contentType": CBOR,
        "payload": CBOR_ANSWER,
    }
    channel = _channel(f"{_BASE}/infer/{{model}}", "inference.json", "model")
    channels["infer"] = {**channel, "messages": {name: _message(name) for name in _REQUESTS}}
    operations["inference"] = _receive("infer", "Run one inference wherever it is cheapest", *_ANSWERS)
    replies = channels["reply"]
    assert isinstance(replies, dict)  # noqa: S101 - made a few lines above
    replies["messages"].update({name: _message(name) for name in _ANSWERS})


def _add_told(channels: Json, operations: Json, messages: Json, answer: Json) -> None:
    """Add what the node says by itself."""
    messages["status"] = {
        "summary": "Whether the node is there: retained, and its last will",
        "payload": {
            "type": "object",
            "required": ["state", "node"],
            "properties": {"state": {"enum": ["online", "offline"]}, "node": {"type": "string"}},
        },
    }
    channels["status"] = _channel(f"{_BASE}/status", "status")
    operations["status.told"] = _send("status", "Say that the node is there")
    for kind, summary in _EVENTS.items():
        messages[f"event.{kind}"] = {"summary": summary, "payload": {"type": "object"}}
        channels[f"event.{kind}"] = _channel(f"{_BASE}/event/{kind}", f"event.{kind}")
        operations[f"event.{kind}.told"] = _send(f"event.{kind}", summary)
    order: Json = {"type": "object", "required": ["order"], "properties": {"order": {"type": "string"}}}
    messages["order.told"] = {
        "summary": "An answer to a standing order; or that it fails (`error`, `failing`), or that it ended (`ended`)",
        "payload": {"allOf": [order, {"anyOf": [answer, _schema("Error"), {"type": "object", "required": ["ended"]}]}]},
    }
    channels["stream"] = _channel(f"{_BASE}/stream/{{order}}", "order.told", "order")
    operations["stream.told"] = _send("stream", "Tell what a standing order brings")


def _devices() -> tuple[Json, Json, Json]:
    """Return channels, operations and messages of the device protocol."""
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    for direction, table in (("up", DEVICE_UP), ("down", DEVICE_DOWN)):
        for kind, said in table.items():
            name = f"device.{direction}.{kind}"
            messages[name] = _device_message(said)
            channels[name] = {
                **_channel(f"{_BASE}/device/{{device}}/{direction}/{kind}", name, "device"),
                "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
            }
            heard = _receives(name, said.summary) if direction == "up" else _send(name, said.summary)
            operations[name] = {**heard, "bindings": {"mqtt": {"qos": said.qos, "retain": said.retain}}}
    return channels, operations, messages


def _device_message(said: Said) -> Json:
    return {
        "summary": said.summary,
        "contentType": "application/octet-stream" if said.layout else "application/json",
        **({"description": said.layout} if said.layout else {}),
        "payload": {"type": "string", "format": "binary"} if said.layout else said.schema,
    }


def _channel(address: str, message: str, *parameters: str) -> Json:
    names = ("prefix", "node", *parameters)
    return {
        "address": address,
        "messages": {message: _message(message)},
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in names},
    }


def _receive(channel: str, summary: str, *answers: str) -> Json:
    return {
        **_receives(channel, summary),
        "reply": {
            "channel": {"$ref": "#/channels/reply"},
            "messages": [_of_reply(each) for each in (*answers, "error")],
        },
    }


def _receives(channel: str, summary: str) -> Json:
    return {"action": "receive", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _send(channel: str, summary: str) -> Json:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _of_reply(message: str) -> Json:
    return {"$ref": f"#/channels/reply/messages/{message}"}


def _message(name: str) -> Json:
    return {"$ref": f"#/components/messages/{name}"}


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
