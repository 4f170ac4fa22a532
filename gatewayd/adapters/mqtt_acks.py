"""Acknowledgements that are given late: when a message's effect is on the disk, not when it was read. No I/O.

They leave in the order in which the messages came, whatever order they were finished in: the protocol asks for it, and
rumqttd drops a client that does otherwise. Source: MQTT 5.0 §4.6, [MQTT-4.6.0-2].
"""

from collections.abc import Callable

Acknowledge = Callable[[], None]


class AckLine:
    """The messages of one session that are not acknowledged yet; `send` writes the acknowledgement of a packet identifier.

    Bounded by the broker's window of unacknowledged messages (at most 65,535; mosquitto: 20).
    """

    def __init__(self, send: Callable[[int], None]) -> None:
        self._send = send
        # In order of arrival; True: may be acknowledged once all before it are.
        self._line: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self._line)

    def take(self, mid: int) -> Acknowledge | None:
        """Note a message; return what acknowledges it, any time later, once or more often.

        None: a message of that identifier is in the line already, so this is the same one again, and is to be dropped.
        """
        if mid in self._line:
            return None
        self._line[mid] = False
        is_given = False

        def acknowledge() -> None:
            nonlocal is_given
            if not is_given and mid in self._line:  # given once: the identifier may stand for another message by now
                self._finish(mid)
            is_given = True

        return acknowledge

    def close(self) -> None:
        """Give no acknowledgement any more: the connection is gone, and the next one brings the messages again."""
        self._line.clear()

    def _finish(self, mid: int) -> None:
        self._line[mid] = True
        while self._line:
            first = next(iter(self._line))
            if not self._line[first]:
                return
            del self._line[first]
            self._send(first)
