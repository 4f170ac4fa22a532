"""What OSCORE contexts are kept in, in memory, and credentials for devices of tests."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from gatewayd.core.credentials import Credentials, OscoreKey
from gatewayd.core.names import DeviceId
from gatewayd.core.oscore import StoredNumbers


def key_of(name: str, number: int = 1) -> OscoreKey:
    """Return a device's credentials."""
    secret = bytes([number]) * 16
    return OscoreKey(DeviceId(name), secret, b"saltsalt", bytes([0, 0, number]), b"gw", made_at=1.0)


@dataclass
class FakeKeys:
    """Keeps the contract of `oscore_contexts.Keys` in memory."""

    known: Credentials = field(default_factory=Credentials)
    changes: int = 0

    @classmethod
    def of(cls, *keys: OscoreKey) -> "FakeKeys":
        return cls(Credentials(oscore=keys))

    def oscore(self) -> tuple[OscoreKey, ...]:
        return self.known.oscore

    def oscore_of_kid(self, kid: bytes) -> OscoreKey | None:
        return next((each for each in self.known.oscore if each.kid == kid), None)

    def oscore_of(self, device: DeviceId) -> OscoreKey | None:
        return next((each for each in self.known.oscore if each.device == device), None)

    async def oscore_used(self, devices: Collection[DeviceId]) -> None:
        self.changes += 1
        self.known = self.known.with_oscore_used(devices)


@dataclass
class FakeNumbers:
    """Keeps the contract of `oscore_contexts.Rows` in memory."""

    rows: dict[str, StoredNumbers] = field(default_factory=dict)
    writes: int = 0
    failure: Exception | None = None

    async def load_oscore_numbers(self) -> dict[str, StoredNumbers]:
        return dict(self.rows)

    async def save_oscore_numbers(self, saved: Any) -> None:  # noqa: ANN401 - a mapping
        self.writes += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.rows.update(saved)

    async def drop_oscore_numbers(self, contexts: Any) -> None:  # noqa: ANN401 - a sequence
        for each in contexts:
            self.rows.pop(each, None)
