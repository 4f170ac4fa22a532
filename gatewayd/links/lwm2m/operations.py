"""Device management: read, discover, write, execute, create, delete, observe, on one device's line.

Every answer's code is checked. Which format a device speaks is tried out and remembered.
Source: OMA LwM2M Core 1.1.1, section 6.3 and 6.4; Transport 1.1.1, section 6.4.3 and 6.4.4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gatewayd.core.errors import BadRequest, DeviceRefused
from gatewayd.links.lwm2m.blocks import fetched, sent
from gatewayd.links.lwm2m.coap import Answer, Ask, Code, Method, Observation, Refusal, Reset, dotted
from gatewayd.links.lwm2m.freshness import Freshness
from gatewayd.links.lwm2m.line import Line
from gatewayd.links.lwm2m.turns import Urgency
from gatewayd.wire.lwm2m.composite import FORMATS, encode_paths
from gatewayd.wire.lwm2m.definitions import Definitions
from gatewayd.wire.lwm2m.formats import Format, decode, encode, format_of
from gatewayd.wire.lwm2m.linkformat import Link, parse_links
from gatewayd.wire.lwm2m.negotiation import Negotiation, Use, format_answered, use_of
from gatewayd.wire.lwm2m.paths import INSTANCE, ROOT, Path
from gatewayd.wire.lwm2m.values import Record, Value

_MOST_EARLY = 8  # protects memory: notifications between the datagram of an answer and its being taken

Heard = Callable[[tuple[Record, ...] | None], None]
"""Takes what an observed place holds now. (): more than a message holds, it has to be read; None: the observation ended."""


@dataclass(slots=True)
class _Told:
    """What an observation tells, in its order: the answer to the question first, though a notification may overtake it."""

    clock: Callable[[], float]
    take: Callable[[Answer | None], None]
    _order: Freshness = field(default_factory=Freshness)
    _early: list[Answer | None] | None = field(default_factory=list)

    def notified(self, news: Answer | None) -> None:
        if self._early is None:
            if news is None or self._order.takes(news.observe, self.clock()):
                self.take(news)
        elif len(self._early) < _MOST_EARLY:
            self._early.append(news)

    def begins_with(self, answer: Answer) -> None:
        early, self._early = self._early or [], None
        for each in (answer, *early):
            self.notified(each)


@dataclass(slots=True)
class Operations:
    """What can be asked of one device. `root` stands before every path; `negotiation` is replaced as it learns.

    `composes`: it may take composite reads; False once it refused one.
    """

    line: Line
    definitions: Definitions
    negotiation: Negotiation
    root: tuple[str, ...] = ()
    composes: bool = False

    async def read(self, path: Path, *, timeout_s: float, urgency: Urgency = Urgency.CONTROL) -> tuple[Record, ...]:
        """Read a resource, an instance or an object; () where it holds nothing.

        Raises: Refusal with the device's code, DeviceRefused when its answer cannot be read, DeviceTimeout, DeviceUnreachable.
        """
        use = use_of(path, self.definitions, is_read=True)
        until_s = self.line.clock() + timeout_s
        answer = Answer(Code.NOT_ACCEPTABLE)
        for tried in self.negotiation.candidates(use):
            ask = Ask(Method.GET, self._path(path), accept=None if tried is None else int(tried))
            answer = await fetched(lambda one: self._asked(one, until_s, urgency), ask)
            if answer.is_success:
                records = self._decoded(path, tried, answer)
                if records is not None:
                    self.negotiation = self.negotiation.worked(use, tried)
                    return records
                continue
            self.negotiation = self.negotiation.failed(use, tried, _pair(answer.code))
            if not self.negotiation.goes_on(use, tried, _pair(answer.code)):
                break
        raise self._refusal("read", path, answer)

    async def read_several(
        self, paths: Sequence[Path], *, timeout_s: float, urgency: Urgency = Urgency.CONTROL
    ) -> tuple[Record, ...]:
        """Read several places, with one question where the device takes it, else one after the other. Raises: as `read`."""
        until_s = self.line.clock() + timeout_s
        kind = next(
            (each for each in self.negotiation.trees if each in FORMATS and each in self.negotiation.says), None
        )
        if self.composes and kind is not None:
            records = await self._composite(kind, paths, until_s, urgency)
            if records is not None:
                return records
            self.composes = False
        found: list[Record] = []
        for path in paths:
            found += await self.read(path, timeout_s=until_s - self.line.clock(), urgency=urgency)
        return tuple(found)

    async def _composite(
        self, kind: Format, paths: Sequence[Path], until_s: float, urgency: Urgency
    ) -> tuple[Record, ...] | None:
        """Return what a composite read gives; None when the device does not understand it."""
        payload = encode_paths(kind, paths)
        ask = Ask(Method.FETCH, self.root, payload=payload, content_format=int(kind), accept=int(kind))
        try:
            answer = await fetched(lambda one: self._asked(one, until_s, urgency), ask)
        except Reset:
            return None
        records = self._decoded(ROOT, kind, answer) if answer.is_success else None
        if records is not None and all(any(each.path in path for path in paths) for each in records):
            return records
        if answer.code == Code.UNAVAILABLE:
            raise self._refusal("composite read", ROOT, answer)
        return None

    async def value(self, path: Path, *, timeout_s: float, urgency: Urgency = Urgency.CONTROL) -> Value:
        """Read one resource's value. Raises: as `read`."""
        records = await self.read(path, timeout_s=timeout_s, urgency=urgency)
        for record in records:
            if record.path == path:
                return record.value
        raise DeviceRefused(f"device {self.line.device}: it answered a read of {path} without its value")

    async def discover(self, path: Path, *, timeout_s: float) -> tuple[Link, ...]:
        """Ask what is below `path`. Raises: as `read`."""
        until_s = self.line.clock() + timeout_s
        ask = Ask(Method.GET, self._path(path), accept=int(Format.LINKS))
        answer = await fetched(lambda one: self._asked(one, until_s, Urgency.CONTROL), ask)
        self._check("discover", path, answer)
        try:
            return parse_links(answer.payload)
        except BadRequest as error:
            raise DeviceRefused(f"device {self.line.device}: it answered a discover of {path} with {error}") from error

    async def write(
        self,
        path: Path,
        records: Sequence[Record],
        *,
        timeout_s: float,
        urgency: Urgency = Urgency.CONTROL,
        is_partial: bool = False,
    ) -> None:
        """Write a resource, or several of an instance (`is_partial`: the others stay). Raises: as `read`."""
        use = use_of(path, self.definitions, is_read=False)
        method = Method.POST if is_partial and path.depth == INSTANCE else Method.PUT
        answer = Answer(Code.UNSUPPORTED_FORMAT)
        for tried in self.negotiation.candidates(use):
            if tried is None:
                continue
            try:
                payload = encode(tried, path, records, self.definitions)
            except BadRequest:
                continue  # this format has no place for the value: opaque bytes only go as such
            answer = await self._sent(method, path, tried, payload, timeout_s=timeout_s, urgency=urgency)
            if answer.is_success:
                self.negotiation = self.negotiation.worked(use, tried)
                return
            self.negotiation = self.negotiation.failed(use, tried, _pair(answer.code))
            if not self.negotiation.goes_on(use, tried, _pair(answer.code)):
                break
        raise self._refusal("write", path, answer)

    async def write_value(
        self, path: Path, value: Value, *, timeout_s: float, urgency: Urgency = Urgency.CONTROL
    ) -> None:
        """Write one resource. Raises: as `read`."""
        await self.write(path, [Record(path, value)], timeout_s=timeout_s, urgency=urgency)

    async def execute(
        self, path: Path, argument: str = "", *, timeout_s: float, urgency: Urgency = Urgency.CONTROL
    ) -> None:
        """Execute a resource; `argument` as in `0='1'`. Raises: as `read`."""
        kind = None if not argument else int(Format.TEXT)
        ask = Ask(Method.POST, self._path(path), payload=argument.encode(), content_format=kind)
        answer = await self._asked(ask, self.line.clock() + timeout_s, urgency)
        self._check("execute", path, answer)

    async def create(self, path: Path, records: Sequence[Record], *, timeout_s: float) -> None:
        """Create an instance of an object; `path` is the instance's. Raises: as `read`."""
        base = path.upper(1)
        use = Use.WRITE_TREE
        answer = Answer(Code.UNSUPPORTED_FORMAT)
        for tried in self.negotiation.candidates(use):
            if tried is None:
                continue
            payload = encode(tried, base, records, self.definitions)
            answer = await self._sent(Method.POST, base, tried, payload, timeout_s=timeout_s, urgency=Urgency.CONTROL)
            if answer.is_success:
                self.negotiation = self.negotiation.worked(use, tried)
                return
            if not self.negotiation.goes_on(use, tried, _pair(answer.code)):
                break
        raise self._refusal("create", path, answer)

    async def delete(self, path: Path, *, timeout_s: float) -> None:
        """Delete an instance. Raises: as `read`."""
        answer = await self._asked(Ask(Method.DELETE, self._path(path)), self.line.clock() + timeout_s, Urgency.CONTROL)
        self._check("delete", path, answer)

    async def observe(self, path: Path, heard: Heard, *, timeout_s: float) -> Observation | None:
        """Have `heard` told what `path` holds, now and at every change, never an older value after a newer one (RFC 7641, 3.4).

        None: the device does not observe it.

        Raises: as `read`.
        """
        use = use_of(path, self.definitions, is_read=True)
        answer = Answer(Code.NOT_ACCEPTABLE)
        for tried in self.negotiation.candidates(use):
            ask = Ask(Method.GET, self._path(path), accept=None if tried is None else int(tried), observe=0)
            told = _Told(self.line.clock, partial(self._notified, path, tried, heard=heard))
            answer, observation = await self.line.observe(ask, told.notified, timeout_s=timeout_s)
            if answer.is_success:
                self.negotiation = self.negotiation.worked(use, tried)
                told.begins_with(answer)
                return observation
            self.negotiation = self.negotiation.failed(use, tried, _pair(answer.code))
            if not self.negotiation.goes_on(use, tried, _pair(answer.code)):
                break
        raise self._refusal("observe", path, answer)

    async def block(self, path: Path, ask: Ask, *, timeout_s: float) -> Answer:
        """Put one block of a long write; the caller judges the answer. Raises: DeviceTimeout, DeviceUnreachable, Overloaded."""
        whole = replace(ask, method=Method.PUT, path=self._path(path))
        return await self._asked(whole, self.line.clock() + timeout_s, Urgency.TRANSFER)

    def _notified(self, path: Path, asked: Format | None, news: Answer | None, *, heard: Heard) -> None:
        if news is None or not news.is_success:
            heard(None)
            return
        if news.block2 is not None and news.block2.more:
            heard(())
            return
        records = self._decoded(path, asked, news)
        if records is not None:
            heard(records)

    async def _sent(
        self, method: Method, path: Path, kind: Format, payload: bytes, *, timeout_s: float, urgency: Urgency
    ) -> Answer:
        until_s = self.line.clock() + timeout_s
        ask = Ask(method, self._path(path), payload=payload, content_format=int(kind))
        return await sent(lambda one: self._asked(one, until_s, urgency), ask)

    async def _asked(self, ask: Ask, until_s: float, urgency: Urgency) -> Answer:
        return await self.line.ask(ask, timeout_s=max(0.0, until_s - self.line.clock()), urgency=urgency)

    def _decoded(self, path: Path, asked: Format | None, answer: Answer) -> tuple[Record, ...] | None:
        """Return the records of an answer, None when it is in a format that cannot be read."""
        kind = format_answered(asked, format_of(answer.content_format), path)
        if kind is None:
            return None
        try:
            return decode(kind, path, answer.payload, self.definitions)
        except BadRequest:
            return None

    def _path(self, path: Path) -> tuple[str, ...]:
        return (*self.root, *map(str, path.ids))

    def _check(self, what: str, path: Path, answer: Answer) -> None:
        if not answer.is_success:
            raise self._refusal(what, path, answer)

    def _refusal(self, what: str, path: Path, answer: Answer) -> Refusal:
        said = answer.payload[:80].decode(errors="replace")
        words = f": {said!r}" if said and not answer.is_success and said.isprintable() else ""
        how = "what cannot be read" if answer.is_success else f"{dotted(answer.code)}{words}"
        return Refusal(f"device {self.line.device} answered a {what} of {path} with {how}", answer.code)


def _pair(code: int) -> tuple[int, int]:
    return code >> 5, code & 31
