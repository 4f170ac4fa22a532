"""Who may come in over DTLS or with OSCORE: the configured file's keys, and what `devices.credentials.new` made, as it is now."""

from collections.abc import Iterator, Mapping, ValuesView
from itertools import chain

from gatewayd.adapters.credentials import CredentialFiles
from gatewayd.core.names import DeviceId
from gatewayd.wire.lwm2m.credentials import OSCORE_IDENTITY, Credential


class Keyring(Mapping[str, bytes]):
    """Keys by identity. One of the file comes before one that was made under the same identity."""

    def __init__(self, fixed: tuple[Credential, ...], issued: CredentialFiles) -> None:
        self._fixed = {each.identity: each for each in fixed}
        self._issued = issued

    def __getitem__(self, identity: str) -> bytes:
        fixed = self._fixed.get(identity)
        key = self._issued.key_of(identity) if fixed is None else fixed.key
        if key is None:
            raise KeyError(identity)
        return key

    def __iter__(self) -> Iterator[str]:
        return chain(self._fixed, (each for each in self._issued.identities() if each not in self._fixed))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def owners(self) -> "Owners":
        """Return the same as devices by identity."""
        return Owners(self, {identity: each.device for identity, each in self._fixed.items()}, self._issued)


class Owners(Mapping[str, DeviceId]):
    """Whose an identity is; one that was made bears the name of its device, an OSCORE context's with a word before it."""

    def __init__(self, keys: Keyring, fixed: Mapping[str, DeviceId], issued: CredentialFiles) -> None:
        self._keys = keys
        self._fixed = fixed
        self._fixed_devices = frozenset(fixed.values())
        self._issued = issued

    def __getitem__(self, identity: str) -> DeviceId:
        if identity.startswith(OSCORE_IDENTITY):
            device = DeviceId(identity.removeprefix(OSCORE_IDENTITY))
            if self._issued.oscore_of(device) is None:
                raise KeyError(identity)
            return device
        if identity not in self._keys:
            raise KeyError(identity)
        return self._fixed.get(identity) or DeviceId(identity)

    def __iter__(self) -> Iterator[str]:
        return chain(self._keys, (f"{OSCORE_IDENTITY}{each.device}" for each in self._issued.oscore()))

    def __len__(self) -> int:
        return len(self._keys) + len(self._issued.oscore())

    def values(self) -> ValuesView[DeviceId]:
        """Return the devices; whether one is among them costs the same however many there are: each message asks."""
        return _Devices(self)

    def has(self, device: DeviceId) -> bool:
        """Return whether a device has a credential."""
        is_issued = self._issued.key_of(device) is not None or self._issued.oscore_of(device) is not None
        return is_issued or device in self._fixed_devices


class _Devices(ValuesView[DeviceId]):
    def __init__(self, owners: Owners) -> None:
        super().__init__(owners)
        self._owners = owners

    def __contains__(self, device: object) -> bool:
        return isinstance(device, str) and self._owners.has(DeviceId(device))
