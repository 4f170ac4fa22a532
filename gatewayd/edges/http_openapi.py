"""The OpenAPI description of the HTTP interface, rendered from the verb table.

Source: OpenAPI Specification 3.1.0.
"""

from collections.abc import Mapping

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gatewayd.api.loading import RepositoryRow
from gatewayd.api.models import ModelMetadata
from gatewayd.api.verb import AnyVerb
from gatewayd.edges.http_answers import status_of
from gatewayd.edges.http_events import KINDS
from gatewayd.edges.inference_schema import CBOR_ANSWER, CBOR_REQUEST, HTTP_REQUEST, RAW

Json = dict[str, object]

_ERROR_SCHEMA: Json = {
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
# Source: Open Inference Protocol v2, "Inference Response JSON Error Object"; code and id are ours.
_PROTOCOL_ERROR_SCHEMA: Json = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}, "id": {"type": "string"}},
}
_OCTETS: Json = {"application/octet-stream": {"schema": RAW}}
_CBOR_REQUEST: Json = {"application/cbor": {"schema": CBOR_REQUEST}}
_CBOR_ANSWER: Json = {"application/cbor": {"schema": CBOR_ANSWER}}


def path_of(verb: AnyVerb) -> str:
    """Return the verb's address: `models.list` answers at `/api/models/list`."""
    return f"/api/{verb.name.replace('.', '/')}"


