"""What devices prove themselves with: users of the broker and pre-shared keys for DTLS. Values and their changes only.

A broker user speaks for one device, or (a concentrator) for a list of them; a key stands for one device.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

from gatewayd.core.errors import Conflict, TooLarge
from gatewayd.core.names import DeviceId

MAX_USERS = 10_000  # protects the disk and the broker's reload: as many as a gateway may have devices
MAX_DEVICES_OF_A_USER = 1_000  # protects the access list, which the broker walks for every message of that user
PASSWORD_BYTES = 24  # random ones, so 192 bits: nothing that stretching a hash could add to
MAX_LEAVING = 64  # protects the file: commands are redelivered soon, or never
KEY_BYTES = 16  # the cipher suite of LwM2M is AES-128. Source: OMA LwM2M Transport 1.1, 5.2.8.1


class CredentialKind(Enum):
    """What a device may be given."""

    MQTT = "mqtt"
    PSK = "psk"


@dataclass(frozen=True, slots=True)
class BrokerUser:
    """A user of the broker. `password` is its hash as mosquitto keeps it; `devices` are those it may speak for."""

    name: DeviceId
    devices: tuple[DeviceId, ...]
    password: str = field(repr=False)
    made_at: float = 0.0
    who: str = ""


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """A key for DTLS; its identity is the device's id. The protocol needs the key itself on both ends."""

    device: DeviceId
    key: bytes = field(repr=False)
    made_at: float = 0.0
    who: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """All there are, by name. Every change is a new value.

    `leaving` are devices whose credentials are gone while the rest of their leaving may not be written yet: whoever is cut in
    between and begins anew still finds that they had some. The newest `MAX_LEAVING`, oldest first.
    """

    users: tuple[BrokerUser, ...] = ()
    keys: tuple[PreSharedKey, ...] = ()
    leaving: tuple[DeviceId, ...] = ()

    def with_user(self, user: BrokerUser, *, may_replace: bool) -> "Credentials":
        """Add a user, or give it a new password. Raises: Conflict (it has one), TooLarge."""
        others = tuple(each for each in self.users if each.name != user.name)
        if len(others) < len(self.users) and not may_replace:
            raise Conflict(
                f"{user.name} has a user at the broker: what was shown once is not shown again; replace it with a new one"
            )
        if len(others) >= MAX_USERS or len(user.devices) > MAX_DEVICES_OF_A_USER:
            raise TooLarge(f"at most {MAX_USERS} users, and {MAX_DEVICES_OF_A_USER} devices behind each")
        return replace(self, users=tuple(sorted((*others, user), key=lambda each: each.name)))

    def with_key(self, key: PreSharedKey, *, may_replace: bool) -> "Credentials":
        """Add a key, or another one for its device. Raises: Conflict (it has one), TooLarge."""
        others = tuple(each for each in self.keys if each.device != key.device)
        if len(others) < len(self.keys) and not may_replace:
            raise Conflict(f"{key.device} has a key: what was shown once is not shown again; replace it with a new one")
        if len(others) >= MAX_USERS:
            raise TooLarge(f"at most {MAX_USERS} keys")
        return replace(self, keys=tuple(sorted((*others, key), key=lambda each: each.device)))

    def without(self, device: DeviceId) -> "Credentials":
        """Take a device out: its key, its place behind every user, and its own user with all that spoke through it.

        It is `leaving` until `left` says that all is written.
        """
        if not self.knows(device):
            return self
        return replace(self._cleared_of(device), leaving=(*self.left(device).leaving, device)[-MAX_LEAVING:])

    def left(self, device: DeviceId) -> "Credentials":
        """Note that the device is gone for good."""
        return replace(self, leaving=tuple(each for each in self.leaving if each != device))

    def _cleared_of(self, device: DeviceId) -> "Credentials":
        kept = (each for each in self.users if each.name != device)
        fewer = (replace(each, devices=tuple(one for one in each.devices if one != device)) for each in kept)
        keys = tuple(each for each in self.keys if each.device != device)
        return replace(self, users=tuple(each for each in fewer if each.devices), keys=keys)

    def knows(self, device: DeviceId) -> bool:
        """Whether anything here lets that device, or a user of its name, in."""
        return self._cleared_of(device) != self

    def key_of(self, identity: str) -> bytes | None:
        """Return the key of an identity; None: there is no such."""
        return next((each.key for each in self.keys if each.device == identity), None)
