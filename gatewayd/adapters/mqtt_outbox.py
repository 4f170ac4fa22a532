"""What waits to be acknowledged by the broker: a bounded queue of QoS 1 messages that outlives a connection. No I/O."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.core.errors import Overloaded
from gatewayd.wire.mqtt import Message

_MAX_SENDS = 5


@dataclass(slots=True)
class _Waiting:
    message: Message
    sends: int = 0


class Outbox:
    """QoS 1 messages in order, at most `window` of them on the wire. Full: `put` raises Overloaded.

    1,000 messages is one for each device of a full gateway; 32 MiB keeps a node with 512 MB alive while its broker is
    away. A message that was on the wire `_MAX_SENDS` times when the connection broke is given up: it may be what the
    broker breaks it for.
    """

    def __init__(self, *, max_messages: int = 1000, max_bytes: int = 32 * 2**20) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[_Waiting] = deque()
        self._sent: dict[int, _Waiting] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def put(self, message: Message) -> None:
        """Append. Raises: Overloaded."""
        size = len(message.payload)
        if len(self) >= self._max_messages or (len(self) and self._bytes + size > self._max_bytes):
            text = f"{len(self)} messages ({self._bytes} bytes) wait for the MQTT broker; it is away or too slow"
            raise Overloaded(text)
        self._waiting.append(_Waiting(message))
        self._bytes += size

    def send(self, write: Callable[[Message], int], *, window: int) -> None:
        """Hand messages to `write` while the window has room; it returns the number each is acknowledged by."""
        while self._waiting and len(self._sent) < window:
            item = self._waiting.popleft()
            item.sends += 1
            self._sent[write(item.message)] = item

    def acknowledge(self, number: int) -> Message | None:
        """Forget the message of that number and return it; None when it is not known (a repeated acknowledgement)."""
        item = self._sent.pop(number, None)
        if item is None:
            return None
        self._bytes -= len(item.message.payload)
        return item.message

    def rewind(self) -> list[Message]:
        """Put what was not acknowledged back in front, in its order: the connection broke. Return what was given up."""
        items, self._sent = list(self._sent.values()), {}
        given_up = [item.message for item in items if item.sends >= _MAX_SENDS]
        self._bytes -= sum(len(message.payload) for message in given_up)
        self._waiting.extendleft(item for item in reversed(items) if item.sends < _MAX_SENDS)
        return given_up
