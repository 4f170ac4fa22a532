"""Dropped models without devices."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gatewayd.core.dropping import Drop, DropState
from gatewayd.core.errors import Conflict
from gatewayd.core.names import DeviceId, Digest, ModelName


@dataclass
class FakeDropping:
    """Drops whatever is named; the only model only when that is allowed."""

    dropped: list[Drop] = field(default_factory=list)

    async def drop(self, device: DeviceId, model: ModelName, *, who: str, why: str = "", is_last: bool = False) -> Drop:
        if not is_last:
            raise Conflict(f"{model} is the only model that runs on {device}: --last drops it all the same")
        asked = Drop(device, 0, model, 1, Digest("a" * 64), is_last, who, why, 1_700_000_000.0, len(self.dropped) + 1)
        self.dropped.append(asked.ended(DropState.DROPPED, "", at=1_700_000_001.0))
        return self.dropped[-1]

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Drop]:
        return [each for each in reversed(self.dropped) if device in {None, each.device}][:limit]
