"""Bounded reading of Protocol Buffers messages: each length is checked before it is followed, nothing is copied unasked.

Generic: it knows fields and wire types, no schema. Source: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from gatewayd.core.errors import ModelRefused
from gatewayd.core.record import record

MAX_FIELDS = 200_000
"""Protects time, over one message; the largest networks have some ten thousand nodes and constants."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_F32: Final = Struct("<f")
_LONGEST_VARINT = 10
_WORD = 1 << 64


@record
class Field:
    """One field of a message: a number, or the place of its bytes (`start` to `end`)."""

    number: int
    value: int
    start: int
    end: int
    is_bytes: bool


@record
class Message:
    """A message inside the file. `where` names it in errors."""

    content: bytes
    start: int
    end: int
    where: str

    def fields(self) -> Iterator[Field]:
        """Yield the fields in their order. Raises: ModelRefused."""
        at, seen = self.start, 0
        while at < self.end:
            seen += 1
            if seen > MAX_FIELDS:
                raise ModelRefused(f"{self.where} has more than {MAX_FIELDS} fields")
            key, at = self._varint(at)
            field = self._field(key >> 3, key & 7, at)
            at = field.end
            yield field

    def messages(self, number: int, what: str, *, limit: int) -> "list[Message]":
        """Return the repeated messages of a field, named `what 0`, `what 1` …. Raises: ModelRefused."""
        found: list[Message] = []
        for field in self.fields():
            if field.number == number and field.is_bytes:
                if len(found) >= limit:
                    raise ModelRefused(f"{self.where} has more than {limit} {what}s")
                found.append(Message(self.content, field.start, field.end, f"{what} {len(found)}"))
        return found

    def message(self, number: int, what: str) -> "Message | None":
        """Return the message of a field, None when it is absent. Raises: ModelRefused."""
        found = [each for each in self.fields() if each.number == number and each.is_bytes]
        return Message(self.content, found[-1].start, found[-1].end, what) if found else None

    def text(self, number: int, *, limit_bytes: int) -> str:
        """Return the text of a field, "" when it is absent. Raises: ModelRefused."""
        texts = self.texts(number, limit_bytes=limit_bytes)
        return texts[-1] if texts else ""

    def texts(self, number: int, *, limit_bytes: int) -> list[str]:
        """Return the repeated texts of a field. Raises: ModelRefused."""
        return [self._text(each, limit_bytes) for each in self.fields() if each.number == number and each.is_bytes]

    def numbers(self, number: int) -> list[int]:
        """Return the whole numbers of a field, one by one or packed; unsigned. Raises: ModelRefused."""
        found: list[int] = []
        for field in self.fields():
            if field.number == number and field.is_bytes:
                found += self._packed(field)
            elif field.number == number:
                found.append(field.value)
        return found

    def number(self, number: int, default: int = 0) -> int:
        """Return the whole number of a field. Raises: ModelRefused."""
        found = self.numbers(number)
        return found[-1] if found else default

    def _packed(self, field: Field) -> Iterator[int]:
        at = field.start
        while at < field.end:
            value, at = self._varint(at)
            yield value

    def _text(self, field: Field, limit_bytes: int) -> str:
        if field.end - field.start > limit_bytes:
            raise ModelRefused(f"{self.where}: a text of {field.end - field.start} bytes, the limit is {limit_bytes}")
        try:
            text = self.content[field.start : field.end].decode()
        except UnicodeDecodeError as error:
            raise ModelRefused(f"{self.where}: a text is not UTF-8 (offset {field.start})") from error
        if not text.isprintable():
            raise ModelRefused(f"{self.where}: a text holds unprintable characters (offset {field.start})")
        return text

    def _field(self, number: int, kind: int, at: int) -> Field:
        if number == 0:
            raise ModelRefused(f"corrupted: {self.where} has a field 0 (offset {at})")
        if kind == _VARINT:
            value, end = self._varint(at)
            return Field(number, value, at, end, is_bytes=False)
        if kind == _BYTES:
            length, at = self._varint(at)
            return Field(number, 0, at, self._checked(at + length), is_bytes=True)
        if kind in {_FIXED32, _FIXED64}:
            end = self._checked(at + (_F32.size if kind == _FIXED32 else 8))
            return Field(number, int.from_bytes(self.content[at:end], "little"), at, end, is_bytes=False)
        raise ModelRefused(f"corrupted: {self.where} has a field of the wire type {kind} (offset {at})")

    def _checked(self, end: int) -> int:
        if end > self.end:
            raise ModelRefused(f"truncated: {self.where} ends at {self.end}, a field of it at {end}")
        return end

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for index in range(_LONGEST_VARINT):
            if at + index >= self.end:
                raise ModelRefused(f"truncated: {self.where} ends inside a number (offset {at})")
            byte = self.content[at + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follows
                return value % _WORD, at + index + 1
        raise ModelRefused(f"corrupted: {self.where} has a number that never ends (offset {at})")
