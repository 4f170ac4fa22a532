"""The standing observation of one place on one device: made, made again after loss, given up where it is worth nothing.

An observation ends without a word: the device restarts, gets another address, or was not heard for too long. What is told here is
only sooner than what a read would tell; whoever needs it reads when nothing came.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from gatewayd.core.errors import DeviceError, DeviceRefused, NodeError
from gatewayd.links.lwm2m.coap import Observation
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.values import Record

_MUTE_S = 60.0
"""A device that leaves untold for so long what it should tell does not tell. Not sooner: where notifications are confirmable, a
lost one is repeated after 2 s or more, and holds back those behind it."""
_FIRST_PAUSE_S, _MOST_PAUSE_S = 60.0, 3600.0


class Told(Protocol):
    """Takes what the place holds now; no records say that it is something else than before, and has to be read."""

    def __call__(self, records: tuple[Record, ...], *, is_news: bool) -> None:
        """`is_news` False: this is the answer to the question itself, as old as it may be."""


@dataclass(slots=True)
class Watch:
    """See the module. `news` counts what was told."""

    operations: Operations
    path: Path
    told: Told
    news: int = 0
    _observation: Observation | None = None
    _is_asked: bool = False
    _is_answered: bool = False
    _is_lost: bool = False
    _has_ended: bool = False
    _missed_s: float | None = None
    _again_at_s: float = -inf
    _pause_s: float = field(default=_FIRST_PAUSE_S)

    @property
    def is_live(self) -> bool:
        """Whether a change is expected to be told."""
        return self._observation is not None

    @property
    def is_prompt(self) -> bool:
        """Whether it is worth waiting for: nothing that should have been told is missing."""
        return self.is_live and self._missed_s is None

    @property
    def is_wanting(self) -> bool:
        """Whether it is worth asking for the observation now."""
        is_idle = not self.is_live and not self._is_asked and not self._has_ended
        return is_idle and self.operations.line.clock() >= self._again_at_s

    async def start(self, *, timeout_s: float) -> None:
        """Observe the place unless that is done, or known to be of no use. Raises nothing: a read does as well."""
        if not self.is_wanting:
            return
        self._is_asked, self._is_answered, self._is_lost, self._missed_s = True, False, False, None
        try:
            observation = await self.operations.observe(self.path, self._heard, timeout_s=timeout_s)
            if observation is None:
                self._again_at_s = inf
            elif not self._is_lost:
                self._observation = observation
        except DeviceRefused:
            self._again_at_s = inf
        except (DeviceError, NodeError):
            self._rest()
        finally:
            self._is_asked = False
            if self._has_ended:
                self._drop()

    def end(self) -> None:
        """Take no more, for good: the device is answered with a reset when it tells something."""
        self._has_ended = True
        self._drop()

    def missed(self) -> None:
        """Something had to be read that should have been told."""
        now_s = self.operations.line.clock()
        if self._missed_s is None:
            self._missed_s = now_s
        elif now_s - self._missed_s >= _MUTE_S:
            self._drop()
            self._rest()

    def _drop(self) -> None:
        if self._observation is not None:
            self._observation.forget()
            self._observation = None

    def _rest(self) -> None:
        """Have the next try wait, longer each time until something is told."""
        self._again_at_s = self.operations.line.clock() + self._pause_s
        self._pause_s = min(_MOST_PAUSE_S, 2 * self._pause_s)

    def _heard(self, records: tuple[Record, ...] | None) -> None:
        if records is None:
            self._observation, self._is_lost = None, True
            return
        if self._has_ended:
            return
        is_news, self._is_answered = self._is_answered, True
        if is_news:
            self.news += 1
            self._missed_s, self._pause_s = None, _FIRST_PAUSE_S
        self.told(records, is_news=is_news)
