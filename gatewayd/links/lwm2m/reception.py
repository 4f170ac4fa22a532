"""How a device is connected (/4): read with its birth, and again when it may be another way.

Sparingly: a signal changes all the time, and each word about it costs the device's battery. So only the bearer is observed, only
of a device that has several, and what changed is read once a minute at most.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from gatewayd.core.device import Report
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.watches import Watch
from gatewayd.wire.lwm2m.objects import MONITORING
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.values import Record

_BEARER = Path(MONITORING, 0) / 0
_OBSERVE_S = 10.0
_LEAST_PAUSE_S = 60.0


@dataclass(slots=True)
class Reception:
    """Watches one device's bearer. `on_change` (it may be connected another way, read it) must return at once."""

    operations: Operations
    on_change: Callable[[], None]
    _watch: Watch | None = None
    _changed_s: float = -inf

    def is_unwatched(self, report: Report) -> bool:
        """Return whether the bearer should be observed, and is not."""
        has_choice = report.connectivity is not None and report.connectivity.has_choice
        return has_choice and (self._watch is None or self._watch.is_wanting)

    async def watch(self, report: Report) -> None:
        """Observe the bearer of a device that has several. Raises nothing."""
        if self.is_unwatched(report) and self.operations.line.listens:
            self._watch = self._watch or Watch(self.operations, _BEARER, self._told)
            await self._watch.start(timeout_s=_OBSERVE_S)

    def unwatch(self) -> None:
        """End the observation."""
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def may_have_changed(self) -> None:
        """Have it read, but not over and over."""
        now_s = self.operations.line.clock()
        if now_s - self._changed_s >= _LEAST_PAUSE_S:
            self._changed_s = now_s
            self.on_change()

    def _told(self, records: tuple[Record, ...], *, is_news: bool) -> None:  # noqa: ARG002 - all is read anyway
        if is_news:
            self.may_have_changed()
