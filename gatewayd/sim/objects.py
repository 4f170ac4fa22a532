"""The object tree of a simulated LwM2M device: what a server may read, write, execute and discover. No sockets.

Each object says what its instances hold; the tree finds resources, checks what may be done with them, and turns payloads of
the formats this device speaks into values. Source: OMA LwM2M Core 1.1.1, sections 6.3 and 7.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.wire.lwm2m.definitions import Definitions
from gatewayd.wire.lwm2m.formats import SINGLE, Format, decode, encode, format_of
from gatewayd.wire.lwm2m.paths import INSTANCE, OBJECT, RESOURCE, ROOT, Path, path_of
from gatewayd.wire.lwm2m.values import Record, Value

BAD_REQUEST, NOT_FOUND, NOT_ALLOWED, NOT_ACCEPTABLE = 128, 132, 133, 134
INCOMPLETE, TOO_BIG, UNSUPPORTED_FORMAT, INTERNAL, BUSY = 136, 141, 143, 160, 163
"""CoAP response codes as numbers: class * 32 + detail. Source: RFC 7252 section 12.1.2, RFC 7959 section 2.9."""

Values = Mapping[int, "Value | Mapping[int, Value]"]
"""What an instance holds by resource id; a mapping is a multiple resource by the ids of its instances."""


class Refusal(Exception):
    """The device answers with an error: its code, and a text for people."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


class ObjectPart(Protocol):
    """One object of the device. Instances that a call names exist; resources need not."""

    id: int
    version: str

    def instances(self) -> Sequence[int]:
        """Return the ids of its instances."""

    def read(self, instance: int) -> Values:
        """Return all that can be read."""

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return which resources can be written, and which executed."""

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """Take a value. Raises: Refusal."""

    async def execute(self, instance: int, resource: int, arguments: str) -> None:
        """Do it. Raises: Refusal."""


class Fixed:
    """An object whose single instance never changes, or only as its owner says; nothing can be done with it but reading."""

    def __init__(self, id_: int, values: Values, *, version: str = "") -> None:
        self.id, self.version = id_, version
        self.values: dict[int, Value | Mapping[int, Value]] = dict(values)

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return (0,)

    def read(self, instance: int) -> Values:  # noqa: ARG002 - there is one
        """See `ObjectPart`."""
        return self.values

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset(), frozenset()

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        raise NotImplementedError((instance, resource, value))

    async def execute(self, instance: int, resource: int, arguments: str) -> None:
        """See `ObjectPart`."""
        raise NotImplementedError((instance, resource, arguments))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A payload with its content format."""

    content: bytes
    format: Format


