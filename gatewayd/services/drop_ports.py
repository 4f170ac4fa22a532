"""What the service of dropped models is given."""

from collections.abc import Callable, Sequence
from typing import Protocol

from gatewayd.core.dropping import Drop
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.core.retry import Desire
from gatewayd.services.ports import Clock, DeviceLink, Notify


class DropStore(Protocol):
    """The journal of models that devices were told to let go."""

    async def add_drop(self, drop: Drop, *, unwanted: Desire | None = None) -> Drop:
        """Store a drop and want the model no more, all or nothing; durable before returning it with its number."""

    async def save_drop(self, drop: Drop) -> None:
        """Write how a drop ended."""

    async def load_open_drops(self) -> Sequence[Drop]:
        """Return the drops of which nobody knows how they ended."""

    async def recent_drops(self, limit: int, device: DeviceId | None = None) -> Sequence[Drop]:
        """Return the latest drops (of one device), newest first."""


@record
class DropPorts:
    """What this service needs from outside; `wall_clock` gives seconds since 1970."""

    store: DropStore
    link_of: Callable[[DeviceId], DeviceLink]
    notify: Notify
    wall_clock: Clock
