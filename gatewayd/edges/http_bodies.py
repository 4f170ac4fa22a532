"""Reading request bodies: bounded before they are taken in, and only for so long."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from aiohttp import web

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.events import GatewayEvent, InputRefused
from gatewayd.edges.http_answers import json_error
from gatewayd.edges.http_routes import Call
from gatewayd.wire.json_text import parse_json
from gatewayd.wire.tensor_json import read_mapping


class Bodies:
    """Reads bodies; `body_s` is how long a whole one may take. Malformed and oversized input is announced."""

    def __init__(self, *, body_s: float, notify: Callable[[GatewayEvent], None]) -> None:
        self._body_s = body_s
        self.counted = _Counting(notify)

    async def read(self, call: Call) -> bytes:
        """Return the body.

        Raises: TooLarge (told by its length, or found by counting what came, unpacked), HTTPRequestTimeout.
        """
        content, limit = call.request.content, call.limit_bytes
        check_length(call.request, limit)
        if content.is_eof():  # it came with the head: nothing to wait for
            body = content.read_nowait(-1)
            if len(body) > limit:
                raise TooLarge(f"the body is over the limit of {limit} bytes")
            return body
        return await self._read_on(call)

    async def _read_on(self, call: Call) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_s):
                while chunk := await call.request.content.readany():
                    body += chunk
                    if len(body) > call.limit_bytes:
                        raise TooLarge(f"the body is over the limit of {call.limit_bytes} bytes")
        except TimeoutError as error:
            raise web.HTTPRequestTimeout from error
        except (web.RequestPayloadError, ConnectionError) as error:  # it hung up: an ordinary thing where radios are
            raise BadRequest("the body is cut off or wrongly packed") from error
        return bytes(body)

    async def read_object(self, call: Call, *, known: Sequence[str]) -> Mapping[str, object]:
        """Return the body as a JSON object with no other keys than `known`; no body is an empty one.

        Raises: as `read`; BadRequest.
        """
        body = await self.read(call)
        document = parse_json(body or b"{}")
        return read_mapping(document, "body", known=known)


class _Counting:
    """As a context: announces malformed and oversized input. One for all requests, it holds nothing of theirs."""

    def __init__(self, notify: Callable[[GatewayEvent], None]) -> None:
        self._notify = notify

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Announce what was wrong, if that is how it ended."""
        if isinstance(error, BadRequest | TooLarge):
            self._notify(InputRefused("http", error.code, str(error)))


def check_length(request: web.BaseRequest, limit_bytes: int) -> None:
    """Raises: TooLarge when the head announces more than `limit_bytes`."""
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(f"a body of {request.content_length} bytes is over the limit of {limit_bytes} bytes")


async def answer_expect(request: web.BaseRequest, limit_bytes: int, *, is_protocol: bool) -> web.Response | None:
    """Answer `Expect: 100-continue`: a body over the limit is refused before it is sent."""
    try:
        check_length(request, limit_bytes)
    except TooLarge as error:
        return json_error(error, is_protocol=is_protocol)
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None
