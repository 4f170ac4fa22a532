"""The OSCORE contexts in use: derived from credentials when a message needs one, their numbers on disk ahead of use.

Nothing is made for who did not prove to be a device: an id that no credential has is looked up in a table, and that is all.
A context whose credential was used before, but whose numbers are gone (another database, an old backup), stays closed: with
numbers that start anew it would give its key away. Source: RFC 8613, section 7.2.1 and appendix B.1.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gatewayd.core.credentials import OscoreKey
from gatewayd.core.errors import Conflict, NotStored
from gatewayd.core.names import DeviceId
from gatewayd.core.oscore import StoredNumbers
from gatewayd.wire.lwm2m.credentials import OSCORE_IDENTITY
from gatewayd.wire.oscore.context import Material, SecurityContext
from gatewayd.wire.oscore.numbers import Numbers

logger = logging.getLogger(__name__)

_ECHO_BYTES = 8  # RFC 9175, appendix A: 64 random bits, which nobody can have sent before this process drew them


class Keys(Protocol):
    """Where credentials are; always the newest, so that a revoked device is out with its next message."""

    def oscore(self) -> tuple[OscoreKey, ...]:
        """Return all of them."""

    def oscore_of_kid(self, kid: bytes) -> OscoreKey | None:
        """Return the one whose device's messages bear this id."""

    def oscore_of(self, device: DeviceId) -> OscoreKey | None:
        """Return a device's."""

    async def oscore_used(self, devices: Collection[DeviceId]) -> None:
        """Note durably that some are in use. Raises: NotStored."""


class Rows(Protocol):
    """Where numbers are."""

    async def load_oscore_numbers(self) -> Mapping[str, StoredNumbers]:
        """Return them by context."""

    async def save_oscore_numbers(self, saved: Mapping[str, StoredNumbers]) -> None:
        """Insert or replace, durably. Raises: NotStored."""

    async def drop_oscore_numbers(self, contexts: Sequence[str]) -> None:
        """Remove some."""


@dataclass(slots=True)
class Held:
    """A context with its numbers. `echo`: what a device has to repeat whose numbers prove nothing after a crash."""

    key: OscoreKey
    context: SecurityContext
    numbers: Numbers
    echo: bytes = field(default_factory=lambda: secrets.token_bytes(_ECHO_BYTES), repr=False)

    @property
    def identity(self) -> str:
        """How a checked message's sender is called."""
        return f"{OSCORE_IDENTITY}{self.key.device}"


