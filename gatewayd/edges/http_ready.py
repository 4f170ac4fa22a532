"""Answers that are whole and small go out in one piece.

aiohttp's own response keeps its headers open to change until the last moment, which takes a tenth of a small inference's time.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11

_MOST_BYTES = 2**16  # what is longer is sent in parts, with a look at whether the peer reads


def ready_answer(request: web.BaseRequest, content: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Answer 200 to a POST.

    Who reads slowly, speaks HTTP/1.0 or wants the connection closed is answered in aiohttp's own way.
    """
    transport = request.transport
    if (
        transport is None
        or transport.get_write_buffer_size()
        or len(content) > _MOST_BYTES
        or request.version != HttpVersion11
        or not request.keep_alive
    ):
        return web.Response(body=content, headers=headers)
    return _Ready(content, headers)


class _Ready(web.StreamResponse):
    """Head and content in one write: there are no headers to change any more."""

    def __init__(self, content: bytes, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._content = content
        self._lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])

    @property
    def keep_alive(self) -> bool:
        """It does."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it all. Raises: ConnectionResetError when the peer is gone."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the peer is gone")
        content = self._content
        head = (
            f"HTTP/1.1 200 OK\r\n{self._lines}{hdrs.CONTENT_LENGTH}: {len(content)}\r\n{_today(int(time.time()))}\r\n"
        )
        transport.write(head.encode("ascii") + content)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


@lru_cache(maxsize=1)
def _today(now_s: int) -> str:
    """Return the lines that are the same for a second."""
    return f"{hdrs.DATE}: {formatdate(now_s, usegmt=True)}\r\n{hdrs.SERVER}: {SERVER_SOFTWARE}\r\n"
