"""Records looked up by path and checked: type, range, length. What a device says is believed here and nowhere before."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import NoReturn

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.paths import INSTANCE, RESOURCE, RESOURCE_INSTANCE, Path
from gatewayd.wire.lwm2m.values import Record, Value

MAX_TEXT_CHARS = 64


class Readings:
    """The newest value of each place: by the times that came with them, else the one that stands last."""

    def __init__(self, records: Iterable[Record]) -> None:
        newest: dict[Path, Record] = {}
        for each in records:
            if each.path not in newest or _age(each) <= _age(newest[each.path]):
                newest[each.path] = each
        self._values: Mapping[Path, Value] = {path: each.value for path, each in newest.items()}
        self._paths = [(each.ids, each) for each in self._values]

    def value(self, path: Path) -> Value | None:
        """Return the value at `path`, None when there is none."""
        return self._values.get(path)

    def has(self, path: Path) -> bool:
        """Return whether there is a value at `path`, or below it."""
        ids = path.ids
        return path in self._values or any(each[: len(ids)] == ids for each, _ in self._paths)

    def instances(self, object_id: int) -> tuple[int, ...]:
        """Return the instances of an object that values were read of, ascending."""
        return tuple(sorted({ids[1] for ids, _ in self._paths if len(ids) > INSTANCE and ids[0] == object_id}))

    def refuse(self, path: Path, problem: str) -> NoReturn:
        """Raise the one error, with the resource's place."""
        raise BadRequest(f"{path}: {problem}")

    def whole(self, path: Path, low: int, high: int) -> int:
        """Return a whole number of `low`..`high`. Raises: BadRequest."""
        value = self._required(path)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(path, f"must be a whole number of {low}..{high}")
        return value

    def whole_or(self, path: Path, low: int, high: int, default: int) -> int:
        """Return a whole number, or `default` where there is no value. Raises: BadRequest."""
        return self.whole(path, low, high) if path in self._values else default

    def number_or(self, path: Path, low: float, high: float, default: float) -> float:
        """Return a number of `low`..`high`, or `default` where there is no value. Raises: BadRequest."""
        value = self._values.get(path, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(path, f"must be a number of {low:g}..{high:g}")
        return float(value)

    def flag_or(self, path: Path, default: bool | None) -> bool | None:  # noqa: FBT001 - the value of a resource
        """Return a boolean, or `default` where there is no value. Raises: BadRequest."""
        value = self._values.get(path, default)
        if value is not None and not isinstance(value, bool):
            self.refuse(path, "must be a boolean")
        return value

    def text(self, path: Path, most: int = MAX_TEXT_CHARS) -> str:
        """Return at most `most` printable characters. Raises: BadRequest."""
        return self._text(path, self._required(path), most)

    def text_or(self, path: Path, default: str = "", most: int = MAX_TEXT_CHARS) -> str:
        """Return the text, or `default` where there is no value. Raises: BadRequest."""
        return self._text(path, self._values.get(path, default), most)

    def content(self, path: Path, most_bytes: int) -> bytes:
        """Return bytes. Raises: BadRequest."""
        value = self._required(path)
        if not isinstance(value, bytes) or len(value) > most_bytes:
            self.refuse(path, f"must be at most {most_bytes} bytes")
        return value

    def multiple(self, path: Path, most: int) -> tuple[Path, ...]:
        """Return the places of a multiple resource's instances, ascending; a single value is its only instance.

        Raises: BadRequest when there are more than `most`.
        """
        wanted = path.ids
        found = [each for ids, each in self._paths if len(ids) == RESOURCE_INSTANCE and ids[: len(wanted)] == wanted]
        if not found and path.depth == RESOURCE and path in self._values:
            found = [path]
        if len(found) > most:
            self.refuse(path, f"has {len(found)} instances, at most {most} are read")
        return tuple(sorted(found))

    def texts(self, path: Path, most: int) -> tuple[str, ...]:
        """Return the texts of a multiple resource. Raises: BadRequest."""
        return tuple(self.text(each) for each in self.multiple(path, most))

    def _required(self, path: Path) -> Value:
        if path not in self._values:
            self.refuse(path, "is missing")
        return self._values[path]

    def _text(self, path: Path, value: Value, most: int) -> str:
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            self.refuse(path, f"must be a text of at most {most} printable characters")
        return value


def _age(record: Record) -> float:
    """A record without a time is of now."""
    return -inf if record.time_s is None else -record.time_s
