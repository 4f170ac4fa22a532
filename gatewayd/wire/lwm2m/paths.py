"""Where a value lives on a device: `/object/instance/resource/resource instance`, from the root down to any level.

Source: OMA LwM2M Core 1.1.1, section 7.2 (identifiers are 16 bits, 65535 is reserved).
"""

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record

MAX_ID = 65_534
LEVELS = 4
MAX_PATH_CHARS = 24
"""`/65534/65534/65534/65534`: whatever is longer is no path, and is not looked at."""
_MAX_DIGITS = 5
OBJECT, INSTANCE, RESOURCE, RESOURCE_INSTANCE = 1, 2, 3, 4
"""How deep a path goes; 0 is the root."""


@record
class Path:
    """A place in a device's tree. None from some level on: all of what is below.

    Raises: BadRequest when a level is missing before one that is given, or an id is not 0..65534.
    """

    object: int | None = None
    instance: int | None = None
    resource: int | None = None
    resource_instance: int | None = None

    def __post_init__(self) -> None:
        ids = (self.object, self.instance, self.resource, self.resource_instance)
        given = [each for each in ids if each is not None]
        if ids[: len(given)] != tuple(given) or not all(0 <= each <= MAX_ID for each in given):
            raise BadRequest(f"{ids} is no LwM2M path: ids of 0..{MAX_ID}, none left out before another")

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids given, from the object down."""
        ids = (self.object, self.instance, self.resource, self.resource_instance)
        return tuple(each for each in ids if each is not None)

    @property
    def depth(self) -> int:
        """How many levels are given: 0 the root, 1 an object, 2 an instance, 3 a resource, 4 a resource instance."""
        return len(self.ids)

    def __truediv__(self, child: int) -> "Path":
        """Return the path one level down. Raises: BadRequest below a resource instance."""
        return path_of(*self.ids, child)

    def __contains__(self, other: "Path") -> bool:
        """Whether `other` is this place or below it."""
        return other.ids[: self.depth] == self.ids

    def __str__(self) -> str:
        return "/" + "/".join(map(str, self.ids))

    def __lt__(self, other: "Path") -> bool:
        return self.ids < other.ids

    def upper(self, depth: int) -> "Path":
        """Return the part of the path down to `depth`."""
        return path_of(*self.ids[:depth])


ROOT = Path()


def path_of(*ids: int) -> Path:
    """Return the path with these ids. Raises: BadRequest."""
    if len(ids) > LEVELS:
        raise BadRequest(f"{ids}: a path has at most {LEVELS} levels")
    return Path(*ids)


def parse_path(text: str) -> Path:
    """Read `/3/0/9`, `3/0/9` or `/` (a closing slash is allowed: base names have one).

    Raises: BadRequest when it is anything else.
    """
    if len(text) > MAX_PATH_CHARS + 1:
        raise BadRequest(f"{text[:MAX_PATH_CHARS]!r}…: no LwM2M path is so long")
    if text in {"", "/"}:
        return ROOT
    inner = text.removeprefix("/").removesuffix("/")
    return path_of(*(_parse_id(part, text) for part in inner.split("/")))


def _parse_id(part: str, text: str) -> int:
    is_number = part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS
    if not is_number or (part[0] == "0" and part != "0"):
        raise BadRequest(f"{text!r} is no LwM2M path")
    return int(part)