class ObjectTree:
    """All objects of one device. `formats` is what it speaks, the preferred one of several values first.

    `names_root`: it registers with the root and its formats. `needs_accept`: a read that names no format is answered with 5.00.
    """

    def __init__(
        self,
        parts: Iterable[ObjectPart],
        *,
        formats: Sequence[Format],
        definitions: Definitions,
        names_root: bool = True,
        needs_accept: bool = False,
    ) -> None:
        self._names_root, self._needs_accept = names_root, needs_accept
        self._parts = {part.id: part for part in parts}
        self._formats = tuple(formats)
        self._definitions = definitions

    def speaks(self, kind: Format) -> bool:
        """Return whether the device has that format."""
        return kind in self._formats

    def links(self) -> str:
        """Return what it registers with: the root with its formats, then objects and instances (RFC 6690)."""
        formats = " ".join(str(int(each)) for each in self._formats if each not in SINGLE)
        root = f'</>;rt="oma.lwm2m";ct="{formats}"' if " " in formats else f'</>;rt="oma.lwm2m";ct={formats}'
        return ",".join(
            [
                *([root] if self._names_root else []),
                *(link for part in self._parts.values() for link in _part_links(part)),
            ]
        )

    def read(self, path: Path, accept: int | None) -> Rendered:
        """Return what lies at or below `path` in the format asked for, or in the first that has a place for it.

        Raises: Refusal (4.04, 4.05, 4.06).
        """
        records = self._records(path)
        if accept == Format.LINKS:
            return Rendered(self._discovered(path).encode(), Format.LINKS)
        if accept is not None:
            wanted = format_of(accept)
            if wanted not in self._formats:
                raise Refusal(NOT_ACCEPTABLE, f"content format {accept} is not spoken here")
            return self._rendered(wanted, path, records)
        if self._needs_accept:
            raise Refusal(INTERNAL)
        for each in self._formats:
            try:
                return self._rendered(each, path, records)
            except Refusal:
                continue
        raise Refusal(NOT_ACCEPTABLE, "no format of this device has a place for that")

    def read_several(self, paths: Sequence[Path], wanted: Format) -> Rendered:
        """Return what lies at or below any of these; what is not here is left out. Raises: Refusal (4.06)."""
        records = [record for path in paths for record in self.snapshot(path)]
        return self._rendered(wanted, ROOT, tuple(dict.fromkeys(records)))

    def snapshot(self, path: Path) -> tuple[Record, ...]:
        """Return what lies at or below `path`; nothing where nothing is."""
        try:
            return self._records(path)
        except Refusal:
            return ()

    async def write(self, path: Path, payload: bytes, content_format: int | None) -> None:
        """Take the values of a payload. Raises: Refusal (4.00, 4.04, 4.05, 4.15, and what the object says)."""
        if path.depth < INSTANCE:
            raise Refusal(NOT_ALLOWED, "an object is not written as a whole here")
        part, instance = self._found(path)
        wanted = format_of(content_format) if content_format is not None else Format.OPAQUE
        if wanted is None or wanted not in {*self._formats, *SINGLE}:
            raise Refusal(UNSUPPORTED_FORMAT, f"content format {content_format} is not spoken here")
        try:
            records = decode(wanted, path, payload, self._definitions)
        except (BadRequest, TooLarge) as error:
            raise Refusal(BAD_REQUEST, str(error)) from None
        for record in records:
            await self._write(part, instance, record)

    async def execute(self, path: Path, arguments: str) -> None:
        """Execute a resource. Raises: Refusal (4.04, 4.05, and what the object says)."""
        part, instance = self._found(path)
        if path.depth != RESOURCE or path.resource not in part.actions()[1]:
            raise Refusal(NOT_ALLOWED, f"{path} cannot be executed")
        await part.execute(instance, path.ids[2], arguments)

    async def _write(self, part: ObjectPart, instance: int, record: Record) -> None:
        resource = record.path.ids[2]
        if resource not in part.actions()[0]:
            raise Refusal(NOT_ALLOWED, f"{record.path} cannot be written")
        await part.write(instance, resource, record.value)

    def _found(self, path: Path) -> tuple[ObjectPart, int]:
        part = self._parts.get(path.object) if path.object is not None else None
        if part is None or path.instance not in part.instances():
            raise Refusal(NOT_FOUND, f"{path} is not here")
        return part, path.ids[1]

    def _records(self, path: Path) -> tuple[Record, ...]:
        if path.depth < OBJECT:
            raise Refusal(NOT_ALLOWED, "the root is not read as a whole here")
        part = self._parts.get(path.ids[0])
        if part is None or (path.depth > OBJECT and path.ids[1] not in part.instances()):
            raise Refusal(NOT_FOUND, f"{path} is not here")
        instances = part.instances() if path.depth == OBJECT else path.ids[1:2]
        found = tuple(
            record for each in instances for record in _flat(part.id, each, part.read(each)) if record.path in path
        )
        if not found and path.depth >= RESOURCE:
            is_known = path.ids[2] in frozenset().union(*part.actions())
            raise Refusal(NOT_ALLOWED if is_known else NOT_FOUND, f"{path} cannot be read")
        return found

    def _rendered(self, wanted: Format, path: Path, records: tuple[Record, ...]) -> Rendered:
        try:
            return Rendered(encode(wanted, path, records, self._definitions), wanted)
        except BadRequest as error:
            raise Refusal(NOT_ACCEPTABLE, str(error)) from None

    def _discovered(self, path: Path) -> str:
        if path.depth == OBJECT:
            return ",".join(_part_links(self._parts[path.ids[0]], with_resources=True))
        part, instance = self._found(path)
        return ",".join([f"<{path}>", *_resource_links(part, instance)] if path.depth == INSTANCE else [f"<{path}>"])


def _flat(object_id: int, instance: int, values: Values) -> Iterator[Record]:
    for resource, value in sorted(values.items()):
        if isinstance(value, Mapping):
            for id_, each in sorted(value.items()):
                yield Record(path_of(object_id, instance, resource, id_), each)
        else:
            yield Record(path_of(object_id, instance, resource), value)


def values_of(records: Iterable[Record]) -> Values:
    """Return the records of one instance by resource ids."""
    values: dict[int, Value | dict[int, Value]] = {}
    for record in records:
        _, _, resource, *rest = record.path.ids
        if rest:
            several = values.setdefault(resource, {})
            if isinstance(several, dict):
                several[rest[0]] = record.value
        else:
            values[resource] = record.value
    return values


def _part_links(part: ObjectPart, *, with_resources: bool = False) -> Iterator[str]:
    version = f';ver="{part.version}"' if part.version else ""
    if version or with_resources or not part.instances():
        yield f"</{part.id}>{version}"
    for instance in part.instances():
        yield f"</{part.id}/{instance}>"
        if with_resources:
            yield from _resource_links(part, instance)


def _resource_links(part: ObjectPart, instance: int) -> Iterator[str]:
    known = {*part.read(instance), *part.actions()[0], *part.actions()[1]}
    yield from (f"</{part.id}/{instance}/{resource}>" for resource in sorted(known))
