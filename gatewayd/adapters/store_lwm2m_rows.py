"""The SQL of LwM2M registrations: each function reads, or writes within the caller's transaction. On the store's thread only."""

import sqlite3
from collections.abc import Sequence

from gatewayd.core.names import DeviceId
from gatewayd.core.registration import StoredPackage, StoredRegistration


def load_registrations(connection: sqlite3.Connection) -> Sequence[StoredRegistration]:
    """Return every registration that was not ended."""
    rows = connection.execute("SELECT device, location, address, identity, query, links FROM lwm2m_registrations")
    return [StoredRegistration(DeviceId(device), *rest) for device, *rest in rows]


def save_registrations(
    connection: sqlite3.Connection, saved: Sequence[StoredRegistration], ended: Sequence[DeviceId]
) -> None:
    """Insert or replace some, and drop those of devices that are gone."""
    connection.executemany("DELETE FROM lwm2m_registrations WHERE device = ?", [(device,) for device in ended])
    connection.executemany(
        "INSERT OR REPLACE INTO lwm2m_registrations (device, location, address, identity, query, links) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(each.device, each.location, each.address, each.identity, each.query, each.links) for each in saved],
    )


def load_packages(connection: sqlite3.Connection) -> Sequence[StoredPackage]:
    """Return what was installed where."""
    rows = connection.execute("SELECT device, instance, model, version, digest FROM lwm2m_packages")
    return [StoredPackage(DeviceId(device), *rest) for device, *rest in rows]


def save_package(connection: sqlite3.Connection, package: StoredPackage) -> None:
    """Insert or replace."""
    connection.execute(
        "INSERT OR REPLACE INTO lwm2m_packages (device, instance, model, version, digest) VALUES (?, ?, ?, ?, ?)",
        (package.device, package.instance, package.model, package.version, package.digest),
    )
