"""The devices' credentials on disk: one file that is the truth, and beside it what the broker reads, made from it.

    credentials.json    users with their passwords' hashes; pre-shared keys and OSCORE secrets as they are: they are needed so
    devices.passwd      mosquitto's password file of the devices' listener
    devices.acl         its access list

All are mode 0600 in a folder of mode 0700. The truth is written first: what is made from it is made anew at each start, so a
cut between the two leaves at most a broker that has not heard yet. A DTLS server looks keys up with `key_of`.
"""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from gatewayd.adapters.private_files import made_private_folder, replace_file, replace_if_changed
from gatewayd.core.credentials import Credentials, OscoreKey
from gatewayd.core.errors import BadRequest, NodeError, NotStored, TooLarge
from gatewayd.core.names import DeviceId
from gatewayd.wire.credential_file import MAX_FILE_BYTES, decode_credentials, encode_credentials
from gatewayd.wire.mosquitto import device_access, password_line
from gatewayd.wire.topics import Topics

FILE, PASSWORDS, ACCESS = "credentials.json", "devices.passwd", "devices.acl"


class CredentialFiles:
    """The credentials, in memory and on disk. Obtain it from `open_credentials`."""

    def __init__(self, folder: Path, topics: Topics, known: Credentials) -> None:
        self._folder = folder
        self._topics = topics
        self._keep(known)
        self._writing = asyncio.Lock()

    def known(self) -> Credentials:
        """Return all there are."""
        return self._known

    def key_of(self, identity: str) -> bytes | None:
        """Return the pre-shared key of a DTLS identity (a device's id); None: no such, refuse the handshake.

        Always the newest: ask at each handshake and keep nothing, so that a revoked device is out at its next one.
        """
        return self._keys.get(identity)

    def oscore_of_kid(self, kid: bytes) -> OscoreKey | None:
        """Return what the OSCORE context of a device is derived from, by the id in its messages. As fresh as `key_of`."""
        return self._of_kid.get(kid)

    def oscore_of(self, device: DeviceId) -> OscoreKey | None:
        """Return the same by the device's name."""
        return self._oscore.get(device)

    def oscore(self) -> tuple[OscoreKey, ...]:
        """Return all of them."""
        return self._known.oscore

    async def oscore_used(self, devices: Collection[DeviceId]) -> None:
        """Note that these devices' contexts are in use from now on. Raises: NotStored."""
        await self.change(lambda known: known.with_oscore_used(devices))

    def identities(self) -> tuple[str, ...]:
        """Return every identity that has a key now."""
        return tuple(self._keys)

    async def change(self, change: Callable[[Credentials], Credentials]) -> Credentials:
        """Replace what is known by what `change` makes of it; durable before returning.

        Raises: what `change` raises; NotStored: the same change may be tried again.
        """
        async with self._writing:
            after = change(self._known)
            if after != self._known:
                await asyncio.to_thread(_store, self._folder, self._topics, after)
                self._keep(after)
        return self._known

    async def reload(self) -> None:
        """Read the file again: somebody edited it, or restored a backup. Raises: NodeError; what was known stays."""
        async with self._writing:
            self._keep(await asyncio.to_thread(_load, self._folder, self._topics))

    def _keep(self, known: Credentials) -> None:
        self._known, self._keys = known, {str(each.device): each.key for each in known.keys}
        self._of_kid = {each.kid: each for each in known.oscore}
        self._oscore = {each.device: each for each in known.oscore}


def open_credentials(folder: Path, topics: Topics) -> CredentialFiles:
    """Read the folder, made when it is missing, and write anew what the broker reads.

    Raises: NodeError naming the file and what to do.
    """
    return CredentialFiles(folder, topics, _load(folder, topics))


def _load(folder: Path, topics: Topics) -> Credentials:
    path = folder / FILE
    try:
        made_private_folder(folder)
        known = _read(path)
        _write_for_the_broker(folder, topics, known)
    except (BadRequest, TooLarge) as error:
        raise NodeError(f"credentials {path}: {error}") from error
    except OSError as error:
        raise NodeError(f"credentials {path}: {error.strerror or error}: check the folder's rights and room") from error
    return known


def _read(path: Path) -> Credentials:
    try:
        with path.open("rb") as file:
            return decode_credentials(file.read(MAX_FILE_BYTES + 1))
    except FileNotFoundError:
        return Credentials()


def _store(folder: Path, topics: Topics, known: Credentials) -> None:
    try:
        replace_file(folder / FILE, encode_credentials(known))
        _write_for_the_broker(folder, topics, known)
    except OSError as error:
        text = f"credentials {folder}: {error.strerror or error}: check the folder's rights and room, then try again"
        raise NotStored(text) from error


def _write_for_the_broker(folder: Path, topics: Topics, known: Credentials) -> None:
    """Write the access list before the passwords: a new user can do nothing until its rights are there."""
    replace_if_changed(folder / ACCESS, device_access(topics, known.users).encode())
    lines = "".join(f"{password_line(user.name, user.password)}\n" for user in known.users)
    replace_if_changed(folder / PASSWORDS, lines.encode())
