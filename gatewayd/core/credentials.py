"""What devices prove themselves with: users of the broker, pre-shared keys for DTLS, OSCORE contexts. Values and changes only.

A broker user speaks for one device, or (a concentrator) for a list of them; a key or a context stands for one device.
"""

from collections.abc import Collection
from dataclasses import field, replace
from enum import Enum

from gatewayd.core.errors import Conflict, TooLarge
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record

MAX_USERS = 10_000  # protects the disk and the broker's reload: as many as a gateway may have devices
MAX_DEVICES_OF_A_USER = 1_000  # protects the access list, which the broker walks for every message of that user
PASSWORD_BYTES = 24  # random ones, so 192 bits: nothing that stretching a hash could add to
MAX_LEAVING = 64  # protects the file: commands are redelivered soon, or never
KEY_BYTES = 16  # the cipher suite of LwM2M is AES-128. Source: OMA LwM2M Transport 1.1, 5.2.8.1
SALT_BYTES = 8  # of an OSCORE context, as in RFC 8613, appendix C
KID_BYTES = 3  # in every message of a device: short, and 2**24 are enough for 10,000 devices to have their own
GATEWAY_ID_BYTES = 2  # so that a device that has several servers tells them apart; never as long as a device's


class CredentialKind(Enum):
    """What a device may be given."""

    MQTT = "mqtt"
    PSK = "psk"
    OSCORE = "oscore"


@record
class BrokerUser:
    """A user of the broker. `password` is its hash as mosquitto keeps it; `devices` are those it may speak for."""

    name: DeviceId
    devices: tuple[DeviceId, ...]
    password: str = field(repr=False)
    made_at: float = 0.0
    who: str = ""


@record
class PreSharedKey:
    """A key for DTLS; its identity is the device's id. The protocol needs the key itself on both ends."""

    device: DeviceId
    key: bytes = field(repr=False)
    made_at: float = 0.0
    who: str = ""


@record
class OscoreKey:
    """What an OSCORE context is derived from. `kid` names the device in its messages, `gateway_id` the gateway in ours.

    `is_used`: messages were protected with it, so that without their numbers it must not be used again.
    """

    device: DeviceId
    secret: bytes = field(repr=False)
    salt: bytes
    kid: bytes
    gateway_id: bytes
    made_at: float = 0.0
    who: str = ""
    is_used: bool = False


@record
class Credentials:
    """All there are, by name. Every change is a new value.

    `leaving` are devices whose credentials are gone while the rest of their leaving may not be written yet: whoever is cut in
    between and begins anew still finds that they had some. The newest `MAX_LEAVING`, oldest first.
    """

    users: tuple[BrokerUser, ...] = ()
    keys: tuple[PreSharedKey, ...] = ()
    leaving: tuple[DeviceId, ...] = ()
    oscore: tuple[OscoreKey, ...] = ()

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

    def with_oscore(self, key: OscoreKey, *, may_replace: bool) -> "Credentials":
        """Add what an OSCORE context is derived from, or another one for its device.

        Raises: Conflict (it has one, or another device's messages would bear the same id), TooLarge.
        """
        others = tuple(each for each in self.oscore if each.device != key.device)
        if len(others) < len(self.oscore) and not may_replace:
            raise Conflict(
                f"{key.device} has an OSCORE context: what was shown once is not shown again; replace it with a new one"
            )
        if any(each.kid == key.kid for each in others):
            raise Conflict(f"OSCORE id {key.kid.hex()} is another device's: try again")
        if len(others) >= MAX_USERS:
            raise TooLarge(f"at most {MAX_USERS} OSCORE contexts")
        return replace(self, oscore=tuple(sorted((*others, key), key=lambda each: each.device)))

    def with_oscore_used(self, devices: Collection[DeviceId]) -> "Credentials":
        """Note that messages are protected with these devices' contexts from now on."""
        return replace(
            self, oscore=tuple(replace(each, is_used=True) if each.device in devices else each for each in self.oscore)
        )

    def has_kid(self, kid: bytes) -> bool:
        """Whether a device's messages bear that OSCORE id."""
        return any(each.kid == kid for each in self.oscore)

    def without(self, device: DeviceId) -> "Credentials":
        """Take a device out: its key and context, its place behind every user, and its own user with all that spoke through it.

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
        oscore = tuple(each for each in self.oscore if each.device != device)
        return replace(self, users=tuple(each for each in fewer if each.devices), keys=keys, oscore=oscore)

    def knows(self, device: DeviceId) -> bool:
        """Whether anything here lets that device, or a user of its name, in."""
        return self._cleared_of(device) != self

    def key_of(self, identity: str) -> bytes | None:
        """Return the key of an identity; None: there is no such."""
        return next((each.key for each in self.keys if each.device == identity), None)
