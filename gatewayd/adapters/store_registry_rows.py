"""The store's SQL about what surrounds versions: retirements, what devices hold, builds. Runs on the store's thread only."""

import sqlite3
from collections.abc import Iterable, Mapping
from itertools import groupby

from gatewayd.core.building import Build
from gatewayd.core.names import DeviceId, Digest, ModelName
from gatewayd.core.registry import Retirement

KEPT_BUILDS = 1_000
"""Protects the disk: older results of compiler plugins are forgotten, and built again when they are wanted."""


def retire(connection: sqlite3.Connection, retirement: Retirement) -> None:
    """Insert the row."""
    columns = (retirement.model, retirement.version, retirement.retired_at, retirement.who, retirement.why)
    connection.execute("INSERT INTO retirements (model, number, retired_at, who, why) VALUES (?, ?, ?, ?, ?)", columns)


def bring_back(connection: sqlite3.Connection, model: ModelName, number: int) -> None:
    """Remove the row."""
    connection.execute("DELETE FROM retirements WHERE model = ? AND number = ?", (model, number))


def load_retirements(connection: sqlite3.Connection) -> tuple[Retirement, ...]:
    """Return all, oldest first."""
    query = "SELECT model, number, retired_at, who, why FROM retirements ORDER BY retired_at, model, number"
    return tuple(Retirement(ModelName(model), *rest) for model, *rest in connection.execute(query))


def save_holdings(connection: sqlite3.Connection, device: DeviceId, digests: Iterable[Digest]) -> None:
    """Replace what the device holds."""
    connection.execute("DELETE FROM holdings WHERE device = ?", (device,))
    connection.executemany("INSERT OR IGNORE INTO holdings VALUES (?, ?)", [(device, each) for each in digests])


def load_holdings(connection: sqlite3.Connection) -> Mapping[DeviceId, frozenset[Digest]]:
    """Return what each device held when it last said so."""
    rows = connection.execute("SELECT device, digest FROM holdings ORDER BY device").fetchall()
    grouped = groupby(rows, key=lambda row: row[0])
    return {DeviceId(device): frozenset(Digest(digest) for _, digest in found) for device, found in grouped}


def find_build(connection: sqlite3.Connection, key: Digest) -> Build | None:
    """Return what came out of it last time."""
    found = connection.execute("SELECT artifact, report FROM builds WHERE key = ?", (key,)).fetchone()
    return None if found is None else Build(key, Digest(found[0]), found[1])


def save_build(connection: sqlite3.Connection, build: Build, built_at: float) -> None:
    """Insert or replace; of all, the newest `KEPT_BUILDS` are kept."""
    connection.execute(
        "INSERT OR REPLACE INTO builds VALUES (?, ?, ?, ?)", (build.key, build.artifact, build.report, built_at)
    )
    newest = "SELECT rowid FROM builds ORDER BY rowid DESC LIMIT ?"
    connection.execute(f"DELETE FROM builds WHERE rowid NOT IN ({newest})", (KEPT_BUILDS,))  # noqa: S608 - constant
