"""What `services.tracking` keeps of one device: the mutable record behind a snapshot."""

from dataclasses import dataclass, field

from gatewayd.core.damping import STEADY, Damping
from gatewayd.core.device import KnownDevice, LinkKind, Report
from gatewayd.core.names import DeviceId, ModelName


@dataclass(slots=True)
class Tracked:
    """The mutable record behind a `DeviceView`. `heard_s`: when it last answered, on the monotonic clock."""

    id: DeviceId
    approved: bool
    first_seen_at: float
    revoked: bool = False
    connected: bool = False
    silent: bool = False
    heard_s: float = 0.0
    link: LinkKind = LinkKind.MQTT
    report: Report | None = None
    running: int = 0
    note: str = ""
    used_at_s: float | None = None
    runs: tuple[tuple[ModelName, int], ...] = ()
    desired: dict[ModelName, int] = field(default_factory=dict)
    damping: Damping = STEADY
    held_off: str = ""

    @property
    def online(self) -> bool:
        """Whether it can be expected to answer."""
        return self.connected and not self.silent

    @property
    def known(self) -> KnownDevice:
        """What the store keeps of it."""
        return KnownDevice(self.id, self.approved, self.first_seen_at, self.revoked)
