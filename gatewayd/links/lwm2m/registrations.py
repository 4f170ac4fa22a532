"""Who is registered: a table of devices by location, name and address, and when each registration ends. No I/O; time is given.

A device's location stays the same when it registers again, so that nothing is written for a device that only rebooted.
Source: OMA LwM2M Core 1.1.1, section 6.2.
"""

import heapq
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gatewayd.core.errors import Forbidden, NotFound, Overloaded
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record
from gatewayd.core.registration import StoredRegistration
from gatewayd.links.lwm2m.coap import Peer
from gatewayd.wire.lwm2m.registration import Registration, Update

_LOCATION_BYTES = 8  # 2**64: who has not seen it cannot name another's registration
_SPARE_ENDS = 4
_GRACE, _MOST_GRACE_S = 0.1, 30.0  # an update may need some retransmissions
_ADMITTED_EVERY_S = 10.0  # how long one that is not let in any more stays at most, if nothing comes from it


@dataclass(slots=True)
class Registered:
    """One registration. `expires_s` on the monotonic clock, infinite for a lifetime of 0; `query` and `links` as they came.

    `peer` None: taken up from an earlier process, and not heard of since over a session that is gone.
    """

    device: DeviceId
    location: str
    identity: str
    registration: Registration
    query: str
    links: str
    peer: Peer | None
    expires_s: float

    def stored(self) -> StoredRegistration:
        """Return what survives a restart."""
        address = "" if self.peer is None else self.peer.address
        return StoredRegistration(self.device, self.location, address, self.identity, self.query, self.links)


class Came(Enum):
    """What a registration was."""

    NEW = "new"
    AGAIN = "again"
    CHANGED = "changed"


@record
class Access:
    """Who may register. `endpoints`: the one endpoint name of each credential; `plain`: whether one without a credential may."""

    endpoints: Mapping[str, DeviceId] = field(default_factory=dict)
    plain: bool = True

    def check_protection(self, identity: str) -> None:
        """Raises: Forbidden when nothing was proved, and something has to be."""
        if not identity and not self.plain:
            raise Forbidden("what comes with neither DTLS nor OSCORE is refused (lwm2m.plain)")

    def check(self, device: DeviceId, identity: str) -> None:
        """Raises: Forbidden saying why the name and the credential do not go together."""
        self.check_protection(identity)
        if identity:
            if self.endpoints.get(identity) != device:
                raise Forbidden(f"credential {identity[:40]!r} is not that of {device}")
        elif device in self.endpoints.values():
            raise Forbidden(f"{device} has a credential: it must come with it")


