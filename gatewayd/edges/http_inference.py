"""The Open Inference Protocol's own routes: infer, metadata, readiness and the model repository.

Source: Open Inference Protocol v2, "HTTP/REST"; Triton Inference Server, "Binary tensor data extension" and "Model
repository extension".
"""

import asyncio
import re
from collections.abc import Callable

from aiohttp import hdrs, web

from gatewayd import __version__
from gatewayd.api.table import Api
from gatewayd.core.errors import BadRequest, GatewayError
from gatewayd.edges.http_answers import JSON_HEADERS, json_bytes, json_document, json_error, json_model
from gatewayd.edges.http_bodies import Bodies
from gatewayd.edges.http_ready import ready_answer
from gatewayd.edges.http_routes import Call
from gatewayd.wire.json_text import render_json
from gatewayd.wire.tensor_answers import encode_answer, encode_reply
from gatewayd.wire.tensor_repeats import Repeats
from gatewayd.wire.tensors import CBOR, InferenceBody, decode_body, decode_parts

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")

# What curl -d says when nobody said anything: no content type at all.
_UNSAID = "application/x-www-form-urlencoded"
_LONG_BYTES = 2**18  # reading this much JSON takes about 2 ms; beyond it the loop is not held up
_MAX_DIGITS = 10


class InferenceRoutes:
    """Handlers of /v2 over the API."""

    def __init__(self, api: Api, bodies: Bodies, *, rouse: Callable[[], object]) -> None:
        self._api = api
        self._rouse = rouse
        self._bodies = bodies
        self._repeats = Repeats()

    async def infer(self, call: Call) -> web.StreamResponse:
        """Run one inference."""
        self._rouse()
        headers = call.request.headers
        with self._bodies.counted:
            payload = await self._bodies.read(call)
            body = await self._decoded(
                payload, headers.get(hdrs.CONTENT_TYPE), headers.get(HEADER_LENGTH), call.limit_bytes
            )
        try:
            result = await self._api.infer(call.model, body)
        except GatewayError as error:
            return json_error(error, request_id=body.id, is_protocol=True)
        if body.is_cbor:
            return web.Response(body=encode_reply(result, body)[0], content_type=CBOR)
        content, json_length = encode_answer(result, body)
        if json_length is None:
            return ready_answer(call.request, content, JSON_HEADERS)
        octets = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(json_length)}
        return ready_answer(call.request, content, octets)

    async def _decoded(self, payload: bytes, kind: str | None, header_length: str | None, limit: int) -> InferenceBody:
        json_bytes_there = len(payload) if header_length is None else _length(header_length)
        said = None if kind == _UNSAID else kind
        if json_bytes_there > _LONG_BYTES:
            decode = _decode if header_length is None else _decode_parts
            return await asyncio.to_thread(decode, payload, said, json_bytes_there, limit)
        if header_length is None:
            return self._repeats.decode(payload, said, max_json_bytes=limit, max_raw_bytes=limit)
        return _decode_parts(payload, said, json_bytes_there, limit)

    async def metadata(self, call: Call) -> web.StreamResponse:
        """Tell the model's inputs and outputs."""
        return json_model(self._api.metadata(call.model))

    async def model_ready(self, call: Call) -> web.StreamResponse:
        """Tell whether the model can be asked: 404 when it is not there."""
        return json_document({"name": self._api.metadata(call.model).name, "ready": True})

    async def server(self, _: Call) -> web.StreamResponse:
        """Tell what this server is."""
        return json_document({"name": "gatewayd", "version": __version__, "extensions": list(EXTENSIONS)})

    async def index(self, call: Call) -> web.StreamResponse:
        """List what the repository holds: an array, as Triton answers."""
        with self._bodies.counted:
            wanted = await self._bodies.read_object(call, known=("ready",))
        rows = self._api.repository_index(only_ready=wanted.get("ready") is True)
        return json_bytes(render_json([row.model_dump() for row in rows]))

    async def load(self, call: Call) -> web.StreamResponse:
        """Load a model before it is needed."""
        return await self._moved("models.load", call)

    async def unload(self, call: Call) -> web.StreamResponse:
        """Let a model's workers go until it is asked again."""
        return await self._moved("models.unload", call)

    async def _moved(self, verb: str, call: Call) -> web.StreamResponse:
        with self._bodies.counted:
            given = await self._bodies.read_object(call, known=("parameters",))
            _refuse_overrides(given.get("parameters"))
            arguments = {"model": call.model}
            return json_model(await self._api.call(verb, arguments, call.caller))


def _decode(payload: bytes, kind: str | None, _: int, limit: int) -> InferenceBody:
    return decode_body(payload, kind, max_json_bytes=limit, max_raw_bytes=limit)


def _decode_parts(payload: bytes, _: str | None, json_length: int, limit: int) -> InferenceBody:
    return decode_parts(payload, json_length, max_json_bytes=limit, max_raw_bytes=limit)


def _length(text: str) -> int:
    if not re.fullmatch(rf"[0-9]{{1,{_MAX_DIGITS}}}", text):
        raise BadRequest(f"{HEADER_LENGTH}: {text[:40]!r} is no number of bytes")
    return int(text)


def _refuse_overrides(parameters: object) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise BadRequest("parameters: must be a JSON object")
    if any(key != "unload_dependents" for key in parameters):
        raise BadRequest("parameters: models come by models.add: a load request brings no configuration and no files")
