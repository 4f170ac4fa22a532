"""Devices whose tasks fail by a mistake of this program: counted, told once, and kept out when it happens again and again.

A task that fails is logged with its traceback the first time. After `FAILURES` within `WITHIN_S` the device's registration
ends, and it is told to come later, so that the mistake does not repeat for ever beside everybody else's work.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.errors import Overloaded
from gatewayd.core.names import DeviceId

logger = logging.getLogger(__name__)

FAILURES = 5
WITHIN_S = 600.0
KEPT_OUT_S = 3600.0
"""How long a device stays out, unless somebody forgets it or starts the gateway anew."""
MAX_DEVICES = 10_000  # protects memory: devices with a failure behind them; past that the oldest is forgotten


@dataclass(slots=True)
class _Failures:
    at_s: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    out_until_s: float = float("-inf")


class Quarantine:
    """See the module. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of: OrderedDict[DeviceId, _Failures] = OrderedDict()
        self.failures = 0

    def __len__(self) -> int:
        """Return how many devices are kept out now."""
        now_s = self._clock()
        return sum(each.out_until_s > now_s for each in self._of.values())

    def failed(self, device: DeviceId, task: str, error: Exception) -> str | None:
        """Count a failure; return why the device is to be kept out from now on, None while it is not."""
        self.failures += 1
        found = self._of.get(device)
        if found is None:
            found = self._of[device] = _Failures()
            while len(self._of) > MAX_DEVICES:
                self._of.popitem(last=False)
            logger.error("device task failed", exc_info=error, extra={"fields": {"device": device, "task": task}})
        now_s = self._clock()
        found.at_s.append(now_s)
        if len(found.at_s) < FAILURES or now_s - found.at_s[0] > WITHIN_S or now_s < found.out_until_s:
            return None
        found.out_until_s = now_s + KEPT_OUT_S
        found.at_s.clear()
        why = (
            f"quarantined for {KEPT_OUT_S / 60:.0f} min: {FAILURES} of its tasks failed ({type(error).__name__}); the log has "
            f"the traceback, report it; gatewayd devices forget {device} --keep-credentials lets it in before"
        )
        logger.error("device quarantined", extra={"fields": {"device": device, "reason": why}})
        return why

    def check(self, device: DeviceId) -> None:
        """Raises: Overloaded while the device is kept out."""
        found = self._of.get(device)
        if found is not None and self._clock() < found.out_until_s:
            raise Overloaded(f"{device} is quarantined: its tasks failed again and again")

    def release(self, device: DeviceId) -> None:
        """Let it in again."""
        self._of.pop(device, None)
