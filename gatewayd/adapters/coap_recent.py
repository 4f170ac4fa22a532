"""Messages that were received lately, so that a repeated one is known again and answered as the first was. Pure: time is given.

RFC 7252 wants that for 247 s; answers are needed for less: nobody repeats a message for longer than 45 s (MAX_TRANSMIT_SPAN), and
what comes later was only long on its way, and is answered with silence. So the newest messages are kept with their answers, as
the bytes that were sent, older ones as 8 bytes each. Source: RFC 7252, sections 4.5 and 4.8.2.
"""

from array import array
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

EXCHANGE_LIFETIME_S = 247.0
"""How long a repeated message is known again."""
ANSWERS_S = 48.0
"""How long it is answered again: MAX_TRANSMIT_SPAN, and some seconds on its way."""
MAX_ANSWERS = 65_536
"""Protects memory (some 9 MB with small answers, measured): messages kept with their answers, 56 s of a thousand a second."""
MAX_ANSWER_BYTES = 8 * 2**20
"""Protects memory from answers that are long: all of them together."""
MAX_MESSAGES = 300_000
"""Protects memory (2 MB for the older ones): messages known at all, 247 s of a thousand a second, and what is forgotten late.

Past any of these bounds the oldest are forgotten, and a repetition of one is taken for a new message.
"""
_SLICE_S = 8.0  # what loses its answers at one time: sorting it takes 2 ms at a thousand messages a second
_OLD_S = 32.0  # what is forgotten at one time; fewer parts are quicker to look through
_MASK = 2**64 - 1


@dataclass(slots=True)
class _Slice:
    """The messages of some seconds, by their keys; the answer is None until it is there."""

    began_s: float
    answers: dict[int, bytes | None] = field(default_factory=dict)
    answer_bytes: int = 0


@dataclass(slots=True)
class _Old:
    """Messages whose answers are not kept any more, in order of their keys."""

    began_s: float
    ended_s: float
    keys: "array[int]"

    def has(self, key: int) -> bool:
        """Return whether the message was among them."""
        at = bisect_left(self.keys, key)
        return at < len(self.keys) and self.keys[at] == key


@dataclass(slots=True)
class Recent:
    """The memory. A key is what hash() gives of sender and number: 64 bits, of which the sender's part is not to be foreseen."""

    max_answers: int = MAX_ANSWERS
    max_messages: int = MAX_MESSAGES
    max_answer_bytes: int = MAX_ANSWER_BYTES
    _slices: deque[_Slice] = field(default_factory=deque)
    _old: deque[_Old] = field(default_factory=deque)
    _answered: int = 0
    _answer_bytes: int = 0
    _old_count: int = 0

    def __len__(self) -> int:
        return self._answered + self._old_count

    def is_repeated(self, key: int, now_s: float) -> bool:
        """Return whether a message is known; one that is not is from now on."""
        key &= _MASK
        slices = self._slices
        if not slices or now_s - slices[-1].began_s >= _SLICE_S:
            self._begin(now_s)
        for each in slices:
            if key in each.answers:
                return True
        for old in self._old:
            if old.has(key):
                return True
        slices[-1].answers[key] = None
        self._answered += 1
        if self._answered > self.max_answers or len(self) > self.max_messages:
            self._keep_bounds()
        return False

    def answer(self, key: int) -> bytes | None:
        """Return what a known message was answered with; None: nothing yet, or it is too long ago."""
        found = self._slice_of(key & _MASK)
        return None if found is None else found.answers[key & _MASK]

    def keep(self, key: int, answer: bytes) -> None:
        """Remember what a known message was answered with."""
        found = self._slice_of(key & _MASK)
        if found is not None:
            more = len(answer) - len(found.answers[key & _MASK] or b"")
            found.answers[key & _MASK] = answer
            found.answer_bytes += more
            self._answer_bytes += more
            if self._answer_bytes > self.max_answer_bytes:
                self._keep_bounds()

    def drop(self, key: int) -> None:
        """Forget a message: its repetition is worth as much as the first."""
        found = self._slice_of(key & _MASK)
        if found is not None:
            self._lose(found, key & _MASK)

    def _slice_of(self, key: int) -> _Slice | None:
        return next((each for each in reversed(self._slices) if key in each.answers), None)

    def _begin(self, now_s: float) -> None:
        while self._old and now_s - self._old[0].ended_s >= EXCHANGE_LIFETIME_S:
            self._old_count -= len(self._old.popleft().keys)
        while self._slices and now_s - self._slices[0].began_s >= ANSWERS_S + _SLICE_S:
            self._shrink(self._drop_oldest())
        self._slices.append(_Slice(now_s))

    def _shrink(self, gone: _Slice) -> None:
        keys, began_s = list(gone.answers), gone.began_s
        self._old_count += len(keys)
        if self._old and gone.began_s + _SLICE_S - self._old[-1].began_s <= _OLD_S:
            last = self._old.pop()
            keys, began_s = [*last.keys, *keys], last.began_s
        self._old.append(_Old(began_s, gone.began_s + _SLICE_S, array("Q", sorted(keys))))

    def _drop_oldest(self) -> _Slice:
        gone = self._slices.popleft()
        self._answered -= len(gone.answers)
        self._answer_bytes -= gone.answer_bytes
        return gone

    def _lose(self, found: _Slice, key: int) -> None:
        size = len(found.answers.pop(key) or b"")
        found.answer_bytes -= size
        self._answer_bytes -= size
        self._answered -= 1

    def _keep_bounds(self) -> None:
        while self._old and len(self) > self.max_messages:
            self._old_count -= len(self._old.popleft().keys)
        while self._is_over():
            if len(self._slices) > 1:
                self._drop_oldest()
                continue
            only = self._slices[0]  # a flood fills it within its seconds
            for key in list(only.answers)[: (len(only.answers) + 1) // 2]:
                self._lose(only, key)

    def _is_over(self) -> bool:
        is_many = self._answered > min(self.max_answers, self.max_messages)
        return is_many or self._answer_bytes > self.max_answer_bytes
