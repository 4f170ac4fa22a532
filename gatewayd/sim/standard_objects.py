"""The objects that every LwM2M device has: Server (/1), Device (/3) and Connectivity Monitoring (/4).

Source: OMA LwM2M Core 1.1.1, appendix E.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from gatewayd.sim.objects import BAD_REQUEST, Fixed, Refusal, Values
from gatewayd.wire.lwm2m.objects import DEVICE, MONITORING, SERVER
from gatewayd.wire.lwm2m.values import Value

_SERVER_ID = 101
_MAX_LIFETIME_S = 2**31 - 1
_INTERNAL_BATTERY, _MAINS = 1, 6
_BEARERS = {"wifi": 21, "ble": 22, "802.15.4": 23, "nb-iot": 7}


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the standard objects make the device do."""

    lifetime_s: Callable[[], int]
    change_lifetime: Callable[[int], None]
    update: Callable[[], None]
    reboot: Callable[[], Awaitable[None]]
    battery_percent: Callable[[], int | None]


class ServerObject:
    """/1/0: the one server."""

    id, version = SERVER, ""

    def __init__(self, hooks: Hooks, *, binding: str) -> None:
        self._hooks, self._binding = hooks, binding

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return (0,)

    def read(self, instance: int) -> Values:  # noqa: ARG002 - there is one
        """See `ObjectPart`."""
        return {0: _SERVER_ID, 1: self._hooks.lifetime_s(), 6: False, 7: self._binding}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset({1}), frozenset({8})

    async def write(self, instance: int, resource: int, value: Value) -> None:  # noqa: ARG002 - there is one of each
        """See `ObjectPart`."""
        if not isinstance(value, int) or not 1 <= value <= _MAX_LIFETIME_S:
            raise Refusal(BAD_REQUEST, "a lifetime is 1 second or more")
        self._hooks.change_lifetime(value)

    async def execute(self, instance: int, resource: int, arguments: str) -> None:  # noqa: ARG002 - there is one of each
        """See `ObjectPart`."""
        self._hooks.update()


class DeviceObject:
    """/3/0: what the device is to everybody."""

    id, version = DEVICE, ""

    def __init__(self, hooks: Hooks, *, board: str, serial: str, ram_bytes: int, binding: str) -> None:
        self._hooks = hooks
        self._fixed: Mapping[int, Value | Mapping[int, Value]] = {
            0: "gatewayd simulator", 1: board, 2: serial, 11: {0: 0}, 16: binding, 17: "simulated board",
            21: ram_bytes // 1024,
        }  # fmt: skip

    def instances(self) -> Sequence[int]:
        """See `ObjectPart`."""
        return (0,)

    def read(self, instance: int) -> Values:  # noqa: ARG002 - there is one
        """See `ObjectPart`."""
        percent = self._hooks.battery_percent()
        power: Values = {6: {0: _MAINS}} if percent is None else {6: {0: _INTERNAL_BATTERY}, 9: percent}
        return {**self._fixed, **power, 13: int(time.time())}

    def actions(self) -> tuple[frozenset[int], frozenset[int]]:
        """See `ObjectPart`."""
        return frozenset(), frozenset({4})

    async def write(self, instance: int, resource: int, value: Value) -> None:
        """See `ObjectPart`."""
        raise NotImplementedError((instance, resource, value))

    async def execute(self, instance: int, resource: int, arguments: str) -> None:  # noqa: ARG002 - there is one of each
        """See `ObjectPart`."""
        await self._hooks.reboot()


def connectivity(link: str) -> Fixed:
    """Return /4/0 for a kind of link."""
    bearer = _BEARERS.get(link, _BEARERS["wifi"])
    return Fixed(MONITORING, {0: bearer, 1: {0: bearer}, 2: -70, 3: 80, 4: {0: "192.0.2.7"}})
