"""Strict reading of the small JSON objects of the MQTT device protocol: sizes, types and ranges before anything is believed.

Every refusal is one `BadRequest` that names the member by its path. Nothing here knows what the members mean.
"""

import json
from typing import NoReturn

from gatewayd.core.errors import BadRequest, TooLarge

MAX_STATUS_BYTES = 8192
"""Bounds what one birth message makes the gateway parse and keep."""
MAX_CONTROL_BYTES = 1024
"""Bounds every control message in JSON, in both directions."""
MAX_TEXT_CHARS = 64
MAX_REASON_CHARS = 200
U31 = 2**31 - 1
U32 = 2**32 - 1


class Fields:
    """The members of one JSON object, read one by one; members nobody asks for are ignored (a later version's)."""

    def __init__(self, members: dict[str, object], where: str) -> None:
        self._members = members
        self.where = where

    def has(self, key: str) -> bool:
        """Return whether the member is there and not null."""
        return self._members.get(key) is not None

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise the one error, with the member's place."""
        raise BadRequest(f"{self.where}.{key}: {problem}")

    def whole(self, key: str, low: int, high: int) -> int:
        """Return a whole number of `low`..`high`."""
        value = self._required(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(key, f"must be a whole number of {low}..{high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """Return a number of `low`..`high` (never NaN)."""
        value = self._required(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(key, f"must be a number of {low:g}..{high:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return a truth value; a member that is missing is false."""
        value = self._members[key] if self.has(key) else False
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def text(self, key: str, most: int = MAX_TEXT_CHARS) -> str:
        """Return at most `most` printable characters."""
        return self._text(key, self._required(key), most)

    def optional_text(self, key: str, most: int = MAX_TEXT_CHARS) -> str:
        """Return the text, or "" when the member is missing."""
        return self.text(key, most) if self.has(key) else ""

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        """Return a list of at most `most` texts."""
        return tuple(self._text(f"{key}[{i}]", item, MAX_TEXT_CHARS) for i, item in enumerate(self._items(key, most)))

    def wholes(self, key: str, most: int, *, low: int, high: int) -> tuple[int, ...]:
        """Return a list of at most `most` whole numbers of `low`..`high`."""
        listed = {str(i): item for i, item in enumerate(self._items(key, most))}
        inner = Fields(listed, f"{self.where}.{key}")
        return tuple(inner.whole(index, low, high) for index in listed)

    def inner(self, key: str) -> "Fields":
        """Return the object under `key`."""
        return _as_fields(self._required(key), f"{self.where}.{key}")

    def objects(self, key: str, most: int) -> tuple["Fields", ...]:
        """Return a list of at most `most` objects."""
        items = self._items(key, most)
        return tuple(_as_fields(item, f"{self.where}.{key}[{i}]") for i, item in enumerate(items))

    def _items(self, key: str, most: int) -> list[object]:
        value = self._required(key)
        if not isinstance(value, list) or len(value) > most:
            self.refuse(key, f"must be a list of at most {most}")
        return value

    def _text(self, key: str, value: object, most: int) -> str:
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            self.refuse(key, f"must be a string of at most {most} printable characters")
        return value

    def _required(self, key: str) -> object:
        if not self.has(key):
            self.refuse(key, "is missing")
        return self._members[key]


def read_object(payload: bytes, *, where: str, most_bytes: int) -> Fields:
    """Parse one JSON object.

    Raises: BadRequest when it is too long, no UTF-8, no JSON, nested too deep, has a member twice, NaN or an endless number.
    """
    if len(payload) > most_bytes:
        raise BadRequest(f"{where}: {len(payload)} bytes, at most {most_bytes} are read")
    try:
        parsed: object = json.loads(payload.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadRequest(f"{where}: nested too deep") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BadRequest(f"{where}: no JSON: {error}"[:MAX_REASON_CHARS]) from None
    return _as_fields(parsed, where)


def write_object(members: dict[str, object], *, where: str, most_bytes: int) -> bytes:
    """Render compact JSON in UTF-8.

    Raises: TooLarge when it is over `most_bytes`; a receiver would refuse it.
    """
    payload = json.dumps(members, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(payload) > most_bytes:
        raise TooLarge(f"{where}: {len(payload)} bytes, at most {most_bytes} fit the protocol")
    return payload


def printable(text: str) -> str:
    """Return `text` as a reason may travel: printable, cut to `MAX_REASON_CHARS`."""
    return "".join(each if each.isprintable() else " " for each in text[:MAX_REASON_CHARS])


def _as_fields(value: object, where: str) -> Fields:
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: must be an object")
    return Fields(value, where)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
