"""How devices join and leave: credentials, the time in which newcomers are let in, revoking and forgetting.

Who a device is, is what it proved to the broker or the DTLS server; whether it is let in is `services.tracking`'s. Secrets are
made here, handed to the caller once, and kept by the credential store in the form that the protocol needs.
"""

import base64
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace

from gatewayd.core.command import Note
from gatewayd.core.credentials import (
    GATEWAY_ID_BYTES,
    KEY_BYTES,
    KID_BYTES,
    PASSWORD_BYTES,
    SALT_BYTES,
    BrokerUser,
    CredentialKind,
    Credentials,
    OscoreKey,
    PreSharedKey,
)
from gatewayd.core.device import Departure
from gatewayd.core.errors import Conflict, NotStored, Overloaded, UnknownDevice
from gatewayd.core.events import DeviceChanged
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.services.collecting import Collector
from gatewayd.services.desires import Desires
from gatewayd.services.join_window import WindowState
from gatewayd.services.ports import Clock, CredentialStore, DeviceLink, Notify
from gatewayd.services.pushes import Pushes
from gatewayd.services.renting import Renting
from gatewayd.services.standing import StandingOrders
from gatewayd.services.tracking import Tracking, WriteDeparture

logger = logging.getLogger(__name__)

_DRAWS = 4  # of 2**24 ids, at most 10,000 of which are taken: all of them taken comes once in 10**12 times


@record
class JoiningPorts:
    """What this service needs from outside.

    `random` gives unguessable bytes; `hash_password(user, password)` what the broker keeps of one (raises BadRequest for a
    user's name that the broker cannot have); `tell_broker` makes it read its files again and returns "" or what is left to do.
    """

    credentials: CredentialStore
    random: Callable[[int], bytes]
    hash_password: Callable[[str, str], str]
    tell_broker: Callable[[], str]
    link_of: Callable[[DeviceId], DeviceLink]
    notify: Notify
    wall_clock: Clock


@record
class Issued:
    """New credentials, the only time they are seen. `key` is raw; None: that kind was not asked for.

    `broker` "": it has heard; else what has to be done before they hold.
    """

    device: DeviceId
    devices: tuple[DeviceId, ...]
    password: str | None = field(repr=False)
    key: bytes | None = field(repr=False)
    broker: str
    oscore: OscoreKey | None = field(default=None, repr=False)


@record
class Removed:
    """What revoking or forgetting did: credentials that are gone, pushes and standing orders that ended.

    `broker` is what is left to do there; `is_forgotten` False: it was revoked.
    """

    device: DeviceId
    had_credentials: bool
    pushes: int
    broker: str
    orders: int = 0
    is_forgotten: bool = False


@dataclass(slots=True)
class _Leaving:
    """A device on its way out: what was taken so far, and whether that is written."""

    device: DeviceId
    had_credentials: bool = False
    broker: str = ""
    ended: int = 0
    written: bool = False
    orders: tuple[str, ...] = ()
    is_forgotten: bool = False

    def removed(self, ended: int) -> Removed:
        """Return the outcome, `ended` pushes among it."""
        had, orders = self.had_credentials, len(self.orders)
        return Removed(self.device, had, ended, self.broker, orders, self.is_forgotten)


