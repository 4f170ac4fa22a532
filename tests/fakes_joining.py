"""A hand-written fake of the joining service: it keeps the real values, and its passwords and keys are known."""

from collections.abc import Collection
from dataclasses import dataclass, field

from gatewayd.core.command import Note
from gatewayd.core.credentials import BrokerUser, CredentialKind, Credentials, PreSharedKey
from gatewayd.core.errors import Conflict, UnknownDevice
from gatewayd.core.names import DeviceId
from gatewayd.services.join_window import WindowState
from gatewayd.services.joining import Issued, Removed
from tests.fake_notes import noted

PASSWORD, KEY = "not-a-secret", bytes(range(16))


@dataclass
class FakeJoining:
    """`online` are devices that may not be forgotten without force."""

    kept: Credentials = field(default_factory=Credentials)
    state: WindowState = field(default_factory=lambda: WindowState(0.0, ()))
    online: set[DeviceId] = field(default_factory=set)
    broker: str = ""

    def permit(self, seconds: float, *, who: str) -> WindowState:
        assert who
        self.state = WindowState(seconds, self.state.admitted)
        return self.state

    def window(self) -> WindowState:
        return self.state

    def credentials(self) -> Credentials:
        return self.kept

    async def issue(
        self,
        device: DeviceId,
        *,
        kinds: Collection[CredentialKind],
        speaks_for: Collection[DeviceId] = (),
        may_replace: bool = False,
        who: str,
    ) -> Issued:
        devices = (device, *speaks_for)
        if CredentialKind.MQTT in kinds:
            self.kept = self.kept.with_user(BrokerUser(device, devices, "hash", 0.0, who), may_replace=may_replace)
        if CredentialKind.PSK in kinds:
            self.kept = self.kept.with_key(PreSharedKey(device, KEY, 0.0, who), may_replace=may_replace)
        password = PASSWORD if CredentialKind.MQTT in kinds else None
        return Issued(device, devices, password, KEY if CredentialKind.PSK in kinds else None, self.broker)

    async def revoke(self, device: DeviceId, *, who: str, note_of: Note[Removed] | None = None) -> Removed:
        if not self.kept.knows(device):
            raise UnknownDevice(f"no {device} ({who})")
        self.kept = self.kept.without(device)
        removed = Removed(device, had_credentials=True, pushes=1, broker=self.broker)
        noted(note_of, removed)
        return removed

    async def forget(
        self, device: DeviceId, *, force: bool, keep_credentials: bool, who: str, note_of: Note[Removed] | None = None
    ) -> Removed:
        assert who
        if device in self.online and not force:
            raise Conflict(f"{device} is online and approved")
        had = self.kept.knows(device) and not keep_credentials
        self.kept = self.kept if keep_credentials else self.kept.without(device)
        removed = Removed(device, had, 0, self.broker, orders=2, is_forgotten=True)
        noted(note_of, removed)
        return removed
