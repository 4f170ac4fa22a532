"""The time in which newcomers are let in by themselves: bounded, counted, ended by time or by hand.

It is kept in memory only: after a restart the door is closed, whatever was left of the time.
"""

import asyncio

from gatewayd.core.errors import BadRequest
from gatewayd.core.events import JoiningChanged
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.services.ports import Clock, Notify

MAX_WINDOW_S = 3600.0  # protects against a door that somebody opened and forgot
_LONGEST_WAIT_S = 1.0


@record
class WindowState:
    """`left_s` 0: closed. `admitted` are those let in by the window that is open, or that was open last."""

    left_s: float
    admitted: tuple[DeviceId, ...]


class JoinWindow:
    """The door. `clock` is monotonic; every opening and closing is announced."""

    def __init__(self, *, clock: Clock, notify: Notify) -> None:
        self._clock = clock
        self._notify = notify
        self._until_s: float | None = None
        self._admitted: dict[DeviceId, None] = {}
        self._opened = asyncio.Event()

    def state(self) -> WindowState:
        """Return how long it stays open, and who came in."""
        left_s = 0.0 if self._until_s is None else max(0.0, self._until_s - self._clock())
        return WindowState(left_s, tuple(self._admitted))

    def open(self, seconds: float, *, who: str) -> WindowState:
        """Open it for so long from now; the time of one that is open already is set anew. Raises: BadRequest."""
        if not 0 < seconds <= MAX_WINDOW_S:
            raise BadRequest(f"seconds: {seconds:g} is not within 1..{MAX_WINDOW_S:g}")
        if self._until_s is None:
            self._admitted = {}
        self._until_s = self._clock() + seconds
        self._opened.set()
        self._tell("open", seconds, who)
        return self.state()

    def close(self, *, who: str) -> WindowState:
        """Close it now; a closed one stays closed."""
        if self._until_s is not None:
            self._until_s = None
            self._tell("closed", 0.0, who)
        return self.state()

    def admits(self, device: DeviceId) -> bool:
        """Whether a newcomer may come in now; it is counted."""
        if self._until_s is None or self._clock() >= self._until_s:
            return False
        self._admitted[device] = None
        return True

    async def run(self) -> None:
        """Say when the time is over, until cancelled. Nobody is let in late whether this runs or not."""
        while True:
            await self._opened.wait()
            if self._until_s is None:
                self._opened.clear()
            elif self._clock() >= self._until_s:
                self.close(who="time")
            else:
                await asyncio.sleep(min(_LONGEST_WAIT_S, self._until_s - self._clock()))

    def _tell(self, what: str, seconds: float, who: str) -> None:
        self._notify(JoiningChanged(what, seconds, len(self._admitted), who))
