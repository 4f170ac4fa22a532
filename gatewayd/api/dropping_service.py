"""What the verbs about dropped models need of the services."""

from collections.abc import Sequence
from typing import Protocol

from gatewayd.core.dropping import Drop
from gatewayd.core.names import DeviceId, ModelName


class DroppingService(Protocol):
    """Models that devices are told to let go."""

    async def drop(self, device: DeviceId, model: ModelName, *, who: str, why: str = "", is_last: bool = False) -> Drop:
        """Have a device let go a model. Raises: NotFound, Forbidden, Conflict, DeviceError, NodeError."""

    async def recent(self, limit: int, device: DeviceId | None = None) -> Sequence[Drop]:
        """Return the latest drops (of one device), newest first."""