class Joining:
    """The verbs' meaning. Every change of credentials is announced by the device's name alone."""

    def __init__(
        self,
        ports: JoiningPorts,
        *,
        tracking: Tracking,
        desires: Desires,
        pushes: Pushes,
        collecting: Collector,
        renting: Renting,
        orders: StandingOrders,
    ) -> None:
        self._ports = ports
        self._tracking = tracking
        self._desires = desires
        self._pushes = pushes
        self._collecting = collecting
        self._renting = renting
        self._orders = orders

    def permit(self, seconds: float, *, who: str) -> WindowState:
        """Let newcomers in for so long, 0: no longer. Raises: BadRequest."""
        window = self._tracking.window
        return window.open(seconds, who=who) if seconds else window.close(who=who)

    def window(self) -> WindowState:
        """Return how long newcomers are let in still, and who was."""
        return self._tracking.window.state()

    def credentials(self) -> Credentials:
        """Return all credentials."""
        return self._ports.credentials.known()

    async def issue(
        self,
        device: DeviceId,
        *,
        kinds: Collection[CredentialKind],
        speaks_for: Collection[DeviceId] = (),
        may_replace: bool = False,
        who: str,
    ) -> Issued:
        """Make credentials; a user speaks for the device of its name and for those of `speaks_for`.

        Raises: BadRequest (no user can be called so), Conflict (it has some), TooLarge, NotStored.
        """
        devices = tuple(dict.fromkeys((device, *speaks_for)))
        password = key = None
        if CredentialKind.MQTT in kinds:
            password = base64.urlsafe_b64encode(self._ports.random(PASSWORD_BYTES)).decode()
        if CredentialKind.PSK in kinds:
            key = self._ports.random(KEY_BYTES)
        oscore = self._oscore(device, who) if CredentialKind.OSCORE in kinds else None
        hashed = self._ports.hash_password(device, password) if password is not None else None
        at = self._ports.wall_clock()

        def change(known: Credentials) -> Credentials:
            if hashed is not None:
                known = known.with_user(BrokerUser(device, devices, hashed, at, who), may_replace=may_replace)
            if key is not None:
                known = known.with_key(PreSharedKey(device, key, at, who), may_replace=may_replace)
            if oscore is not None:
                known = known.with_oscore(oscore, may_replace=may_replace)
            return known

        await self._ports.credentials.change(change)
        self._announce(device, f"credentials made by {who}")
        broker = self._ports.tell_broker() if hashed is not None else ""
        return Issued(device, devices, password, key, broker, oscore)

    def _oscore(self, device: DeviceId, who: str) -> OscoreKey:
        random, known, at = self._ports.random, self.credentials(), self._ports.wall_clock()
        drawn = [random(KID_BYTES) for _ in range(_DRAWS)]
        kid = next((each for each in drawn if not known.has_kid(each)), drawn[0])
        return OscoreKey(device, random(KEY_BYTES), random(SALT_BYTES), kid, random(GATEWAY_ID_BYTES), at, who)

    async def revoke(self, device: DeviceId, *, who: str, note_of: Note[Removed] | None = None) -> Removed:
        """Take a device out: its credentials, its approval, what is wanted, pushed and ordered there. May be repeated.

        Raises: UnknownDevice (neither seen nor given credentials), NotStored.
        """
        if not self._had_credentials(device):
            self._tracking.device(device)
        link, leaving = self._ports.link_of(device), await self._without_credentials(device, who)
        write = self._writer(leaving, f"revoked by {who}", note_of)
        with suppress(UnknownDevice):  # it never came
            await self._tracking.revoke(device, who=who, write=write)
        if not leaving.written:
            await write(Departure(device))
        # Its last will is not heard: by now the broker takes nothing of it any more.
        return await self._gone(leaving, link, f"device {device} was revoked by {who}")

    async def forget(
        self,
        device: DeviceId,
        *,
        force: bool,
        keep_credentials: bool,
        who: str,
        note_of: Note[Removed] | None = None,
    ) -> Removed:
        """Remove every row about a device but the journal of its pushes, and its credentials unless they are to be kept.

        Raises: UnknownDevice (neither seen nor given credentials), Conflict (it is online and approved, and this is not
            forced), NotStored.
        """
        view, link = self._tracking.find(device), self._ports.link_of(device)  # which link it is, is forgotten, too
        if view is None and (keep_credentials or not self._had_credentials(device)):
            self._tracking.device(device)
        if view is not None and view.online and view.approved and not force:
            raise Conflict(f"{device} is online and approved: revoke it first, or force it")
        leaving = _Leaving(device) if keep_credentials else await self._without_credentials(device, who)
        leaving.is_forgotten = True
        write = self._writer(leaving, f"forgotten by {who}", note_of)
        with suppress(UnknownDevice):  # it never came
            await self._tracking.forget(device, who=who, write=write)
        if not leaving.written:
            await write(Departure(device))
        self._desires.forget(device)
        self._collecting.forget(device)
        return await self._gone(leaving, link, f"device {device} was forgotten by {who}")

    def _writer(self, leaving: "_Leaving", why: str, note_of: Note[Removed] | None) -> WriteDeparture:
        """Return what writes the departure: the rows of device and orders, the end of its push, the command's record are one."""

        async def write(departure: Departure) -> None:
            leaving.orders = self._orders.about(departure.device)
            departure = replace(departure, orders=leaving.orders)
            note = None if note_of is None else lambda ended: note_of(leaving.removed(ended))
            leaving.ended = await self._pushes.take_out(departure, why=why, note_of=note)
            leaving.written = True

        return write

    async def _gone(self, leaving: "_Leaving", link: DeviceLink, why: str) -> Removed:
        """Tidy up after what is written: what fails here is made good by itself, and the command is carried out."""
        await self._orders.ended_with(leaving.device, why=why, dropped=leaving.orders)
        self._renting.forget(leaving.device)
        with suppress(Overloaded):  # then it is back, and waits for approval
            # with the next connection it would be back, as the broker retains it
            link.forget(leaving.device, wholly=leaving.is_forgotten)
        if leaving.device in self.credentials().leaving:
            with suppress(NotStored):
                await self._ports.credentials.change(lambda known: known.left(leaving.device))
        return leaving.removed(leaving.ended)

    def _had_credentials(self, device: DeviceId) -> bool:
        """Whether it has some, or had until its leaving was cut off."""
        known = self.credentials()
        return known.knows(device) or device in known.leaving

    async def _without_credentials(self, device: DeviceId, who: str) -> "_Leaving":
        """Take its credentials first: files are no part of the transaction, and taking them twice does no harm."""
        if not self._had_credentials(device):
            return _Leaving(device)
        await self._ports.credentials.change(lambda known: known.without(device))
        self._announce(device, f"credentials revoked by {who}")
        return _Leaving(device, had_credentials=True, broker=self._ports.tell_broker())

    def _announce(self, device: DeviceId, what: str) -> None:
        try:
            online = self._tracking.device(device).online
        except UnknownDevice:
            online = False
        self._ports.notify(DeviceChanged(device, online, what))
