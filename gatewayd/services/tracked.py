"""What `services.tracking` keeps of one device: the mutable record behind a snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from gatewayd.core.damping import STEADY, Damping, DampingRules
from gatewayd.core.device import RUNNING, KnownDevice, LinkKind, Report, Slot
from gatewayd.core.names import DeviceId, ModelName


@dataclass(slots=True)
class Tracked:
    """The mutable record behind a `DeviceView`. `heard_s`: when it last answered, on the monotonic clock.

    `is_returning`: known from before this start, and not back yet; that it comes then is our restart, not its flapping.
    """

    id: DeviceId
    approved: bool
    first_seen_at: float
    revoked: bool = False
    is_returning: bool = False
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

    @classmethod
    def returning(cls, known: KnownDevice) -> Self:
        """Return the record of a device that was known before this start."""
        return cls(known.device, known.approved, known.first_seen_at, known.revoked, is_returning=True)

    def has_returned(self) -> bool:
        """Take note that it came; return whether that was its first coming after our start."""
        was_returning, self.is_returning = self.is_returning, False
        return was_returning

    def recall(self, damping: Damping, rules: DampingRules, *, now_s: float) -> bool:
        """Take over what was remembered of its comings; return whether it is still held off."""
        self.damping = damping
        self.held_off = damping.words(rules) if damping.holds(now_s) else ""
        return bool(self.held_off)

    @property
    def online(self) -> bool:
        """Whether it can be expected to answer."""
        return self.connected and not self.silent

    @property
    def known(self) -> KnownDevice:
        """What the store keeps of it."""
        return KnownDevice(self.id, self.approved, self.first_seen_at, self.revoked)


def running(slots: Sequence[Slot]) -> tuple[tuple[ModelName, int], ...]:
    """Return the versions that run in the slots, each once."""
    runs = {(slot.model, slot.version) for slot in slots if slot.state in RUNNING}
    return tuple((model, version) for model, version in runs if model is not None and version is not None)
