"""Which sequence numbers were used, kept so that neither a crash nor a power cut makes one of them be used again. No I/O.

What is stored runs ahead of what is used: numbers below `sender` may have been sent, and those below `recipient` may have been
taken, whatever happened since. So a number is written for many messages, and none is used before the disk has a larger one.
After a crash a peer's number below `recipient` proves nothing; the peer has to repeat a value that was never sent before (Echo).
Source: RFC 8613, sections 7.2 and 7.4, appendix B.1; RFC 9175, section 2.
"""

from dataclasses import dataclass, field
from enum import Enum

from gatewayd.core.oscore import StoredNumbers
from gatewayd.wire.oscore.context import LAST_NUMBER

SENDER_STEP = 256
"""One write for so many questions of ours. A push in blocks of 64 bytes writes three times for 54 KB."""
RECIPIENT_STEP = 32
"""One write for so many messages of a peer's. A peer that knows no Echo is refused as often, at most, after a crash."""
WINDOW = 32
"""So far may a peer's messages overtake each other. Source: RFC 8613, section 3.2.2."""


class Verdict(Enum):
    """What a peer's number says of its message: new, a copy, or nothing without an Echo."""

    NEW = "new"
    COPY = "copy"
    UNPROVED = "unproved"


@dataclass(slots=True)
class Window:
    """The newest number taken, and which of the `WINDOW` before it: bit i stands for `newest` - i. `newest` -1: none yet."""

    newest: int = -1
    taken: int = 0

    def has(self, number: int) -> bool:
        """Whether a number was taken, or is too old to tell."""
        behind = self.newest - number
        return behind >= 0 and (behind >= WINDOW or bool(self.taken >> behind & 1))

    def take(self, number: int) -> None:
        """Mark a number."""
        ahead = number - self.newest
        if ahead > 0:
            self.taken = (self.taken << min(ahead, WINDOW)) & (1 << WINDOW) - 1
            self.newest = number
        self.taken |= 1 << self.newest - number

    def close(self, number: int) -> None:
        """Take `number` and all before it."""
        self.newest, self.taken = number, (1 << WINDOW) - 1


@dataclass(slots=True)
class Numbers:
    """One context's numbers. `stored` is what the disk has; None: nothing was ever used."""

    stored: StoredNumbers = field(default_factory=StoredNumbers)
    _next: int = field(init=False)
    _window: Window | None = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.stored.sender
        has_window = self.stored.window is not None
        self._window = Window(self.stored.newest, self.stored.window or 0) if has_window else None

    def wants(self) -> StoredNumbers | None:
        """Return what has to be stored before another number of ours can be used; None: nothing."""
        return None if self._next < self.stored.sender else self._ahead(sender=self._next + SENDER_STEP)

    def use(self) -> int:
        """Return a number of ours that was never returned; `wants` has to be None. Raises: OverflowError past the last one."""
        if self._next >= self.stored.sender:
            raise RuntimeError("no number may be used that is not stored as used")
        if self._next > LAST_NUMBER:
            raise OverflowError("the last sequence number was used: the device needs new credentials")
        self._next += 1
        return self._next - 1

    def judge(self, number: int) -> Verdict:
        """Say what a peer's number is worth. A message that is not authentic must not be taken, whatever this says."""
        if self._window is not None:
            return Verdict.COPY if self._window.has(number) else Verdict.NEW
        return Verdict.NEW if number >= self.stored.recipient else Verdict.UNPROVED

    def take(self, number: int) -> StoredNumbers | None:
        """Mark a peer's number; return what has to be stored before its message may have an effect, None: nothing."""
        if self._window is None:
            self._window = Window()
            self._window.close(number)
        else:
            self._window.take(number)
        if number < self.stored.recipient and self.stored.window is None:
            return None
        return self._ahead(recipient=max(number + RECIPIENT_STEP, self.stored.recipient))

    def has_stored(self, stored: StoredNumbers) -> None:
        """The disk has it. An older writing that ends later takes nothing back."""
        sender, recipient = max(stored.sender, self.stored.sender), max(stored.recipient, self.stored.recipient)
        self.stored = StoredNumbers(sender, recipient, stored.newest, stored.window)

    def exact(self) -> StoredNumbers:
        """Return what to store at an orderly end: nothing is used after it, so that nothing has to be proved anew."""
        window = self._window
        if window is None:
            return StoredNumbers(self._next, self.stored.recipient)
        return StoredNumbers(self._next, window.newest + 1, window.newest, window.taken)

    def _ahead(self, *, sender: int = 0, recipient: int = 0) -> StoredNumbers:
        return StoredNumbers(max(sender, self.stored.sender), max(recipient, self.stored.recipient))