def openapi_document(verbs: Mapping[str, AnyVerb], *, version: str) -> Json:
    """Return the whole description."""
    pairs: list[tuple[type, JsonSchemaMode]] = [(verb.arguments, "validation") for verb in verbs.values()]
    pairs += [(verb.result, "serialization") for verb in verbs.values()]
    pairs += [(ModelMetadata, "serialization"), (RepositoryRow, "serialization")]
    references, definitions = models_json_schema(pairs, ref_template="#/components/schemas/{model}")
    paths = {path_of(verb): _verb_path(verb, references) for verb in verbs.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "gatewayd", "version": version},
        # Where the daemon asks for tokens; health is told to everybody.
        "security": [{}, {"token": []}],
        "paths": {**paths, **_events_path(), **_protocol_paths(_protocol_schemas(verbs, references))},
        "components": {
            "schemas": {
                **definitions.get("$defs", {}),
                "Error": _ERROR_SCHEMA,
                "ProtocolError": _PROTOCOL_ERROR_SCHEMA,
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _protocol_schemas(
    verbs: Mapping[str, AnyVerb], references: Mapping[tuple[type, JsonSchemaMode], Json]
) -> Mapping[str, Json]:
    models: Mapping[str, type] = {
        "answer": verbs["infer"].result,
        "loaded": verbs["models.load"].result,
        "metadata": ModelMetadata,
        "row": RepositoryRow,
    }
    return {name: references[model, "serialization"] for name, model in models.items()}


def _verb_path(verb: AnyVerb, references: Mapping[tuple[type, JsonSchemaMode], Json]) -> Json:
    common: Json = {
        "summary": verb.summary,
        "description": f"Needs the role {verb.role.name.lower()}.",
        "responses": _responses(verb, references[verb.result, "serialization"]),
    }
    body = {"required": not verb.is_read, "content": _json(references[verb.arguments, "validation"])}
    post = {**common, "operationId": verb.name, "requestBody": body}
    if not verb.is_read:
        return {"post": post}
    return {"get": {**common, "operationId": f"get.{verb.name}", "parameters": _query(verb)}, "post": post}


def _query(verb: AnyVerb) -> list[Json]:
    schema = verb.arguments.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]


def _responses(verb: AnyVerb, result: Json) -> Json:
    errors: dict[str, list[str]] = {}
    for error in verb.errors:
        errors.setdefault(str(status_of(error)), []).append(error.code)
    refusals = {status: _error_response(", ".join(codes), "Error") for status, codes in sorted(errors.items())}
    return {
        "200": {"description": "Done", "content": _json(result)},
        **refusals,
        "default": _error_response("An error", "Error"),
    }


def _responses_of_protocol(ok: Json) -> Json:
    return {"200": ok, "default": _error_response("An error", "ProtocolError")}


def _protocol_paths(references: Mapping[str, Json]) -> Json:
    model, version = _segment("model", "kws, kws:canary or kws@3"), _segment("version", "a whole number from 1")
    paths: Json = {}
    for address, names, suffix in (
        ("/v2/models/{model}", [model], ""),
        ("/v2/models/{model}/versions/{version}", [model, version], ".version"),
    ):
        paths[f"{address}/infer"] = {"parameters": names, "post": _infer(references, f"v2.infer{suffix}")}
        metadata = _read("Inputs, outputs and versions of a model", references["metadata"], f"v2.metadata{suffix}")
        paths[address] = {"parameters": names, "get": metadata}
        ready: Json = _read("Whether the model can be asked", _MODEL_READY, f"v2.ready{suffix}")
        paths[f"{address}/ready"] = {"parameters": names, "get": ready}
    return {**paths, **_repository_paths(references), **_server_paths()}


def _repository_paths(references: Mapping[str, Json]) -> Json:
    index = _read("Every version, and whether it can be asked", _list(references["row"]), "v2.repository.index")
    body: Json = {"type": "object", "properties": {"ready": {"type": "boolean"}}, "additionalProperties": False}
    paths: Json = {"/v2/repository/index": {"post": {**index, "requestBody": {"content": _json(body)}}}}
    for action, summary in (
        ("load", "Load a model before it is needed"),
        ("unload", "Let a model's workers go until it is asked again"),
    ):
        operation = _read(summary, references["loaded"], f"v2.repository.{action}")
        nothing: Json = {
            "type": "object",
            "properties": {"parameters": {"type": "object"}},
            "additionalProperties": False,
        }
        paths[f"/v2/repository/models/{{model}}/{action}"] = {
            "parameters": [_segment("model", "kws, for load also kws:canary or kws@3")],
            "post": operation | {"requestBody": {"content": _json(nothing)}},
        }
    return paths


def _server_paths() -> Json:
    ready = _read("Whether it serves", _flag("ready"), "v2.health.ready")
    not_ready = {"description": "Starting, or stopping", "content": _json(_flag("ready"))}
    live = _read("Whether the daemon runs", _flag("live"), "v2.health.live")
    is_ready = {**ready, "responses": {"200": _done(_flag("ready")), "503": not_ready}}
    metrics = {"description": "Done", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/v2": {"get": _read("What this server is", _SERVER, "v2.server")},
        "/v2/health/live": {"get": {**live, "security": []}},
        "/v2/health/ready": {"get": {**is_ready, "security": []}},
        "/healthz": {"get": {**live, "operationId": "healthz", "security": []}},
        "/readyz": {"get": {**is_ready, "operationId": "readyz", "security": []}},
        "/metrics": {
            "get": {
                "summary": "Prometheus metrics",
                "operationId": "metrics",
                "responses": {"200": metrics, "default": _error_response("An error", "Error")},
            }
        },
    }


def _events_path() -> Json:
    kinds = ", ".join(KINDS)
    stream = {"description": "Events, until you go", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    kind: Json = {
        "name": "kind",
        "in": "query",
        "required": False,
        "description": f"One or more of {kinds}, separated by commas; all without it",
        "schema": {"type": "string"},
    }
    return {
        "/api/events": {
            "get": {
                "summary": "What happens, as server-sent events",
                "description": "Needs the role viewer. A listener that does not keep up is let go.",
                "operationId": "events",
                "parameters": [kind],
                "responses": {"200": stream, "default": _error_response("An error", "Error")},
            }
        }
    }


def _infer(references: Mapping[str, Json], name: str) -> Json:
    length: Json = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "required": False,
        "description": "Where the JSON ends in a body that has tensors as bytes behind it",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer: Json = {"description": "The answer", "content": {**_json(references["answer"]), **_OCTETS, **_CBOR_ANSWER}}
    return {
        "summary": "Run one inference (Open Inference Protocol v2, binary tensors, CBOR, or the only input's raw bytes)",
        "operationId": name,
        "parameters": [length],
        "requestBody": {"required": True, "content": {**_json(HTTP_REQUEST), **_OCTETS, **_CBOR_REQUEST}},
        "responses": _responses_of_protocol(answer),
    }


_SERVER: Json = {
    "type": "object",
    "required": ["name", "version", "extensions"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "extensions": {"type": "array", "items": {"type": "string"}},
    },
}
_MODEL_READY: Json = {
    "type": "object",
    "required": ["name", "ready"],
    "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}},
}


_PATTERNS = {
    "model": "^[a-z0-9][a-z0-9_-]{0,62}(:[a-z0-9][a-z0-9_-]{0,62}|@[1-9][0-9]{0,8})?$",
    "version": "^[1-9][0-9]{0,8}$",
}


def _segment(name: str, description: str) -> Json:
    schema = {"type": "string", "pattern": _PATTERNS[name]}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _flag(name: str) -> Json:
    return {"type": "object", "required": [name], "properties": {name: {"type": "boolean"}}}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _done(schema: Json) -> Json:
    return {"description": "Done", "content": _json(schema)}


def _read(summary: str, schema: Json, name: str) -> Json:
    return {"summary": summary, "operationId": name, "responses": _responses_of_protocol(_done(schema))}


def _error_response(description: str, schema: str) -> Json:
    return {"description": description, "content": _json({"$ref": f"#/components/schemas/{schema}"})}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
