"""The OpenAPI description of the HTTP interface, rendered from the verb table.

Source: OpenAPI Specification 3.1.0.
"""

from collections.abc import Mapping

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gatewayd.api.verb import AnyVerb
from gatewayd.edges.http_answers import status_of

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
_OCTETS: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def path_of(verb: AnyVerb) -> str:
    """Return the verb's address: `models.list` answers at `/api/models/list`."""
    return f"/api/{verb.name.replace('.', '/')}"


def openapi_document(verbs: Mapping[str, AnyVerb], *, version: str) -> Json:
    """Return the whole description."""
    pairs: list[tuple[type, JsonSchemaMode]] = [(verb.arguments, "validation") for verb in verbs.values()]
    pairs += [(verb.result, "serialization") for verb in verbs.values()]
    references, definitions = models_json_schema(pairs, ref_template="#/components/schemas/{model}")
    paths = {path_of(verb): _verb_path(verb, references) for verb in verbs.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "gatewayd", "version": version},
        "paths": {**paths, **_protocol_paths(references[verbs["infer"].result, "serialization"])},
        "components": {"schemas": {**definitions.get("$defs", {}), "Error": _ERROR_SCHEMA}},
    }


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
    refusals = {status: _error_response(", ".join(codes)) for status, codes in sorted(errors.items())}
    return {
        "200": {"description": "Done", "content": _json(result)},
        **refusals,
        "default": _error_response("An error"),
    }


def _protocol_paths(answer: Json) -> Json:
    infer: Json = {
        "summary": "Run one inference (Open Inference Protocol v2, or the only input's raw bytes)",
        "requestBody": {"required": True, "content": {**_json({"type": "object"}), **_OCTETS}},
        "responses": {
            "200": {"description": "The answer", "content": _json(answer)},
            "default": _error_response("An error"),
        },
    }
    model, version = _segment("model"), _segment("version")
    return {
        "/v2/models/{model}/infer": {"parameters": [model], "post": {**infer, "operationId": "v2.infer"}},
        "/v2/models/{model}/versions/{version}/infer": {
            "parameters": [model, version],
            "post": {**infer, "operationId": "v2.infer.version"},
        },
        "/v2/models/{model}": {"parameters": [model], "get": _plain("Inputs, outputs and versions of a model")},
        "/v2": {"get": _plain("What this server is")},
        "/v2/health/live": {"get": _plain("Whether the daemon runs")},
        "/v2/health/ready": {"get": _plain("Whether it serves")},
        "/metrics": {"get": _plain("Prometheus metrics", kind="text/plain")},
    }


def _segment(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _plain(summary: str, *, kind: str = "application/json") -> Json:
    schema = {"type": "object" if kind == "application/json" else "string"}
    return {"summary": summary, "responses": {"200": {"description": "Done", "content": {kind: {"schema": schema}}}}}


def _error_response(description: str) -> Json:
    return {"description": description, "content": _json({"$ref": "#/components/schemas/Error"})}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
