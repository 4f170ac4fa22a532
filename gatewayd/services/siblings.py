"""How many devices could be asked for a version by reference, and since when: what a rate of requests is a rate of.

Devices of one kind (that report the same of themselves) count together, so that an answer takes a look at each kind and not at
each device. Told of every change by `Tracking`, and worked in when somebody asks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.core.device import Capabilities, DeviceView
from gatewayd.core.fit import Fitter, fit
from gatewayd.core.model import Version
from gatewayd.core.names import DeviceId
from gatewayd.services.candidates import mismatch
from gatewayd.services.ports import Clock

# Protects the time of an answer, which looks at every kind: devices of further kinds count for nobody but themselves.
MAX_KINDS = 64
# Protects the time of an answer, too: what a thousand devices that come at once leave to do, some 6 µs each, is done in parts.
_MOST_DIRTY = 256

Find = Callable[[DeviceId], DeviceView | None]


@dataclass(slots=True)
class _Seen:
    """One device: its kind while it can be asked (None: it cannot now), and when it was first there, in this process."""

    kind: Capabilities | None
    since_s: float


@dataclass(slots=True)
class _Kind:
    """Devices that say the same of themselves; `like` is what the first one said, by whose identity fits are remembered."""

    like: Capabilities
    count: int = 0


@dataclass(slots=True)
class Siblings:
    """The count. Not shared between threads. `find` returns a device as it is now, None when it is gone."""

    find: Find
    clock: Clock
    fitter: Fitter = fit
    _seen: dict[DeviceId, _Seen] = field(default_factory=dict)
    _kinds: dict[Capabilities, _Kind] = field(default_factory=dict)
    _dirty: dict[DeviceId, float] = field(default_factory=dict)

    def changed(self, device: DeviceId) -> None:
        """Note that something about the device is new; returns at once."""
        self._dirty.setdefault(device, self.clock())
        if len(self._dirty) >= _MOST_DIRTY:
            self._settle()

    def count(self, version: Version) -> int:
        """Return how many devices could be asked for the version now: let in, connected, and it runs there on a sensor's data."""
        self._settle()
        return sum(each.count for each in self._kinds.values() if self._is_able(each.like, version))

    def since_s(self, device: DeviceId) -> float | None:
        """Return when the device was first seen connected since the daemon started; None when it never was."""
        self._settle()
        seen = self._seen.get(device)
        return None if seen is None else seen.since_s

    def _settle(self) -> None:
        while self._dirty:
            device, at_s = self._dirty.popitem()
            self._look(device, self.find(device), at_s)

    def _look(self, device: DeviceId, view: DeviceView | None, at_s: float) -> None:
        seen, kind = self._seen.get(device), _asked_as(view)
        before = None if seen is None else seen.kind
        if kind is not before:
            if before is not None:
                self._leave(before)
            kind = None if kind is None else self._joined(kind)
        if view is None:
            self._seen.pop(device, None)
        elif seen is not None:
            seen.kind = kind
        elif view.online:
            self._seen[device] = _Seen(kind, at_s)

    def _joined(self, kind: Capabilities) -> Capabilities | None:
        """Count one more of a kind, which is told by its identity from then on; None when there are too many kinds."""
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= MAX_KINDS:
                return None
            known = self._kinds[kind] = _Kind(kind)
        known.count += 1
        return kind

    def _leave(self, kind: Capabilities) -> None:
        known = self._kinds[kind]
        known.count -= 1
        if known.count <= 0:
            del self._kinds[kind]

    def _is_able(self, kind: Capabilities, version: Version) -> bool:
        has_data = any(not mismatch(version, sensor) for sensor in kind.sensors)
        return has_data and self.fitter(version, kind).variant is not None


def _asked_as(view: DeviceView | None) -> Capabilities | None:
    """Return what the device says of itself when it could be asked now, else None."""
    if view is None or view.report is None or not view.online or not view.approved:
        return None
    told = view.report.capabilities
    return told if told.runs_on_request else None
