"""Writes registrations behind what happens: a device is answered at once, its row follows, many rows together."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from gatewayd.core.errors import NotStored
from gatewayd.core.names import DeviceId
from gatewayd.core.registration import StoredPackage, StoredRegistration
from gatewayd.links.lwm2m.registrations import Registered

logger = logging.getLogger(__name__)

_RETRY_S = 5.0


class RegistrationRows(Protocol):
    """Where they are kept."""

    async def save_registrations(self, saved: Sequence[StoredRegistration], ended: Sequence[DeviceId]) -> None:
        """Insert or replace some and drop those of others. Raises: NotStored."""


class Rows(RegistrationRows, Protocol):
    """What survives a restart."""

    async def load_registrations(self) -> Sequence[StoredRegistration]:
        """Return the registrations that had not ended."""

    async def load_packages(self) -> Sequence[StoredPackage]:
        """Return what was installed on devices that do not tell."""

    async def save_package(self, package: StoredPackage) -> None:
        """Insert or replace."""


class Saving:
    """What is not written yet: one entry per device, so that it is bounded as registrations are."""

    def __init__(self, rows: RegistrationRows) -> None:
        self._rows = rows
        self._unsaved: dict[DeviceId, Registered | None] = {}
        self._wanted = asyncio.Event()

    def save(self, device: DeviceId, registered: Registered | None) -> None:
        """Have a registration written soon; None: have it removed."""
        self._unsaved[device] = registered
        self._wanted.set()

    async def run(self) -> None:
        """Write what changed, all that came together in one transaction; what the disk does not take now is kept for later."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            unsaved, self._unsaved = self._unsaved, {}
            saved = [each.stored() for each in unsaved.values() if each is not None]
            ended = [device for device, each in unsaved.items() if each is None]
            try:
                await self._rows.save_registrations(saved, ended)
            except NotStored as error:
                pairs = {"count": len(unsaved), "reason": str(error)}
                logger.error("registrations not stored", extra={"fields": pairs})  # noqa: TRY400 - says all
                self._unsaved = {**unsaved, **self._unsaved}
                self._wanted.set()
                await asyncio.sleep(_RETRY_S)
