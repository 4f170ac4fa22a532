"""Numbers and names inside JSON of devices: what SenML JSON and LwM2M JSON have in common. The text is `wire/json_text.py`'s."""

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.paths import ROOT, Path, parse_path
from gatewayd.wire.lwm2m.values import I64_LOW, U64_HIGH

_MAX_NAME_CHARS = 64


def number(value: object, where: str) -> int | float:
    """Return a finite number. Raises: BadRequest."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadRequest(f"{where}: must be a number")
    if not I64_LOW <= value <= U64_HIGH and isinstance(value, int):
        raise BadRequest(f"{where}: has no place in 64 bits")
    return value


def resolved(base: Path, base_name: str | None, name: str) -> Path:
    """Return the place that a base name and a name say, in an answer about `base`.

    Joined as the standard says; where that lies elsewhere, as those devices mean it that leave out a slash or the base.
    Raises: BadRequest when no reading of it lies at or below `base`.
    """
    if len(name) > _MAX_NAME_CHARS or (base_name is not None and len(base_name) > _MAX_NAME_CHARS):
        raise BadRequest(f"the name {name[:_MAX_NAME_CHARS]!r} is too long for a path")
    for text in _readings(base, base_name or "", name):
        path = _path(text)
        if path is not None and path in base:
            return path
    raise BadRequest(f"the name {(base_name or '') + name!r} is no place below {base}")


def name_of(path: Path, base: Path) -> str:
    """Return the name of `path` relative to `base`, without a slash before it: "0/1", or "" for `base` itself."""
    return "/".join(map(str, path.ids[base.depth :]))


def _readings(base: Path, base_name: str, name: str) -> tuple[str, ...]:
    joined = base_name + name
    if base == ROOT or base_name.startswith("/"):  # then a name that leads elsewhere is meant so
        return (joined, f"{base_name}/{name}")
    return (joined, f"{base}/{joined}", f"{base}/{base_name}/{name}")


def _path(text: str) -> Path | None:
    try:
        return parse_path(text.replace("//", "/"))
    except BadRequest:
        return None
