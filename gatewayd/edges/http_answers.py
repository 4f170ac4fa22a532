"""How outcomes look over HTTP: which error has which status, and every answer as JSON."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping

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
    NodeError,
    NoPlacement,
    NotFound,
    Overloaded,
    TooLarge,
)
from gatewayd.wire.tensors import encode_error

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS: Mapping[type[GatewayError], int] = {
    BadRequest: 400,
    TooLarge: 413,
    NotFound: 404,
    Conflict: 409,
    NoPlacement: 409,
    Forbidden: 403,
    CallerError: 400,
    DeviceTimeout: 504,
    DeviceError: 502,
    DeadlineExceeded: 504,
    NodeError: 503,
    GatewayError: 500,
}
"""The nearest ancestor of an error's class that stands here gives its status."""

_RETRY_S = "1"  # a full queue is worked off in about a second


def status_of(error: type[GatewayError]) -> int:
    """Return the HTTP status of an error class."""
    return next(STATUS[each] for each in error.__mro__ if each in STATUS)


def json_bytes(body: bytes, *, status: int = 200) -> web.Response:
    """Answer with JSON that is encoded already."""
    return web.Response(body=body, status=status, content_type="application/json")


def json_model(model: BaseModel) -> web.Response:
    """Answer with a result model."""
    return json_bytes(model.model_dump_json(by_alias=True).encode())


def json_document(document: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Answer with a JSON object."""
    return json_bytes(json.dumps(document).encode(), status=status)


def json_error(error: GatewayError, *, request_id: str | None = None) -> web.Response:
    """Answer with an error."""
    response = json_bytes(encode_error(error, id=request_id), status=status_of(type(error)))
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = _RETRY_S
    if isinstance(error, TooLarge):
        response.force_close()  # the rest of the body is not worth reading
    return response


@web.middleware
async def render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as JSON. What nobody expected is logged with its traceback, and the daemon goes on."""
    try:
        return await handler(request)
    except GatewayError as error:
        return json_error(error)
    except web.HTTPException as error:
        return _plain_error(error, request)
    except Exception:
        logger.exception("unexpected error in %s %s", request.method, request.path)
        return _coded(500, "internal", "something unexpected happened; the log of gatewayd has the traceback")


def _plain_error(error: web.HTTPException, request: web.Request) -> web.Response:
    what = f"{request.method} {request.path[:200]}"
    messages = {
        404: f"nothing answers {what}; /api/openapi.json lists what does",
        405: f"{what}: another method is needed; /api/openapi.json says which",
    }
    response = _coded(error.status, error.reason.lower().replace(" ", "_"), messages.get(error.status, error.reason))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _coded(status: int, code: str, message: str) -> web.Response:
    return json_document({"error": {"code": code, "message": message}}, status=status)