class OscoreContexts:
    """All of them. Obtain it from `open_contexts`; `save` at the end spares devices a proof of freshness."""

    def __init__(self, keys: Keys, rows: Rows, stored: Mapping[str, StoredNumbers]) -> None:
        self._keys = keys
        self._rows = rows
        self._stored = dict(stored)
        self._held: dict[DeviceId, Held] = {}
        self._unsaved: dict[str, tuple[Held, StoredNumbers]] = {}
        self._writing = asyncio.Lock()
        self._told: set[DeviceId] = set()

    def __len__(self) -> int:
        return len(self._held)

    def of_kid(self, kid: bytes) -> Held | None:
        """Return the context of the device whose messages bear this id; None: there is none, or none that may be used."""
        key = self._keys.oscore_of_kid(kid)
        return None if key is None else self._hold(key)

    def of_identity(self, identity: str) -> Held | None:
        """Return the context of a checked identity, as long as its credential is there."""
        if not identity.startswith(OSCORE_IDENTITY):
            return None
        key = self._keys.oscore_of(DeviceId(identity.removeprefix(OSCORE_IDENTITY)))
        return None if key is None else self._hold(key)

    async def next_number(self, held: Held) -> int:
        """Return a number of ours that was never used. Raises: NotStored; Conflict when there are no more."""
        while (wanted := held.numbers.wants()) is not None:
            await self._save(held, wanted)
        try:
            return held.numbers.use()
        except OverflowError as error:
            raise Conflict(f"{held.key.device}: {error}") from None

    async def take(self, held: Held, number: int) -> None:
        """Note a number of a peer's whose message is authentic, before that may have an effect. Raises: NotStored."""
        wanted = held.numbers.take(number)
        if wanted is not None:
            await self._save(held, wanted)

    async def save(self) -> None:
        """Write the numbers as they are, at an orderly end, after the last message. Raises: NotStored."""
        async with self._writing:
            exact = {_name(held.key): held.numbers.exact() for held in self._held.values()}
            await self._rows.save_oscore_numbers(exact)

    def _hold(self, key: OscoreKey) -> Held | None:
        held = self._held.get(key.device)
        if held is not None and _is_same(held.key, key):
            return held
        stored = self._stored.get(_name(key))
        if stored is None and key.is_used:
            self._tell_lost(key.device)
            return None
        material = Material(key.secret, key.salt, sender_id=key.gateway_id, recipient_id=key.kid)
        made = self._held[key.device] = Held(key, SecurityContext(material), Numbers(stored or StoredNumbers()))
        return made

    def _tell_lost(self, device: DeviceId) -> None:
        if device not in self._told:
            self._told.add(device)
            lost = "its sequence numbers are not in this database: gatewayd devices credentials new --kind oscore --replace"
            logger.error("oscore context unusable", extra={"fields": {"device": device, "reason": lost}})

    async def _save(self, held: Held, wanted: StoredNumbers) -> None:
        """Write it, together with what others want meanwhile: one transaction for a fleet that wakes up."""
        name = _name(held.key)
        _, before = self._unsaved.get(name, (held, wanted))
        self._unsaved[name] = (held, _both(wanted, before))
        async with self._writing:
            if name not in self._unsaved:
                return  # another call wrote it, or something newer
            taken, self._unsaved = self._unsaved, {}
            try:
                await self._write(taken)
            except NotStored:
                self._unsaved = {**taken, **self._unsaved}
                raise

    async def _write(self, taken: Mapping[str, tuple[Held, StoredNumbers]]) -> None:
        # What was wanted while another writing was under way knows nothing of it: a row must never go back.
        ahead = {name: _both(wanted, held.numbers.stored) for name, (held, wanted) in taken.items()}
        await self._rows.save_oscore_numbers(ahead)
        keys = [self._keys.oscore_of(held.key.device) for held, _ in taken.values()]
        fresh = {key.device for key in keys if key is not None and not key.is_used}
        if fresh:  # after the numbers: a cut between the two leaves contexts that nothing was protected with yet
            await self._keys.oscore_used(fresh)
        for name, (held, _) in taken.items():
            held.numbers.has_stored(ahead[name])
            self._stored[name] = held.numbers.stored


async def open_contexts(keys: Keys, rows: Rows) -> OscoreContexts:
    """Read the numbers, and drop those of contexts whose credentials are gone. Raises: NodeError."""
    stored = await rows.load_oscore_numbers()
    known = {_name(key) for key in keys.oscore()}
    gone = [name for name in stored if name not in known]
    if gone:
        await rows.drop_oscore_numbers(gone)
    return OscoreContexts(keys, rows, {name: each for name, each in stored.items() if name in known})


def _name(key: OscoreKey) -> str:
    """Return what a context's numbers stand under: new credentials have new ids, and begin with new numbers."""
    return f"{key.kid.hex()}-{key.gateway_id.hex()}"


def _both(one: StoredNumbers, other: StoredNumbers) -> StoredNumbers:
    """Return what is ahead of both."""
    return StoredNumbers(max(one.sender, other.sender), max(one.recipient, other.recipient))


def _is_same(one: OscoreKey, other: OscoreKey) -> bool:
    return (one.secret, one.salt, one.kid, one.gateway_id) == (other.secret, other.salt, other.kid, other.gateway_id)
