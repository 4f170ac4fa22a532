"""What a device says when it registers: query parameters and links → a Registration; later changes → an Update.

Tolerates what clients in the field leave out or write in their own way; what would make two readings possible is refused.
Source: OMA LwM2M Core 1.1.1, section 6.2; Transport 1.1.1, section 6.4.2.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record
from gatewayd.wire.lwm2m.formats import Format, format_of
from gatewayd.wire.lwm2m.linkformat import Link, parse_links
from gatewayd.wire.lwm2m.paths import INSTANCE, MAX_PATH_CHARS, OBJECT, Path, parse_path

DEFAULT_LIFETIME_S = 86_400
_MAX_LIFETIME_S = 2**32 - 1
MAX_ENDPOINT_CHARS = 128
"""Protects logs, metrics and the store; IMEI, serial numbers and UUIDs as URNs have some 50."""
_MAX_PARAMETERS = 16
_MAX_PARAMETER_CHARS = 255  # what a CoAP Uri-Query option holds
_MAX_SMS_CHARS = 32
_MAX_DIGITS = 10
_MAX_VERSION_CHARS = 8
_TRANSPORTS = frozenset("UTSNMH")  # UDP, TCP, SMS, non-IP, MQTT, HTTP
_FORMATS_READ = {Format.LINKS, Format.TEXT}


class VersionRefused(BadRequest):
    """The device speaks a version of LwM2M that this server does not. On CoAP: 4.12 Precondition Failed."""

    code = "version_refused"


class Version(Enum):
    """Versions of the enabler, oldest first."""

    V1_0 = "1.0"
    V1_1 = "1.1"
    V1_2 = "1.2"


@record
class Binding:
    """How a device is reached: transports by their letters, and whether it sleeps between its updates."""

    transports: str = "U"
    is_queued: bool = False


@record
class RegisteredObject:
    """One object a device has: its version where it says one, and the ids of its instances, ascending."""

    id: int
    version: str | None = None
    instances: tuple[int, ...] = ()


@record
class Registration:
    """A device as it registered. `lifetime_s` None: it never ends (lifetime 0, from 1.1 on).

    `root` is what stands before every path, such as "/lwm2m" ("" mostly); `formats` what it says it speaks, in its order.
    """

    endpoint: str
    lifetime_s: int | None
    version: Version
    binding: Binding
    objects: tuple[RegisteredObject, ...]
    formats: tuple[Format, ...] = ()
    root: str = ""
    sms: str = ""

    def object(self, id: int) -> RegisteredObject | None:  # noqa: A002 - LwM2M's word for it
        """Return the object with that id, None when the device has none."""
        return next((each for each in self.objects if each.id == id), None)

    def instances(self, id: int) -> tuple[int, ...]:  # noqa: A002 - LwM2M's word for it
        """Return the instances of an object, none where the device does not have it."""
        found = self.object(id)
        return () if found is None else found.instances

    def has(self, path: Path) -> bool:
        """Return whether the device registered the object, or the object instance."""
        return path.instance in self.instances(path.object or 0) if path.depth > OBJECT else self._has_object(path)

    def _has_object(self, path: Path) -> bool:
        return path.object is not None and self.object(path.object) is not None


@record
class Update:
    """What changed; None: it stays. `is_endless` says that the lifetime became 0."""

    lifetime_s: int | None = None
    is_endless: bool = False
    binding: Binding | None = None
    sms: str | None = None
    links: "_Links | None" = None

    @property
    def changes_objects(self) -> bool:
        """Whether it came with a list of objects."""
        return self.links is not None

    def applied(self, registration: Registration) -> Registration:
        """Return the registration as it is from now on."""
        lifetime_s = None if self.is_endless else self.lifetime_s or registration.lifetime_s
        changed = replace(
            registration,
            lifetime_s=lifetime_s,
            binding=registration.binding if self.binding is None else self.binding,
            sms=registration.sms if self.sms is None else self.sms,
        )
        if self.links is None:
            return changed
        formats = self.links.formats or registration.formats
        return replace(changed, objects=self.links.objects, root=self.links.root, formats=formats)


@record
class _Links:
    objects: tuple[RegisteredObject, ...]
    formats: tuple[Format, ...]
    root: str


def parse_registration(query: Sequence[str], body: bytes, content_format: int | None = None) -> Registration:
    """Read a registration from its Uri-Query options and its payload.

    Raises: VersionRefused for a version of the enabler that is not 1.0, 1.1 or 1.2; BadRequest; TooLarge.
    """
    parameters = _parameters(query)
    endpoint = parameters.get("ep", "")
    if not 0 < len(endpoint) <= MAX_ENDPOINT_CHARS or not endpoint.isprintable():
        raise BadRequest(f"ep: an endpoint name has 1..{MAX_ENDPOINT_CHARS} printable characters")
    version = _version(parameters.get("lwm2m", ""))
    links = _read_links(body, content_format)
    return Registration(
        endpoint=endpoint,
        lifetime_s=_lifetime(parameters.get("lt"), version) if "lt" in parameters else DEFAULT_LIFETIME_S,
        version=version,
        binding=_binding(parameters) or Binding(),
        objects=links.objects,
        formats=links.formats,
        root=links.root,
        sms=_sms(parameters) or "",
    )


def parse_update(
    query: Sequence[str], body: bytes, content_format: int | None = None, *, version: Version = Version.V1_1
) -> Update:
    """Read an update of a registration made with `version`. Raises: BadRequest, TooLarge."""
    parameters = _parameters(query)
    lifetime_s = _lifetime(parameters["lt"], version) if "lt" in parameters else None
    return Update(
        lifetime_s=lifetime_s,
        is_endless="lt" in parameters and lifetime_s is None,
        binding=_binding(parameters),
        sms=_sms(parameters),
        links=_read_links(body, content_format) if body else None,
    )


def _parameters(query: Sequence[str]) -> Mapping[str, str]:
    if len(query) > _MAX_PARAMETERS or any(len(each) > _MAX_PARAMETER_CHARS for each in query):
        raise BadRequest(f"query: at most {_MAX_PARAMETERS} parameters of {_MAX_PARAMETER_CHARS} characters are read")
    found: dict[str, str] = {}
    for parameter in query:
        key, _, value = parameter.partition("=")
        if key in found:
            raise BadRequest(f"query: {key[:20]!r} stands twice")
        found[key] = value
    return found


def _version(text: str) -> Version:
    """1.0.2 is 1.0; a client that says nothing is older than the parameter, which is mandatory since 1.0."""
    if not text:
        return Version.V1_0
    known = {each.value: each for each in Version}
    version = known.get(".".join(text.split(".")[:2])) if len(text) <= _MAX_VERSION_CHARS else None
    if version is None:
        raise VersionRefused(f"lwm2m={text[:_MAX_VERSION_CHARS]}: this server speaks {', '.join(known)}")
    return version


def _lifetime(text: str | None, version: Version) -> int | None:
    if not text or not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS or int(text) > _MAX_LIFETIME_S:
        raise BadRequest(f"lt: a lifetime is 0..{_MAX_LIFETIME_S} seconds")
    if int(text) == 0 and version is Version.V1_0:
        raise BadRequest("lt: a lifetime of 0 came with LwM2M 1.1")
    return int(text) or None


def _binding(parameters: Mapping[str, str]) -> Binding | None:
    """1.0 writes queue mode into the binding (`b=UQ`), 1.1 as a parameter of its own (`Q`)."""
    if "b" not in parameters:
        return Binding(is_queued=True) if "Q" in parameters else None
    letters = parameters["b"].upper()
    transports = "".join(dict.fromkeys(each for each in letters if each != "Q"))
    if not set(transports) <= _TRANSPORTS:
        raise BadRequest(f"b: {letters[:10]!r} is no binding; its letters are {''.join(sorted(_TRANSPORTS))} and Q")
    return Binding(transports or "U", is_queued="Q" in letters or "Q" in parameters)


def _sms(parameters: Mapping[str, str]) -> str | None:
    sms = parameters.get("sms")
    if sms is not None and (len(sms) > _MAX_SMS_CHARS or not sms.isprintable()):
        raise BadRequest(f"sms: a number has at most {_MAX_SMS_CHARS} printable characters")
    return sms


def _read_links(body: bytes, content_format: int | None) -> _Links:
    """Without a Content-Format they are links, too: some clients leave it out."""
    if content_format is not None and format_of(content_format) not in _FORMATS_READ:
        raise BadRequest(f"content format {content_format}: the objects of a registration are links (40)")
    links = parse_links(body)
    root_link = next((each for each in links if "oma.lwm2m" in (each.attribute("rt") or "").split()), None)
    if root_link is None:
        root_link = next((each for each in links if each.target == "/"), None)
    root = "" if root_link is None else root_link.target.rstrip("/")
    formats = () if root_link is None else _formats(root_link.attribute("ct") or "")
    return _Links(_objects(links, root), formats, root)


def _formats(text: str) -> tuple[Format, ...]:
    """`ct="110 112"`; formats that this program has never heard of are left out."""
    words = text.replace(",", " ").split()
    numbers = [int(each) for each in words if each.isascii() and each.isdigit() and len(each) <= _MAX_DIGITS]
    found = [known for known in map(format_of, numbers) if known is not None]
    return tuple(dict.fromkeys(found))


def _objects(links: Iterable[Link], root: str) -> tuple[RegisteredObject, ...]:
    """Links that are no objects (`</.well-known/core>`) are other people's."""
    instances: dict[int, set[int]] = {}
    versions: dict[int, str] = {}
    for link in links:
        path = _object_path(link.target, root)
        if path is None or path.object is None:
            continue
        ids = instances.setdefault(path.object, set())
        if path.instance is not None:
            ids.add(path.instance)
        version = link.attribute("ver")
        if version and len(version) <= _MAX_VERSION_CHARS and version.isprintable():
            versions.setdefault(path.object, version)
    return tuple(RegisteredObject(id_, versions.get(id_), tuple(sorted(ids))) for id_, ids in sorted(instances.items()))


def _object_path(target: str, root: str) -> Path | None:
    inner = target.removeprefix(root) if root and target.startswith(f"{root}/") else target
    if not inner.strip("/") or len(inner) > MAX_PATH_CHARS:
        return None
    try:
        path = parse_path(inner)
    except BadRequest:
        return None
    return path if path.depth in {OBJECT, INSTANCE} else None
