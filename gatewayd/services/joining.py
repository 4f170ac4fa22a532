"""How devices join and leave: credentials, the time in which newcomers are let in, revoking and forgetting.

Who a device is, is what it proved to the broker or the DTLS server; whether it is let in is `services.tracking`'s. Secrets are
made here, handed to the caller once, and kept by the credential store in the form that the protocol needs.
"""

import base64
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

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
from gatewayd.core.errors import Conflict, NotFound, Overloaded, UnknownDevice
from gatewayd.core.events import DeviceChanged
from gatewayd.core.names import DeviceId
from gatewayd.services.collecting import Collector
from gatewayd.services.desires import Desires
from gatewayd.services.join_window import WindowState
from gatewayd.services.ports import Clock, CredentialStore, DeviceLink, Notify
from gatewayd.services.pushes import Pushes
from gatewayd.services.tracking import Tracking

logger = logging.getLogger(__name__)

_DRAWS = 4  # of 2**24 ids, at most 10,000 of which are taken: all of them taken comes once in 10**12 times


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Removed:
    """What revoking or forgetting did: credentials that are gone, pushes that ended, what is left to do at the broker."""

    device: DeviceId
    had_credentials: bool
    pushes: int
    broker: str


class Joining:
    """The verbs' meaning. Every change of credentials is announced by the device's name alone."""

    def __init__(
        self, ports: JoiningPorts, *, tracking: Tracking, desires: Desires, pushes: Pushes, collecting: Collector
    ) -> None:
        self._ports = ports
        self._tracking = tracking
        self._desires = desires
        self._pushes = pushes
        self._collecting = collecting

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

    async def revoke(self, device: DeviceId, *, who: str) -> Removed:
        """Take a device out: its approval first, then its credentials, then its pushes. May be repeated.

        Raises: UnknownDevice (neither seen nor given credentials), NotStored.
        """
        had = self.credentials().knows(device)
        try:
            await self._tracking.revoke(device, who=who)
        except UnknownDevice:
            if not had:
                raise
        broker = await self._without_credentials(device, who)
        ended = await self._end_pushes(device, why=f"revoked by {who}")
        # Its last will is not heard: by now the broker takes nothing of it any more.
        self._let_go(device)
        return Removed(device, had, ended, broker)

    async def forget(self, device: DeviceId, *, force: bool, keep_credentials: bool, who: str) -> Removed:
        """Remove every row about a device but the journal of its pushes, and its credentials unless they are to be kept.

        Raises: UnknownDevice, Conflict (it is online and approved, and this is not forced), NotStored.
        """
        view = self._tracking.device(device)
        if view.online and view.approved and not force:
            raise Conflict(f"{device} is online and approved: revoke it first, or force it")
        had = self.credentials().knows(device)
        ended = await self._end_pushes(device, why=f"forgotten by {who}")
        broker = "" if keep_credentials else await self._without_credentials(device, who)
        await self._tracking.forget(device, who=who)
        self._desires.forget(device)
        self._collecting.forget(device)
        self._let_go(device)
        return Removed(device, had and not keep_credentials, ended, broker)

    def _let_go(self, device: DeviceId) -> None:
        """Clear what the broker retains of it: with the next connection it would be back."""
        with suppress(Overloaded):  # then it is back, and waits for approval
            self._ports.link_of(device).forget(device)

    async def _end_pushes(self, device: DeviceId, *, why: str) -> int:
        """Want nothing there any more, then end what is pushed there; one that the device is told to keep ends by itself."""
        await self._desires.withdraw_all(device)
        ended = 0
        for push in self._pushes.live():
            if push.device == device:
                with suppress(Conflict, NotFound):
                    await self._pushes.cancel(push.id, why=why)
                    ended += 1
        return ended

    async def _without_credentials(self, device: DeviceId, who: str) -> str:
        if not self.credentials().knows(device):
            return ""
        await self._ports.credentials.change(lambda known: known.without(device))
        self._announce(device, f"credentials revoked by {who}")
        return self._ports.tell_broker()

    def _announce(self, device: DeviceId, what: str) -> None:
        try:
            online = self._tracking.device(device).online
        except UnknownDevice:
            online = False
        self._ports.notify(DeviceChanged(device, online, what))
