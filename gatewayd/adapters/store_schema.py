"""Open the SQLite file and bring its schema up to date: numbered migrations, each in a transaction of its own.

Runs on the store's thread only.
"""

import sqlite3
from importlib.resources import files
from pathlib import Path

from gatewayd.core.errors import NodeError, NotStored

_REMEDIES = {
    "SQLITE_BUSY": "another program holds it, perhaps a second gatewayd: stop that one",
    "SQLITE_FULL": "free some space",
    "SQLITE_CANTOPEN": "check that its directory exists and is writable",
    "SQLITE_READONLY": "check the rights of the file and its directory",
    "SQLITE_PERM": "check the rights of the file and its directory",
    "SQLITE_IOERR": "check the disk, and the kernel's log for what it reports",
    "SQLITE_CONSTRAINT": "the row contradicts the stored ones, and was not written",
}


# What may be gone in a moment, or once somebody has made room: nothing is wrong with the database itself.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")


def migrations() -> tuple[str, ...]:
    """Return the migrations in order: the n-th (from 1) leads to schema version n."""
    directory = files("gatewayd.adapters") / "migrations"
    found = sorted((each for each in directory.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name)
    return tuple(each.read_text("utf-8") for each in found)


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Open (or create) the database, check it and migrate it.

    Raises: NodeError when it is damaged, in use, not a database or from a newer version.
    """
    try:
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    except sqlite3.Error as error:
        raise broken(path, error) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise broken(path, error) from error
    except NodeError:
        connection.close()
        raise
    return connection


def broken(path: Path, error: sqlite3.Error) -> NodeError:
    """Name the file and what to do about it."""
    last_line = str(error).rpartition("\n")[2]
    name = getattr(error, "sqlite_errorname", "")  # absent where the module, not SQLite, found the error
    if name.startswith(_PASSING):
        return NotStored(f"database {path}: {last_line}: {_remedy(name) or 'it may pass'}")
    remedy = _remedy(name)
    if remedy:
        return NodeError(f"database {path}: {last_line}: {remedy}")
    return NodeError(f"database {path} is damaged ({last_line}): restore a backup, or move it away to start empty")


def _remedy(name: str) -> str:
    return next((remedy for prefix, remedy in _REMEDIES.items() if name.startswith(prefix)), "")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # FULL: a version, an alias or a push that was acknowledged survives a power cut; 0.3 ms a commit, and commits are rare.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    finding = _number_or_text(connection, "PRAGMA quick_check(1)")
    if finding != "ok":
        raise sqlite3.DatabaseError(str(finding))
    _migrate(connection, path)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    scripts = migrations()
    version = int(_number_or_text(connection, "PRAGMA user_version"))
    if version > len(scripts):
        raise NodeError(
            f"database {path} is from a newer gatewayd (schema {version}, this one knows {len(scripts)}): "
            "start that version, or restore a backup from before the upgrade"
        )
    for number, script in enumerate(scripts[version:], start=version + 1):
        # The version is part of the transaction: a cut leaves the old schema with the old number.
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def _number_or_text(connection: sqlite3.Connection, query: str) -> int | str:
    value: int | str = connection.execute(query).fetchone()[0]
    return value
