"""Reading what a device is and holds: /3, our two objects where it has them, else /9 and what its profile says.

Source: docs/lwm2m.md, "What the gateway reads".
"""

from collections.abc import Sequence

from gatewayd.core.device import Report
from gatewayd.core.errors import DeviceRefused
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.wire.lwm2m.objects import DEVICE, MODEL, RUNTIME
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.registration import Registration
from gatewayd.wire.lwm2m.reports import read_report
from gatewayd.wire.lwm2m.values import Record

ANSWER_S = 10.0
"""How long one read may take. A device that does not answer the first is not asked the next: nobody's address is flooded."""


def has_our_objects(registration: Registration) -> bool:
    """Return whether the device is one of ours: it says what it is in our words."""
    return registration.object(RUNTIME) is not None and registration.object(MODEL) is not None


async def read_birth(operations: Operations, registration: Registration) -> Report:
    """Ask a device with our objects what it is.

    Raises: BadRequest when what it says cannot be; DeviceTimeout, DeviceUnreachable, DeviceRefused.
    """
    records = [*await _tried(operations, Path(DEVICE, 0)), *await operations.read(Path(RUNTIME, 0), timeout_s=ANSWER_S)]
    records += await read_slots(operations, registration.instances(MODEL))
    return read_report(records)


async def read_slots(operations: Operations, instances: Sequence[int]) -> list[Record]:
    """Read every instance of our model object; where none is registered, the whole object."""
    if not instances:
        return list(await operations.read(Path(MODEL), timeout_s=ANSWER_S))
    records: list[Record] = []
    for instance in instances:
        records += await operations.read(Path(MODEL, instance), timeout_s=ANSWER_S)
    return records


async def _tried(operations: Operations, path: Path) -> tuple[Record, ...]:
    """Read what is good to know; a device may refuse it."""
    try:
        return await operations.read(path, timeout_s=ANSWER_S)
    except DeviceRefused:
        return ()
