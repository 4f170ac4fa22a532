"""Having a device let go a model: our ML Model object drops it at once; /9 switches it off, then uninstalls what is off.

Source: docs/lwm2m.md, "Dropping a model"; OMA LwM2M Software Management 1.0.1 (a package is uninstalled when it is inactive).
"""

import contextlib
from collections.abc import Mapping

from gatewayd.core.dropping import Drop
from gatewayd.core.errors import BadRequest, DeviceRefused
from gatewayd.core.registration import StoredPackage
from gatewayd.links.lwm2m.attachment import Attachment
from gatewayd.links.lwm2m.operations import Operations
from gatewayd.links.lwm2m.strangers import is_what_was_given
from gatewayd.wire.lwm2m.objects import MODEL, SOFTWARE
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.readings import Readings
from gatewayd.wire.lwm2m.states import Software, read_software

_DROP, _UNINSTALL, _DEACTIVATE = 21, 6, 11


async def dropped(attachment: Attachment, given: Mapping[int, StoredPackage], drop: Drop, *, timeout_s: float) -> None:
    """Have it done in turn with what else is asked of the device, and the slots read again.

    Raises: DeviceRefused, DeviceTimeout, DeviceUnreachable, Overloaded.
    """
    operations = attachment.operations
    until_s = operations.line.clock() + timeout_s

    async def errand() -> None:
        if attachment.is_ours:
            await _drop_ours(operations, drop, until_s=until_s)
        else:
            await _drop_software(operations, drop, given, until_s=until_s)

    await attachment.errands.do(errand, timeout_s=timeout_s)
    attachment.want_birth()


async def _drop_ours(operations: Operations, drop: Drop, *, until_s: float) -> None:
    """Execute Drop, which names the model by its digest. Raises: DeviceRefused, DeviceTimeout, DeviceUnreachable."""
    argument = f"0='{drop.digest}'" + (",1" if drop.is_last else "")
    left_s = until_s - operations.line.clock()
    await operations.execute(Path(MODEL, drop.slot) / _DROP, argument, timeout_s=left_s)


async def _drop_software(
    operations: Operations, drop: Drop, given: Mapping[int, StoredPackage], *, until_s: float
) -> None:
    """Switch off an instance of /9 that the gateway wrote, look, and uninstall it when it is off.

    What is off answers no more: a client that refuses to uninstall it then keeps bytes that nobody uses, until the next push.

    Raises: DeviceRefused when it holds something else or stays on; DeviceTimeout, DeviceUnreachable.
    """
    package, clock = given.get(drop.slot), operations.line.clock
    if package is None or package.digest != drop.digest:
        raise DeviceRefused(f"device {drop.device}: instance {drop.slot} of /9 is not known to hold {drop.model}")
    there = await _look(operations, drop, until_s)
    if not is_what_was_given(there, package):
        raise DeviceRefused(f"device {drop.device}: instance {drop.slot} of /9 holds something else by now")
    if there.is_active:
        await operations.execute(Path(SOFTWARE, drop.slot) / _DEACTIVATE, timeout_s=until_s - clock())
        if (await _look(operations, drop, until_s)).is_active:
            raise DeviceRefused(f"device {drop.device} keeps {drop.model}@{drop.version} switched on")
    with contextlib.suppress(DeviceRefused):
        await operations.execute(Path(SOFTWARE, drop.slot) / _UNINSTALL, timeout_s=until_s - clock())


async def _look(operations: Operations, drop: Drop, until_s: float) -> Software:
    path = Path(SOFTWARE, drop.slot)
    records = await operations.read(path, timeout_s=until_s - operations.line.clock())
    try:
        return read_software(Readings(records), drop.slot)
    except BadRequest as error:
        raise DeviceRefused(f"device {drop.device}: {error}") from error
