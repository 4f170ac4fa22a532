"""How outcomes look over HTTP: which error has which status, and every answer as JSON."""

from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel

from gatewayd.core.errors import (
    BadRequest,
    CallerError,
    Conflict,
    DeadlineExceeded,
    DeviceError,
    DeviceTimeout,
    Forbidden,
    GatewayError,
    Internal,
    NodeError,
    NoPlacement,
    NotFound,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from gatewayd.wire.json_text import render_json
from gatewayd.wire.tensors import encode_error

STATUS: Mapping[type[GatewayError], int] = {
    BadRequest: 400,
    TooLarge: 413,
    NotFound: 404,
    Conflict: 409,
    NoPlacement: 409,
    Forbidden: 403,
    Unauthorized: 401,
    RateLimited: 429,
    CallerError: 400,
    DeviceTimeout: 504,
    DeviceError: 502,
    DeadlineExceeded: 504,
    NodeError: 503,
    GatewayError: 500,
}
"""The nearest ancestor of an error's class that stands here gives its status."""

JSON_HEADERS = {"Content-Type": "application/json"}
_RETRY_S = "1"  # a full queue is worked off in about a second


def status_of(error: type[GatewayError]) -> int:
    """Return the HTTP status of an error class."""
    return next(STATUS[each] for each in error.__mro__ if each in STATUS)


def json_bytes(body: bytes, *, status: int = 200) -> web.Response:
    """Answer with JSON that is encoded already."""
    return web.Response(body=body, status=status, headers=JSON_HEADERS)


def json_model(model: BaseModel) -> web.Response:
    """Answer with a result model."""
    return json_bytes(model.model_dump_json(by_alias=True).encode())


def json_document(document: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Answer with a JSON object."""
    return json_bytes(render_json(document), status=status)


def json_error(error: GatewayError, *, request_id: str | None = None, is_protocol: bool = False) -> web.Response:
    """Answer with an error; `is_protocol` gives it the shape of the Open Inference Protocol."""
    status = status_of(type(error))
    if is_protocol:
        response = _protocol_error(status, error.code, str(error), request_id)
    else:
        response = json_bytes(encode_error(error, id=request_id), status=status)
    if isinstance(error, Overloaded | RateLimited):
        response.headers["Retry-After"] = _RETRY_S
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="gatewayd"'
    if isinstance(error, TooLarge):
        response.force_close()  # the rest of the body is not worth reading
    return response


def plain_error(error: web.HTTPException, request: web.BaseRequest) -> web.Response:
    """Answer with an error that aiohttp or the table of routes raised."""
    what = f"{request.method} {request.path[:200]}"
    messages = {
        404: f"nothing answers {what}; /api/openapi.json lists what does",
        405: f"{what}: another method is needed; /api/openapi.json says which",
    }
    code, message = error.reason.lower().replace(" ", "_"), messages.get(error.status, error.reason)
    response = _coded(error.status, code, message, is_protocol=is_protocol_path(request.path))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def unexpected_error(request: web.BaseRequest) -> web.Response:
    """Answer that something went wrong here, and no more."""
    error = Internal()
    return _coded(500, error.code, str(error), is_protocol=is_protocol_path(request.path))


def is_protocol_path(path: str) -> bool:
    """Whether the address belongs to the Open Inference Protocol, whose errors are text."""
    return path.startswith("/v2")


def _coded(status: int, code: str, message: str, *, is_protocol: bool) -> web.Response:
    if is_protocol:
        return _protocol_error(status, code, message, None)
    return json_document({"error": {"code": code, "message": message}}, status=status)


def _protocol_error(status: int, code: str, message: str, request_id: str | None) -> web.Response:
    # Source: Open Inference Protocol v2, "Inference Response JSON Error Object"; code and id are ours.
    document: dict[str, object] = {"error": message, "code": code}
    if request_id is not None:
        document["id"] = request_id
    return json_document(document, status=status)
