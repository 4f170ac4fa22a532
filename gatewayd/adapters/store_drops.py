"""The SQL of dropped models: the journal of what devices were told to let go. Runs on the store's thread only."""

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from gatewayd.core.dropping import Drop, DropState
from gatewayd.core.names import DeviceId, Digest, ModelName

KEPT_DROPS = 5_000
"""Protects the disk: older drops that ended are forgotten. One takes about 250 bytes."""
_COLUMNS = "id, device, slot, model, version, digest, is_last, who, why, asked_at, state, reason, ended_at"


def add_drop(connection: sqlite3.Connection, drop: Drop) -> Drop:
    """Insert; return it with its number. Of those that ended the oldest is forgotten when there are too many."""
    cursor = connection.execute(
        f"INSERT INTO drops ({_COLUMNS}) VALUES (NULL, {', '.join('?' * 12)})",  # noqa: S608 - constants
        _columns(drop),
    )
    connection.execute(
        "DELETE FROM drops WHERE ended_at IS NOT NULL AND id <= (SELECT max(id) FROM drops) - ?", (KEPT_DROPS,)
    )
    return replace(drop, id=cursor.lastrowid or 0)


def save_drop(connection: sqlite3.Connection, drop: Drop) -> None:
    """Write how it stands now."""
    query = "UPDATE drops SET state = ?, reason = ?, ended_at = ? WHERE id = ?"
    connection.execute(query, (drop.state.value, drop.reason, drop.ended_at, drop.id))


def open_drops(connection: sqlite3.Connection) -> tuple[Drop, ...]:
    """Return those of which nobody knows how they ended, oldest first."""
    return _drops(connection.execute(f"SELECT {_COLUMNS} FROM drops WHERE ended_at IS NULL ORDER BY id"))  # noqa: S608 - constant


def recent_drops(connection: sqlite3.Connection, limit: int, device: DeviceId | None) -> tuple[Drop, ...]:
    """Return at most `limit`, newest first; of one device when it is named."""
    where, named = ("WHERE device = ?", (device,)) if device is not None else ("", ())
    query = f"SELECT {_COLUMNS} FROM drops {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - constants
    return _drops(connection.execute(query, (*named, max(limit, 0))))


def _columns(drop: Drop) -> tuple[str | int | float | None, ...]:
    what = (drop.device, drop.slot, drop.model, drop.version, drop.digest, drop.is_last, drop.who, drop.why)
    return (*what, drop.asked_at, drop.state.value, drop.reason, drop.ended_at)


_Row = tuple[int, str, int, str, int, str, int, str, str, float, str, str, float | None]


def _drops(rows: Iterable[_Row]) -> tuple[Drop, ...]:
    return tuple(
        Drop(
            DeviceId(device), slot, ModelName(model), version, Digest(digest), bool(last), who, why, at,
            id=number, state=DropState(state), reason=reason, ended_at=ended,
        )
        for number, device, slot, model, version, digest, last, who, why, at, state, reason, ended in rows
    )  # fmt: skip
