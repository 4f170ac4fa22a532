"""Software Management (/9) as stock clients have it, quirks included: how a board without our objects takes a model. No I/O.

Two kinds, by their sources: Zephyr's (subsys/net/lib/lwm2m/lwm2m_obj_swmgmt.c) and one like Anjay's (src/modules/sw_mgmt). What a
package is stays the board's business: it is kept, and its name and version are told where it has a manifest before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from gatewayd.core.errors import BadRequest
from gatewayd.sim.objects import BAD_REQUEST, INCOMPLETE, INTERNAL, NOT_ALLOWED, TOO_BIG, Refusal, Values
from gatewayd.wire.lwm2m.objects import SOFTWARE
from gatewayd.wire.lwm2m.states import SoftwareState
from gatewayd.wire.lwm2m.values import Value
from gatewayd.wire.manifest import read_manifest

_PACKAGE, _URI, _INSTALL, _UNINSTALL, _ACTIVATE, _DEACTIVATE = 2, 3, 4, 6, 10, 11
_NONE, _DOWNLOADING, _DONE, _NO_ROOM, _LOST, _INTEGRITY, _BAD_URI, _FAILED = 0, 1, 2, 50, 52, 53, 56, 58
_LENGTH_BYTES = 2


class Persona(Enum):
    """Which stock client a board has."""

    ZEPHYR = "zephyr"
    ANJAY = "anjay-like"


@dataclass(frozen=True, slots=True)
class Habits:
    """What tells one kind from the other.

    `push_ends`: a package that is written comes to its end; else its second block is an error, and one of a single block is never
    checked. `wrong_state` answers what cannot be done in a state. `reads_arguments`: Uninstall has some. `stays_active`: an
    uninstalled instance still says that it is active. `recovers`: an empty address frees an instance whose transfer broke.
    """

    push_ends: bool
    wrong_state: int
    reads_arguments: bool
    stays_active: bool
    recovers: bool


HABITS = {
    Persona.ZEPHYR: Habits(
        push_ends=False, wrong_state=INTERNAL, reads_arguments=False, stays_active=True, recovers=True
    ),
    Persona.ANJAY: Habits(
        push_ends=True, wrong_state=NOT_ALLOWED, reads_arguments=True, stays_active=False, recovers=False
    ),
}


@dataclass(frozen=True, slots=True)
class Held:
    """One instance: what it shows, and its package. `is_installing` shows as delivered."""

    state: SoftwareState = SoftwareState.INITIAL
    result: int = _NONE
    name: str = ""
    version: str = ""
    is_active: bool = False
    is_installing: bool = False
    package: bytes = b""


@dataclass(slots=True)
class StockSoftware:
    """The object; see `sim.objects.ObjectPart`. `most_bytes` of a package fit; `keys` are those whose manifests are believed.

    `on_change` is told after every change, `on_fetch` that a package is to be pulled from an address.
    """

    habits: Habits
    most_bytes: int
    keys: Mapping[bytes, bytes]
    on_change: Callable[[], None]
    on_fetch: Callable[[int, str], None]
    held: list[Held] = field(default_factory=lambda: [Held(), Held()])
    id: int = SOFTWARE
    version: str = ""

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return range(len(self.held))

    def read(self, instance: int) -> Values:
        """See `ObjectPart`."""
        held = self.held[instance]
        return {0: held.name, 1: held.version, 7: int(held.state), 9: held.result, 12: held.is_active}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset({_PACKAGE, _URI}), frozenset({_INSTALL, _UNINSTALL, _ACTIVATE, _DEACTIVATE})

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        if resource == _URI and isinstance(value, str):
            self._take_address(instance, value)
        elif resource == _PACKAGE and isinstance(value, bytes):
            await self.push(instance, 0, value, is_last=True)
        else:
            raise Refusal(BAD_REQUEST, f"/9/{instance}/{resource} takes another type")

    async def execute(self, instance: int, resource: int, arguments: str) -> None:
        """See `ObjectPart`."""
        match resource:
            case 4:
                self._install(instance)
            case 6:
                self._uninstall(instance, arguments)
            case _:
                self._check(self.held[instance].state is SoftwareState.INSTALLED, "nothing is installed")
                self._now(instance, is_active=resource == _ACTIVATE)

    async def push(self, instance: int, start: int, content: bytes, *, is_last: bool) -> None:
        """Take a block of a package that is written. Raises: Refusal."""
        state = self.held[instance].state
        if start == 0 or not self.habits.push_ends:
            self._check(state is SoftwareState.INITIAL, "there is a package already")
            self._begin(instance)
        self._append(instance, start, content)
        if is_last and self.habits.push_ends:
            self._deliver(instance)
        elif is_last:
            self._now(instance, state=SoftwareState.DOWNLOADED, result=_NONE)

    def is_wanting(self, instance: int) -> bool:
        """Return whether bytes of a package that is pulled are wanted."""
        return self.held[instance].state is SoftwareState.DOWNLOAD_STARTED

    def held_bytes(self, instance: int) -> int:
        """Return how much of a package is here."""
        return len(self.held[instance].package)

    async def feed(self, instance: int, start: int, content: bytes) -> None:
        """Take a block of a package that is pulled. Raises: Refusal."""
        self._append(instance, start, content)

    def pulled(self, instance: int) -> None:
        """The last block of a package that is pulled is here."""
        if self.is_wanting(instance):
            self._deliver(instance)

    def lost(self, instance: int) -> None:
        """The package could not be pulled to its end."""
        if self.is_wanting(instance):
            self._now(instance, state=SoftwareState.INITIAL, result=_LOST, package=b"")

    def installed(self) -> None:
        """Time passed: what was being installed is."""
        for instance, held in enumerate(self.held):
            if held.is_installing:
                self._now(instance, state=SoftwareState.INSTALLED, result=_DONE, is_installing=False)

    def _take_address(self, instance: int, uri: str) -> None:
        state = self.held[instance].state
        if not uri and (
            state is SoftwareState.INITIAL or (self.habits.recovers and state is SoftwareState.DOWNLOAD_STARTED)
        ):
            self._now(instance, state=SoftwareState.INITIAL, result=_BAD_URI, package=b"")
            if not self.habits.recovers:
                raise Refusal(BAD_REQUEST, "that is no address")
            return
        self._check(state is SoftwareState.INITIAL, "there is a package already")
        self._begin(instance)
        self.on_fetch(instance, uri)

    def _install(self, instance: int) -> None:
        held = self.held[instance]
        is_ready = held.state is SoftwareState.DELIVERED and not held.is_installing
        self._check(is_ready, "nothing is delivered")
        if held.package:
            self._now(instance, is_installing=True)
        else:
            self._now(instance, result=_FAILED)

    def _uninstall(self, instance: int, arguments: str) -> None:
        if self.habits.reads_arguments and arguments.strip() not in {"", "0", "1"}:
            raise Refusal(BAD_REQUEST, "the argument is 0 or 1")
        held = self.held[instance]
        is_there = held.state in {SoftwareState.DELIVERED, SoftwareState.INSTALLED}
        for_update = self.habits.reads_arguments and arguments.strip() == "1"
        self._check(is_there and not for_update, "nothing to uninstall, or not that way")
        result = held.result if held.state is SoftwareState.DELIVERED else _NONE
        is_active = held.is_active and self.habits.stays_active
        self.held[instance] = Held(result=result, is_active=is_active)
        self.on_change()

    def _begin(self, instance: int) -> None:
        self._now(instance, state=SoftwareState.DOWNLOAD_STARTED, result=_DOWNLOADING, name="", version="", package=b"")

    def _append(self, instance: int, start: int, content: bytes) -> None:
        held = self.held[instance]
        if start != len(held.package):
            raise Refusal(INCOMPLETE, f"bytes from {len(held.package)} are wanted, not from {start}")
        if start + len(content) > self.most_bytes:
            self._now(instance, state=SoftwareState.INITIAL, result=_NO_ROOM, package=b"")
            raise Refusal(TOO_BIG, f"at most {self.most_bytes} bytes")
        self.held[instance] = replace(held, package=held.package + content)

    def _deliver(self, instance: int) -> None:
        """What is downloaded is checked at once; that state is rarely seen."""
        self._now(instance, state=SoftwareState.DOWNLOADED, result=_NONE)
        try:
            name, version = self._named(self.held[instance].package)
        except BadRequest:
            self._now(instance, state=SoftwareState.INITIAL, result=_INTEGRITY, package=b"")
            return
        self._now(instance, state=SoftwareState.DELIVERED, result=_NONE, name=name, version=version)

    def _named(self, package: bytes) -> tuple[str, str]:
        """Return the name and version that a manifest before the package tells. Raises: BadRequest when nobody trusts it."""
        length = int.from_bytes(package[:_LENGTH_BYTES], "big")
        signed = package[_LENGTH_BYTES : _LENGTH_BYTES + length]
        if signed[:1] != b"\xd2":  # the tag of a COSE_Sign1; without one it is an artifact alone
            return "", ""
        manifest = read_manifest(signed, self.keys)
        return str(manifest.model), str(manifest.version)

    def _check(self, is_possible: bool, why: str) -> None:  # noqa: FBT001 - what was found out
        if not is_possible:
            raise Refusal(self.habits.wrong_state, why)

    def _now(self, instance: int, **changes: object) -> None:
        self.held[instance] = replace(self.held[instance], **changes)  # type: ignore[arg-type]  # fields by their names
        self.on_change()
