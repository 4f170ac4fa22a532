"""The pushes that have not ended: by number, by device, by deadline. In memory; nothing here waits."""

import heapq
from collections.abc import Iterator

from gatewayd.core.names import DeviceId, PushId
from gatewayd.core.push import Push


class LivePushes:
    """One push per device at most; looking one up does not depend on how many there are."""

    def __init__(self) -> None:
        self._pushes: dict[PushId, Push] = {}
        self._on_device: dict[DeviceId, PushId] = {}
        # Entries whose deadline moved since are void.
        self._deadlines: list[tuple[float, PushId]] = []

    def __len__(self) -> int:
        return len(self._pushes)

    def __iter__(self) -> Iterator[Push]:
        return iter(tuple(self._pushes.values()))

    def get(self, push: PushId) -> Push | None:
        """Return the push, None when it ended or never was."""
        return self._pushes.get(push)

    def on(self, device: DeviceId) -> Push | None:
        """Return the push to a device."""
        push = self._on_device.get(device)
        return self._pushes[push] if push is not None else None

    def keep(self, push: Push) -> None:
        """Insert or replace."""
        before = self._pushes.get(push.id)
        self._pushes[push.id] = push
        self._on_device[push.device] = push.id
        if before is None or before.deadline_s != push.deadline_s:
            heapq.heappush(self._deadlines, (push.deadline_s, push.id))
        if len(self._deadlines) > 4 * len(self._pushes) + 64:
            self._deadlines = [(each.deadline_s, each.id) for each in self._pushes.values()]
            heapq.heapify(self._deadlines)

    def drop(self, push: PushId) -> None:
        """Forget one; nothing when it is not there."""
        known = self._pushes.pop(push, None)
        if known is not None and self._on_device.get(known.device) == push:
            del self._on_device[known.device]

    def next_deadline_s(self) -> float | None:
        """Return a moment before which no deadline is due."""
        return self._deadlines[0][0] if self._deadlines else None

    def due(self, now_s: float) -> list[PushId]:
        """Return those whose deadline is over, each once."""
        due = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            deadline_s, push = heapq.heappop(self._deadlines)
            known = self._pushes.get(push)
            if known is not None and known.deadline_s == deadline_s:
                due.append(push)
        return due