class Registrations:
    """The table. `most` protects memory: one more device than that is told to come later."""

    def __init__(self, *, most: int, access: Access) -> None:
        self._most = most
        self._access = access
        self._of_device: dict[DeviceId, Registered] = {}
        self._of_location: dict[str, Registered] = {}
        self._of_peer: dict[Peer, Registered] = {}
        self._ends: list[tuple[float, DeviceId]] = []
        self._looked_at: dict[DeviceId, float] = {}
        self._admitted_s = 0.0

    def __len__(self) -> int:
        return len(self._of_device)

    def all(self) -> tuple[Registered, ...]:
        """Return a snapshot."""
        return tuple(self._of_device.values())

    @property
    def is_full(self) -> bool:
        """Whether no further device has room."""
        return len(self._of_device) >= self._most

    def of(self, device: DeviceId) -> Registered | None:
        """Return a device's registration."""
        return self._of_device.get(device)

    def at(self, peer: Peer) -> Registered | None:
        """Return who was heard last from there."""
        return self._of_peer.get(peer)

    def register(
        self, device: DeviceId, registration: Registration, *, peer: Peer, query: str, links: str, now_s: float
    ) -> tuple[Registered, Came]:
        """Take a registration; an older one of the same device is replaced.

        Raises: Forbidden; Overloaded when the table is full.
        """
        self._access.check(device, peer.identity)
        before = self._of_device.get(device)
        if before is None and len(self._of_device) >= self._most:
            raise Overloaded(f"{self._most} devices are registered (lwm2m.max_registrations): {device} has no room")
        location = before.location if before is not None else self._new_location()
        taken = Registered(device, location, peer.identity, registration, query, links, peer, float("inf"))
        if before is not None:
            self._forget_peer(before)
        self._of_device[device] = self._of_location[location] = taken
        self._seen(taken, peer, now_s)
        is_same = before is not None and (before.query, before.links, before.identity) == (query, links, peer.identity)
        return taken, Came.NEW if before is None else Came.AGAIN if is_same else Came.CHANGED

    def update(
        self, location: str, update: Update, *, peer: Peer, links: str | None, now_s: float
    ) -> tuple[Registered, bool]:
        """Refresh a registration; return it and whether something that is stored changed.

        Raises: NotFound; Forbidden when it comes with another credential than the registration.
        """
        found = self.named(location, peer)
        changed = update.applied(found.registration)
        is_changed = changed != found.registration
        if is_changed:
            found.registration = changed
            found.links = found.links if links is None else links
            found.query = _query(changed)
        self._seen(found, peer, now_s)
        return found, is_changed

    def named(self, location: str, peer: Peer) -> Registered:
        """Return the registration at a location.

        Raises: NotFound; Forbidden when somebody else asks, or when it would not be let in any more: its device was given a
        credential, for instance, that this peer does not show.
        """
        found = self._of_location.get(location)
        if found is None:
            raise NotFound("no such registration: register again")
        self._access.check(found.device, found.identity)
        if found.identity != peer.identity:
            raise Forbidden(f"{found.device} registered with another credential")
        return found

    def heard(self, registered: Registered, peer: Peer) -> None:
        """Note where a device spoke from last."""
        if registered.peer != peer:
            self._forget_peer(registered)
        registered.peer = peer  # an equal one, too: it knows which address of ours the device spoke to
        self._of_peer[peer] = registered

    def remove(self, registered: Registered) -> None:
        """End a registration."""
        self._forget_peer(registered)
        self._of_device.pop(registered.device, None)
        self._of_location.pop(registered.location, None)

    def ended(self, now_s: float) -> tuple[tuple[Registered, str], ...]:
        """Remove and return the registrations that are over, with why: their time is, or what they came with holds no longer."""
        gone = [(each, "its lifetime is over") for each in self._expired(now_s)]
        if now_s - self._admitted_s >= _ADMITTED_EVERY_S:
            self._admitted_s = now_s
            for each in self.all():
                try:
                    self._access.check(each.device, each.identity)
                except Forbidden as error:
                    self.remove(each)
                    gone.append((each, str(error)))
        return tuple(gone)

    def _expired(self, now_s: float) -> tuple[Registered, ...]:
        """Remove and return the registrations whose lifetime is over."""
        gone = []
        while self._ends and self._ends[0][0] <= now_s:
            at_s, device = heapq.heappop(self._ends)
            if self._looked_at.get(device) != at_s:
                continue  # an earlier place took over
            del self._looked_at[device]
            found = self._of_device.get(device)
            if found is None:
                continue
            if found.expires_s > now_s:
                if found.expires_s != float("inf"):
                    self._look_at(found)
                continue
            self.remove(found)
            gone.append(found)
        return tuple(gone)

    def restore(
        self, stored: StoredRegistration, registration: Registration, peer: Peer | None, now_s: float
    ) -> Registered:
        """Take up what an earlier process had; the lifetime begins anew, because nobody knows when it was refreshed last."""
        identity, query, links = stored.identity, stored.query, stored.links
        taken = Registered(stored.device, stored.location, identity, registration, query, links, peer, float("inf"))
        self._of_device[taken.device] = self._of_location[taken.location] = taken
        if peer is not None:
            self._of_peer[peer] = taken
        self._plan(taken, now_s)
        return taken

    def _seen(self, registered: Registered, peer: Peer, now_s: float) -> None:
        self.heard(registered, peer)
        self._plan(registered, now_s)

    def _plan(self, registered: Registered, now_s: float) -> None:
        """Set when it ends. Each device has one place in the heap, which moves when it comes up: refreshing costs nothing."""
        lifetime_s = registered.registration.lifetime_s
        if lifetime_s is None:
            registered.expires_s = float("inf")
            return
        registered.expires_s = now_s + lifetime_s + min(_MOST_GRACE_S, _GRACE * lifetime_s)
        if registered.expires_s < self._looked_at.get(registered.device, float("inf")):
            self._look_at(registered)
        if len(self._ends) > _SPARE_ENDS * self._most:
            self._tidy()

    def _look_at(self, registered: Registered) -> None:
        self._looked_at[registered.device] = registered.expires_s
        heapq.heappush(self._ends, (registered.expires_s, registered.device))

    def _tidy(self) -> None:
        """Drop the places of devices that are gone: names made up by somebody must not fill the heap."""
        self._ends.clear()
        self._looked_at.clear()
        for each in self._of_device.values():
            if each.expires_s != float("inf"):
                self._look_at(each)

    def _forget_peer(self, registered: Registered) -> None:
        if registered.peer is not None and self._of_peer.get(registered.peer) is registered:
            del self._of_peer[registered.peer]

    def _new_location(self) -> str:
        return secrets.token_urlsafe(_LOCATION_BYTES)


def _query(registration: Registration) -> str:
    """Return the parameters as a device would write them; what an update changed is in them."""
    parts = [f"ep={registration.endpoint}", f"lwm2m={registration.version.value}", f"lt={registration.lifetime_s or 0}"]
    binding = registration.binding
    parts.append(f"b={binding.transports}")
    if binding.is_queued:
        parts.append("Q")
    return "&".join(parts)
