"""JSON as devices send it, bounded, and the names inside it as paths. What SenML JSON and LwM2M JSON have in common."""

import json
from math import isfinite
from typing import NoReturn

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.paths import ROOT, Path, parse_path
from gatewayd.wire.lwm2m.values import I64_LOW, U64_HIGH

_MAX_DIGITS = 24  # of a whole number; protects time, 64 bits have 20
_MAX_NAME_CHARS = 64


def read_json(payload: bytes) -> object:
    """Parse JSON. Raises: BadRequest: no UTF-8, no JSON, nested too deep, a member twice, NaN, a number that never ends."""
    try:
        parsed: object = json.loads(
            payload.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_finite,
        )
    except RecursionError:
        raise BadRequest("JSON: nested too deep") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BadRequest(f"no JSON: {str(error)[:100]}") from None
    return parsed


def write_json(value: object) -> bytes:
    """Render compact JSON. Raises: BadRequest for NaN and infinities, which JSON has no number for."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise BadRequest("JSON has no number for NaN and infinities") from None


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


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a whole number of more than 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("a number that is no float")
    return number
