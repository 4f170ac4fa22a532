"""CoAP requests ↔ the object tree: content formats, blocks in both directions, observation. For plain asyncio.

Blocks are put together here, not by aiocoap: a package goes to flash as it comes, may begin in its middle, and nothing else is
larger than a device's buffer. Source: RFC 7252, RFC 7641, RFC 7959; OMA LwM2M Transport 1.1.1, section 6.4.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiocoap import Message, resource  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.numbers.codes import Code  # type: ignore[import-untyped]  # as above
from aiocoap.numbers.constants import Unreliable  # type: ignore[import-untyped]  # as above

from gatewayd.core.errors import BadRequest
from gatewayd.sim.objects import (
    BAD_REQUEST,
    INCOMPLETE,
    NOT_ALLOWED,
    NOT_FOUND,
    TOO_BIG,
    UNSUPPORTED_FORMAT,
    ObjectTree,
    Refusal,
    Rendered,
)
from gatewayd.wire.lwm2m.composite import FORMATS, decode_paths
from gatewayd.wire.lwm2m.formats import format_of
from gatewayd.wire.lwm2m.paths import INSTANCE, RESOURCE, Path, parse_path
from gatewayd.wire.lwm2m.values import Record

MAX_BODY_BYTES = 262_144
"""What one write may bring that is no package: an input. Protects the board's memory."""
_BLOCK_BYTES, _BLOCK_EXPONENT = 1024, 6
_CONTINUE = 95  # 2.31, RFC 7959 section 2.9.1

Feed = Callable[[int, int, bytes, bool], Awaitable[None]]
"""Takes (instance, first byte, bytes, whether they are the last) of a package. Raises: Refusal."""


@dataclass(slots=True)
class _Observed:
    path: Path
    request: Message
    observation: Any
    last: tuple[Record, ...]


@dataclass(slots=True)
class _Body:
    key: object
    content: bytearray


