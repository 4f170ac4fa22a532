"""The pushes that ended not long ago: whose device may still have something to say about them. In memory; nothing here waits."""

from collections import OrderedDict
from dataclasses import replace

from gatewayd.core.names import DeviceId, PushId
from gatewayd.core.push import Push, PushState

MAX_REMEMBERED = 4_096
"""Protects the node's memory; about a kilobyte each, the manifest left out. The oldest is forgotten, its row stays."""


class EndedPushes:
    """Ended pushes by number, and the last one of each device unless that was accepted."""

    def __init__(self) -> None:
        self._pushes: OrderedDict[PushId, Push] = OrderedDict()
        self._last: dict[DeviceId, PushId] = {}

    def remember(self, push: Push) -> None:
        """Insert or replace."""
        self._pushes[push.id] = replace(push, signed=b"")
        self._pushes.move_to_end(push.id)
        if push.id >= self._last.get(push.device, push.id):
            self._last[push.device] = push.id
        if len(self._pushes) > MAX_REMEMBERED:
            self.forget(next(iter(self._pushes)))

    def forget(self, push: PushId) -> None:
        """Forget one; nothing when it is not there."""
        known = self._pushes.pop(push, None)
        if known is not None and self._last.get(known.device) == push:
            del self._last[known.device]

    def get(self, push: PushId) -> Push | None:
        """Return the push, None when it has not ended or is forgotten."""
        return self._pushes.get(push)

    def doubtful_on(self, device: DeviceId) -> Push | None:
        """Return the device's last push when that was called anything but accepted."""
        last = self._pushes.get(self._last[device]) if device in self._last else None
        return None if last is None or last.state is PushState.ACCEPTED else last