class DeviceSite(resource.ObservableResource):  # type: ignore[misc]  # aiocoap ships no types
    """All that a server asks the device. `package` is the object and resource whose writes go to `feed` block by block.

    `is_confirmed` says of an observed place whether what it tells now is worth being repeated until it is acknowledged.
    """

    def __init__(
        self,
        tree: ObjectTree,
        *,
        package: tuple[int, int],
        feed: Feed,
        block_exponent: int = _BLOCK_EXPONENT,
        observes: bool = True,
        is_confirmed: Callable[[Path], bool] = lambda _: True,
        on_request: Callable[[Message], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._tree = tree
        self._package = package
        self._feed = feed
        self._block_exponent = block_exponent
        self._observes = observes
        self._is_confirmed = is_confirmed
        self._on_request = on_request
        self._body: _Body | None = None
        self._observed: list[_Observed] = []

    async def needs_blockwise_assembly(self, request: Message) -> bool:  # noqa: ARG002 - aiocoap's interface
        """See the base class."""
        return False

    async def add_observation(self, request: Message, serverobservation: Any) -> None:  # noqa: ANN401 - aiocoap has no types
        """See the base class. A board that observes nothing answers as if it had only been asked to read."""
        if not self._observes:
            return
        try:
            path = _path(request)
        except Refusal:
            return  # the rendering says why
        observed = _Observed(path, request, serverobservation, self._tree.snapshot(path))
        self._observed.append(observed)
        serverobservation.accept(lambda: self._observed.remove(observed))

    def links(self) -> str:
        """Return what the device registers with."""
        return self._tree.links()

    def changed(self) -> None:
        """Notify whoever observes what is different now."""
        for each in tuple(self._observed):
            now = self._tree.snapshot(each.path)
            if now != each.last:
                each.last = now
                each.observation.trigger(self._news(each))

    def _news(self, observed: _Observed) -> Message | None:
        """Return a notification that asks for no acknowledgement; None: an ordinary one is made."""
        if self._is_confirmed(observed.path):
            return None
        try:
            news = self._got(observed.path, observed.request)
        except Refusal:
            return None
        news.transport_tuning = Unreliable()
        return news

    async def render(self, request: Message) -> Message:
        """Answer one request."""
        self._on_request(request)
        try:
            if request.code == Code.FETCH:
                return self._fetched(request)
            path = _path(request)
            return self._got(path, request) if request.code == Code.GET else await self._put(path, request)
        except Refusal as refusal:
            answer = Message(code=Code(refusal.code), payload=str(refusal).encode()[:200])
            answer.opt.block1 = request.opt.block1
            return answer

    def _got(self, path: Path, request: Message) -> Message:
        rendered = self._tree.read(path, request.opt.accept)
        return _sliced(rendered, request, self._block_exponent)

    def _fetched(self, request: Message) -> Message:
        """Answer a composite read, which only clients from 1.1 on know."""
        kind = format_of(request.opt.content_format)
        if kind not in FORMATS or not self._tree.speaks(kind):
            raise Refusal(UNSUPPORTED_FORMAT, "composite reads are SenML that this device speaks")
        try:
            paths = decode_paths(kind, bytes(request.payload))
        except BadRequest as wrong:
            raise Refusal(BAD_REQUEST, str(wrong)) from None
        return _sliced(self._tree.read_several(paths, kind), request, self._block_exponent)

    async def _put(self, path: Path, request: Message) -> Message:
        if request.code not in {Code.PUT, Code.POST}:
            raise Refusal(NOT_ALLOWED, f"{request.code} is not understood here")
        if request.code == Code.PUT and request.opt.uri_query and not request.payload:
            return Message(code=Code.CHANGED)  # notification attributes: taken, every change is notified anyway
        if self._is_package(path):
            return await self._fed(path, request)
        whole = self._assembled(path, request)
        if whole is None:
            return _acknowledged(request, _CONTINUE, self._block_exponent)
        if request.code == Code.POST and path.depth == RESOURCE:
            await self._tree.execute(path, _text(whole))
        elif request.code == Code.POST and path.depth < INSTANCE:
            raise Refusal(NOT_ALLOWED, "instances are neither made nor taken away")
        else:
            await self._tree.write(path, whole, request.opt.content_format)
        return _acknowledged(request, int(Code.CHANGED), self._block_exponent)

    def _is_package(self, path: Path) -> bool:
        return path.depth == RESOURCE and (path.ids[0], path.ids[2]) == self._package

    async def _fed(self, path: Path, request: Message) -> Message:
        block = request.opt.block1
        is_last = block is None or not block.more
        await self._feed(path.ids[1], block.start if block is not None else 0, request.payload, is_last)
        return _acknowledged(request, int(Code.CHANGED) if is_last else _CONTINUE, self._block_exponent)

    def _assembled(self, path: Path, request: Message) -> bytes | None:
        """Return the whole body, None while blocks are missing. One body at a time: a device has one buffer."""
        block = request.opt.block1
        if block is None:
            return bytes(request.payload)
        key = (str(path), request.remote.blockwise_key, request.opt.content_format)
        if block.start == 0:
            self._body = _Body(key, bytearray())
        if self._body is None or self._body.key != key or block.start > len(self._body.content):
            raise Refusal(INCOMPLETE, "the blocks before are not here")
        if block.start + len(request.payload) > MAX_BODY_BYTES:
            raise Refusal(TOO_BIG, f"at most {MAX_BODY_BYTES} bytes")
        self._body.content[block.start :] = request.payload
        return None if block.more else bytes(self._body.content)


def _path(request: Message) -> Path:
    try:
        return parse_path("/".join(request.opt.uri_path))
    except BadRequest as wrong:
        raise Refusal(NOT_FOUND, str(wrong)) from None


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Refusal(BAD_REQUEST, "arguments are text") from None


def _sliced(rendered: Rendered, request: Message, most_exponent: int) -> Message:
    """Return the block that was asked for, or all when it fits one."""
    asked = request.opt.block2
    exponent = min(asked.size_exponent, most_exponent) if asked is not None else most_exponent
    number, size = asked.start >> (exponent + 4) if asked is not None else 0, 2 ** (exponent + 4)
    part = rendered.content[number * size : (number + 1) * size]
    if number and not part:
        raise Refusal(BAD_REQUEST, "there is no such block")
    answer = Message(code=Code.CONTENT, payload=part, content_format=int(rendered.format))
    is_more = (number + 1) * size < len(rendered.content)
    if is_more or number:
        answer.opt.block2 = (number, is_more, exponent)
        answer.opt.etag = hash(rendered.content).to_bytes(8, "big", signed=True)
    return answer


def _acknowledged(request: Message, code: int, most_exponent: int) -> Message:
    """A block is taken whole even where smaller ones are asked for from then on. Source: RFC 7959, section 2.3."""
    answer, block = Message(code=Code(code)), request.opt.block1
    if block is not None:
        answer.opt.block1 = (block.block_number, block.more, min(block.size_exponent, most_exponent))
    return answer
